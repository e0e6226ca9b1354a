# SPDX-License-Identifier: Apache-2.0
"""What the explorer's page shows is what search, attention and recommender say, at any second of the day."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from explored import DAY, STEP, Right, Shown, explorer_of
from starlette.testclient import TestClient
from streams import stream
from test_serve import SMALL, distinct, trained

from longclock._colours import COLOURS
from longclock.data.sources import text_ids
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
        ({"user": "4", "items": "tea"}, "candidates must be items, numbers with commas between them, got 'tea'"),
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
    ("--model model --store none.db", "none.db does not exist; fill it: python -m longclock.store --store none.db"),
    ("--model model --store empty.db", "empty.db has no histories; fill it: python -m longclock.store"),
    ("--model model --events events.csv --user ada", "user 'ada' has no behaviours in events.csv that the model knows; name one that has"),
    ("--model model --events events.csv --items 3,x", "candidates must be items, numbers with commas between them, got '3,x'"),
    ("--model model --events events.csv --items 12", "candidates must be from 0 to 11, the model's items, got 12"),
    ("--model model --events events.csv --users 0", "--users must be from 1 to 1000, got 0"),
])  # fmt: skip
def test_mistakes_get_one_line(files, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(files)
    SQLiteStore("empty.db").close()
    with pytest.raises(SystemExit) as ended:
        main([*arguments.split(), "--out", "page.html"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"longclock.explore: {message}\n"
    assert not (files / "none.db").exists()


def test_items_that_have_texts_as_ids(tmp_path):
    """Rows of the page are those of the model, and its ranking is asked by ids."""
    events = distinct(stream())
    events = dataclasses.replace(
        events, item_names=[f"song {i}" for i in range(events.items)], user_names=[f"ann {i}" for i in range(events.users)]
    )  # fmt: skip
    export(trained(tmp_path, events, "lic", SMALL)[2], tmp_path / "model")
    store = SQLiteStore(tmp_path / "histories.db", columns=columns_of(events))
    fill(store, events)
    explorer = Explorer(Recommender(tmp_path / "model", store), events)
    user = explorer.of_user("ann 1")
    names = [events.item_names[each["item"]] for each in user["candidates"]]
    first = Shown(explorer.of_model(), user).ranking[0]
    ids = torch.from_numpy(text_ids(names))
    right = explorer.recommender.rank("ann 1", ids, user["midnight"])
    assert len(names) > 3
    assert [right.items.tolist().index(i) for i in ids.tolist()] == (-first).argsort(
        kind="stable"
    ).argsort().tolist()
    assert right.scores.tolist() == sorted(first.tolist(), reverse=True)
