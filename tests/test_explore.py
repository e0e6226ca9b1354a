# SPDX-License-Identifier: Apache-2.0
"""What the explorer's page shows is what search, attention and recommender say, at any second of the day."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from explored import DAY, STEP, Right, Shown, events_of, explorer_of, put_in_place
from starlette.testclient import TestClient
from streams import stream
from test_serve import distinct, trained

from longclock._colours import COLOURS
from longclock.data import EventStream
from longclock.data.ids import ids_of
from longclock.data.numbering import Numbering
from longclock.explore.app import create_app
from longclock.explore.cli import main
from longclock.explore.explorer import Explorer
from longclock.explore.page import html_of
from longclock.export import export
from longclock.serve import Recommender
from longclock.store import SQLiteStore
from longclock.store.__main__ import columns_of, fill

SECONDS = (0, 1, 8 * 3600 + 1234, 12 * 3600, 17 * 3600 + 59, DAY - 1)


@pytest.fixture(scope="module")
def explorer(tmp_path_factory):
    return explorer_of(tmp_path_factory.mktemp("explored"))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lic", {}), ("lic", {"labels": True}), ("lic", {"history": 17}), ("lic", {"history_days": 2}), ("lic", {"history_delay": 7200}),
        ("twin", {}), ("lic-literal", {}), ("lic-s-free", {}), ("lic-s-per-head", {}), ("lic-s-per-stage", {}), ("lic-search", {}),
        ("lic-attention", {}), ("lic-precomputed", {}),
    ],
)  # fmt: skip
def test_picks_and_attention_at_any_second(tmp_path, name, options):
    """Picks and scores are those of clock_gsu bit for bit, and attention to them gives what esu_attention does."""
    explorer = explorer_of(tmp_path, name, **options)
    user = json.loads(json.dumps(explorer.of_user(explorer.users(1)[0])))
    shown, left = Shown(explorer.of_model(), user), set()
    for second in SECONDS:
        right = Right(explorer, user, second)
        first = sum(leaves < second for leaves in user["leaving"])
        assert len(shown.clock) - first == len(right.behaviours)
        left.add(first)
        found = right.search()
        context = right.contexts(found.indices)
        table = right.table.double().numpy()[right.behaviours]
        for candidate in range(len(user["candidates"])):
            picks, scores = shown.picks(candidate, second)
            assert (picks - first).tolist() == found.indices[0, candidate].tolist()
            np.testing.assert_array_equal(scores, found.scores[0, candidate].numpy())
            weight = shown.attention(candidate, second, picks)
            np.testing.assert_allclose(weight @ table[picks - first], context[candidate], rtol=1e-5, atol=1e-6)  # fmt: skip
    assert (len(left) > 1) == (
        "history_days" in options
    )  # some are forgotten in the course of the day


def test_the_ranking_is_the_recommender_s(explorer):
    user = explorer.of_user(3)
    shown = Shown(explorer.of_model(), user)
    assert shown.ranking.shape == (DAY // STEP, len(shown.items))
    orders = set()
    for place in range(0, DAY // STEP, 7):
        request = Right(explorer, user, place * STEP).request
        ranking = explorer.recommender.rank_many([request])[0]
        order = np.argsort(-shown.ranking[place], kind="stable")
        assert ranking.items.tolist() == [shown.items[c] for c in order]
        np.testing.assert_array_equal(shown.ranking[place][order], ranking.scores.numpy())
        orders.add(tuple(order))
    assert len(orders) > 1  # it moves


def test_who_and_what_is_shown(explorer):
    store = explorer.recommender.store
    users = explorer.users(4)
    lengths = [len(store.get(user).item) for user in users]
    assert lengths == sorted((len(store.get(user).item) for user in store.users()), reverse=True)[:4]  # fmt: skip
    shown = explorer.of_user(users[0], count=3)
    items = store.get(users[0]).item
    counts = torch.bincount(items)
    wanted = counts.sort(descending=True, stable=True).indices[:3].tolist()
    assert [each["item"] for each in shown["candidates"]] == wanted
    names = ["tea", "jazz & <b>", "folk"]
    assert [each["name"] for each in shown["candidates"]] == [f"{names[item % 3]} ({item})" for item in wanted]  # fmt: skip
    groups = {each["group"]: each for each in shown["groups"]}
    assert {group: each["name"] for group, each in groups.items()} == dict(enumerate(names, 1))
    assert len({each["colour"] for each in groups.values()} & set(COLOURS)) == 3
    assert [each["item"] for each in explorer.of_user(1, [5, 2, 5])["candidates"]] == [5, 2]


def test_without_names_there_are_numbers(explorer):
    bare = Explorer(explorer.recommender)
    shown = bare.of_user(2, [7])
    assert shown["candidates"] == [{"item": 7, "name": "item 7"}]
    assert {each["name"] for each in shown["groups"]} == {"category 1", "category 2", "category 3"}


def test_the_page_asks_nobody(explorer):
    page = html_of(explorer.of_model(), [explorer.of_user(1)])
    assert not re.search(r'\b(src|href)=|@import|url\(|https?://(?!www\.w3\.org/2000/svg)', page)  # fmt: skip
    assert "connect-src 'none'" in page
    assert "jazz & <b>" not in page  # names are data
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    assert json.loads(data[1])["users"][0]["candidates"][0]["name"]


def test_a_server_of_any_user(explorer):
    client = TestClient(create_app(explorer, explorer.users(2), count=5))
    page = client.get("/").text
    assert '"live": true' in page
    assert "connect-src 'self'" in page
    answer = client.get("/user", params={"user": "4"})
    assert answer.json() == explorer.of_user(4, count=5)
    assert client.get("/user", params={"user": "4", "items": "7, 1"}).json() == explorer.of_user(4, [7, 1])  # fmt: skip
    for given, message in (
        ({"user": "nobody"}, "user 'nobody' has no behaviours in histories.db that the model knows; name one that has"),
        ({"user": "4", "items": "12"}, "candidates must be from 0 to 11, the model's items, got 12"),
        ({"user": "4", "items": "tea"}, "candidates must be from 0 to 11, the model's items, got 'tea'"),
        ({"user": "4", "items": "7,,1"}, "candidates must be items with commas between them, got '7,,1'"),
        ({"user": "4", "items": '7,"1'}, "candidates must be items with commas between them, got '7,\"1'"),
    ):  # fmt: skip
        answer = client.get("/user", params=given)
        assert (answer.status_code, answer.json()) == (400, {"error": message})


@pytest.mark.parametrize(("name", "message"), [
    ("no-time", "the model must search by products and a clock, as lic and twin do, got NoTime"),
    ("full-clock", "the model must search by products and a clock, as lic and twin do, got FullClock"),
    ("lic-week", r"the model must have one clock of a day, 86400 seconds, got LongTermInterestClock with clocks \(604800,\)"),
])  # fmt: skip
def test_other_models_are_named(tmp_path, name, message):
    with pytest.raises(ValueError, match=message):
        explorer_of(tmp_path, name)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model, and the events that it was trained on as a file."""
    folder, events = tmp_path_factory.mktemp("files"), distinct(stream())
    events = dataclasses.replace(events, time=events.order_time)
    export(trained(folder, events)[2], folder / "model")
    rows = [f"{u},{i},{t}" for u, i, t in zip(events.user, events.item, events.time, strict=True)]
    (folder / "events.csv").write_text("user,item,time\n" + "\n".join(rows) + "\n")
    return folder


def test_the_command_writes_a_page(files, capsys):
    out = files / "page.html"
    arguments = ["--model", str(files / "model"), "--events", str(files / "events.csv"), "--out", str(out)]  # fmt: skip
    assert main([*arguments, "--users", "2", "--candidates", "3"]) == 0
    size = f"{out.stat().st_size / 1e6:.1f} MB"
    assert capsys.readouterr().out == f"{out}: 2 users, {size}, needs no server\n"
    data = json.loads(re.search(r'id="data">(.*?)</script>', out.read_text(), re.DOTALL)[1])
    assert [len(user["candidates"]) for user in data["users"]] == [3, 3]
    assert main([*arguments, "--user", "5", "--items", "1,9"]) == 0
    data = json.loads(re.search(r'id="data">(.*?)</script>', out.read_text(), re.DOTALL)[1])
    assert [user["user"] for user in data["users"]] == [5]
    assert [each["item"] for each in data["users"][0]["candidates"]] == [1, 9]


@pytest.mark.parametrize(("arguments", "message"), [
    ("--model nowhere --events events.csv", "nowhere/current.json cannot be read: No such file or directory; export a model into it: python -m longclock.export"),
    ("--model model", "give the histories: --store URL, --events FILE, or --data NAME"),
    ("--model model --store none.db", "--store: none.db does not exist; fill it: python -m longclock.store --store none.db"),
    ("--model model --store empty.db", "empty.db has no histories; fill it: python -m longclock.store"),
    ("--model model --events events.csv --user ada", "user 'ada' has no behaviours in events.csv that the model knows; name one that has"),
    ("--model model --events events.csv --items 3,x", "candidates must be from 0 to 11, the model's items, got 'x'"),
    ("--model model --events events.csv --items 12", "candidates must be from 0 to 11, the model's items, got 12"),
    ("--model model --events others.csv", "the model knows no item of others.csv: it learned from other events; give those that it was trained on, or later ones of the same items"),
    ("--model model --events events.csv --users 0", "--users must be from 1 to 1000, got 0"),
])  # fmt: skip
def test_mistakes_get_one_line(files, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(files)
    SQLiteStore("empty.db").close()
    (files / "others.csv").write_text("user,item,time\nada,jazz,100\nada,folk,200\n")
    with pytest.raises(SystemExit) as ended:
        main([*arguments.split(), "--out", "page.html"])
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert said.pop() == f"longclock.explore: {message}"
    assert all(line.startswith("longclock.explore: ") and "must" not in line for line in said)
    assert not (files / "none.db").exists()


def named(events, items):
    """The stream whose items, and users, have names."""
    return dataclasses.replace(events, item_names=items, user_names=[f"ann {i}" for i in range(events.users)])  # fmt: skip


def filled(path, events):
    store = SQLiteStore(path, columns=columns_of(events))
    fill(store, events)
    return store


SONGS = [f"song {i}" for i in range(10)] + ["Simon, Garfunkel", 10**17]


@pytest.fixture
def of_songs(tmp_path):
    """An explorer of a model whose items have texts, and a number of 18 digits, as ids; and the stream."""
    events = named(events_of(), SONGS)
    put_in_place(tmp_path, events)
    store = filled(tmp_path / "histories.db", events)
    return Explorer(Recommender(tmp_path / "model", store), events), events


def test_items_are_asked_for_by_their_ids(of_songs):
    explorer, events = of_songs
    client = TestClient(create_app(explorer, explorer.users(2)))
    asked = client.get("/user", params={"user": "ann 1", "items": f'song 7, "Simon, Garfunkel",{10**17}'})  # fmt: skip
    user = asked.json()
    assert user == explorer.of_user("ann 1", ["song 7", "Simon, Garfunkel", 10**17])
    assert [each["item"] for each in user["candidates"]] == ["song 7", "Simon, Garfunkel", str(10**17)]  # fmt: skip
    assert [each["name"] for each in user["candidates"]] == ["jazz & <b> (song 7)", "jazz & <b> (Simon, Garfunkel)", f"folk ({10**17})"]  # fmt: skip
    answer = client.get("/user", params={"user": "ann 1", "items": "song 7,song 99"})
    known = "candidates must be among the model's 12 items, such as 'song 0', 'song 1', 'song 2', got 'song 99'"  # fmt: skip
    assert (answer.status_code, answer.json()) == (400, {"error": known})
    with pytest.raises(ValueError, match="got 7"):
        explorer.of_user("ann 1", [7])  # a row, not an id
    rows = set(user["rows"])
    own = events.item[events.user == 1]
    assert rows == {f"{['tea', 'jazz & <b>', 'folk'][item % 3]} ({SONGS[item]})" for item in own}


def test_the_ranking_of_texts_is_the_recommender_s(of_songs):
    explorer, _ = of_songs
    user = explorer.of_user("ann 1")
    names = [each["item"] for each in user["candidates"]]
    first = Shown(explorer.of_model(), user).ranking[0]
    ids = torch.from_numpy(ids_of(names))
    right = explorer.recommender.rank("ann 1", ids, user["midnight"])
    assert len(names) > 3
    order = (-first).argsort(kind="stable").argsort().tolist()
    assert [right.items.tolist().index(i) for i in ids.tolist()] == order
    assert right.scores.tolist() == sorted(first.tolist(), reverse=True)


def test_names_come_from_any_events_of_the_items(of_songs):
    """Another file numbers items and their attributes in another order, and does not have all."""
    explorer, events = of_songs
    user = explorer.of_user("ann 1")
    last = events.item >= 2
    other = EventStream(
        name="other", user=events.user[last], item=11 - events.item[last], time=events.time[last], order_time=events.order_time[last],
        categories={"category": 3 - events.item[last] % 3}, category_names={"category": ["unknown", "folk", "jazz & <b>", "tea"]},
        item_names=SONGS[:1:-1], user_names=events.user_names,
    )  # fmt: skip
    found = Explorer(explorer.recommender, other).of_user("ann 1")
    ids = dict(
        zip(SONGS[:2], map(str, ids_of(SONGS[:2])), strict=True)
    )  # all that is known of these
    wanted = [ids.get(each["item"], each["item"]) for each in user["candidates"]]
    assert [each["item"] for each in found["candidates"]] == wanted
    nameless = {f"tea ({SONGS[0]})": f"item {ids[SONGS[0]]}", f"jazz & <b> ({SONGS[1]})": f"item {ids[SONGS[1]]}"}  # fmt: skip
    assert found["rows"] == [nameless.get(name, name) for name in user["rows"]]
    assert set(nameless) & set(user["rows"])
    assert found["groups"] == user["groups"]


def test_a_model_whose_rows_are_hashes_of_ids(of_songs):
    explorer, events = of_songs
    recommender = explorer.recommender
    hashed = {**recommender.served.numberings, "items": Numbering(12)}
    recommender._served = dataclasses.replace(recommender.served, numberings=hashed)
    found = Explorer(recommender, events).of_user("ann 1", ["song 7", "no song"])
    assert [each["name"] for each in found["candidates"]] == ["jazz & <b> (song 7)", "item " + str(ids_of(["no song"])[0])]  # fmt: skip
    own = {SONGS[item] for item in events.item[events.user == 1]}
    assert len(found["rows"]) == len(own)  # of items that share a row each is named


def test_users_with_more_digits_than_a_browser_reads(tmp_path):
    events = dataclasses.replace(events_of(), user_names=[2**53 + 1, *range(1, 6)])
    put_in_place(tmp_path, events)
    explorer = Explorer(Recommender(tmp_path / "model", filled(tmp_path / "histories.db", events)))
    client = TestClient(create_app(explorer, [2**53 + 1, 3]))
    assert f'"users": [{{"user": "{2**53 + 1}"}}, {{"user": 3}}]' in client.get("/").text
    assert client.get("/user", params={"user": str(2**53 + 1)}).json()["user"] == str(2**53 + 1)


def test_a_new_version_is_shown_by_the_next_request(tmp_path, caplog):
    explorer, events = explorer_of(tmp_path), events_of()
    client = TestClient(create_app(explorer, explorer.users(2)))
    first = explorer.of_model()

    def ask(path, **params):
        return client.get(path, params=params)

    assert f'"version": "{first["version"]}"' in ask("/").text
    assert "model" not in ask("/user", user="4", version=first["version"]).json()
    version = put_in_place(tmp_path, events, "lic-half-day", seed=3)
    found = ask("/user", user="4", version=first["version"]).json()
    fresh = Explorer(Recommender(tmp_path / "model", explorer.recommender.store), events)
    assert (found["version"], found["model"]["version"]) == (version, version)
    assert found.pop("model") == fresh.of_model() != first
    assert found == fresh.of_user(4)
    assert "model" not in ask("/user", user="4").json()  # nobody asked for it
    assert f'"version": "{version}"' in ask("/").text

    put_in_place(tmp_path, events, "full-clock")
    assert ask("/user", user="4", version=version).json() == found
    assert (
        f"version {version} goes on: the model must search by products and a clock" in caplog.text
    )
    (tmp_path / "model" / "current.json").write_text("{")
    caplog.clear()
    assert ask("/user", user="4", version=version).json() == found
    assert f"version {version} goes on: {tmp_path / 'model' / 'current.json'} is no JSON" in caplog.text  # fmt: skip
    (tmp_path / "model" / "current.json").unlink()
    assert f'"version": "{version}"' in ask("/").text
    last = put_in_place(tmp_path, events)
    assert ask("/user", user="4").json()["version"] == last
