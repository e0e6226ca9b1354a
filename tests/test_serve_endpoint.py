# SPDX-License-Identifier: Apache-2.0
"""The endpoint: the protocol, behaviours that count in the next request, limits, and an orderly end."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import orjson
import pytest
import torch
from starlette.testclient import TestClient
from streams import stream
from test_serve import SMALL, distinct, served_from, trained

from longclock.export import export
from longclock.serve import Recommender
from longclock.serve.cli import main
from longclock.serve.endpoint import Limits, create_app
from longclock.store import SQLiteStore

INFER = "/v2/models/longclock/infer"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder, events, _, store = served_from(tmp_path_factory.mktemp("served"))
    store.close()
    return folder, int(events.order_time[-1]) + 60


@pytest.fixture
def client(model):
    with open_client(model[0]) as made:
        yield made


def open_client(folder, **limits):
    recommender = Recommender(folder / "model", SQLiteStore(folder / "histories.db"))
    return TestClient(create_app(recommender, Limits(**limits)), raise_server_exceptions=False)


def tensor(name, *values, datatype="INT64", **fields):
    return {
        "name": name,
        "datatype": datatype,
        "shape": [len(values)],
        "data": list(values),
        **fields,
    }


def body(now, *inputs, user=1, candidates=(3, 5, 7), **fields):
    given = [tensor("user", user), tensor("candidates", *candidates), tensor("now", now), *inputs]
    return {"inputs": given, **fields}


def test_a_ranking(model, client):
    folder, now = model
    answer = client.post(INFER, json=body(now, id="a1", parameters={"top": 2}))
    assert answer.status_code == 200
    found = answer.json()
    with SQLiteStore(folder / "histories.db") as store:
        wanted = Recommender(folder / "model", store).rank(1, [3, 5, 7], now, 2)
    outputs = {each["name"]: each for each in found["outputs"]}
    assert found["id"] == "a1"
    assert found["model_version"] == wanted.version
    assert outputs["items"]["data"] == wanted.items.tolist()
    assert outputs["items"]["shape"] == [2]
    np.testing.assert_array_equal(np.float32(outputs["scores"]["data"]), wanted.scores.numpy())


def test_a_ranking_in_binary(model, client):
    _, now = model
    wanted = client.post(INFER, json=body(now)).json()["outputs"]
    values = {"user": [1], "candidates": [3, 5, 7], "now": [now]}
    tensors = {name: np.array(each, "<i8").tobytes() for name, each in values.items()}
    head = orjson.dumps({
        "inputs": [
            {"name": name, "datatype": "INT64", "shape": [len(values[name])], "parameters": {"binary_data_size": len(content)}}
            for name, content in tensors.items()
        ],
        "outputs": [{"name": "scores", "parameters": {"binary_data": True}}, {"name": "items"}],
    })  # fmt: skip
    headers = {"inference-header-content-length": str(len(head))}
    answer = client.post(INFER, content=head + b"".join(tensors.values()), headers=headers)
    length = int(answer.headers["inference-header-content-length"])
    outputs = {each["name"]: each for each in orjson.loads(answer.content[:length])["outputs"]}
    assert outputs["items"]["data"] == wanted[0]["data"]
    scores = np.frombuffer(answer.content[length:], "<f4")
    np.testing.assert_array_equal(scores, np.float32(wanted[1]["data"]))


def test_a_new_behaviour_counts_in_the_next_request(model, client):
    _, now = model
    asked = body(now, user="ada-1")
    asked["inputs"][0]["datatype"] = "BYTES"
    before = client.post(INFER, json=asked).json()["outputs"]
    behaviour = {"item": 3, "time": now - 5, "utc_offset": 0}
    posted = client.post("/users/ada-1/behaviours", json=behaviour)
    assert (posted.status_code, posted.json()) == (200, {"new": 1})
    after = client.post(INFER, json=asked).json()["outputs"]
    assert after != before
    assert client.post("/users/ada-1/behaviours", json=[behaviour, behaviour]).json() == {"new": 0}
    assert client.post(INFER, json=asked).json()["outputs"] == after


def test_a_number_is_one_user_however_it_comes(model, client):
    _, now = model
    client.post("/users/4711/behaviours", json={"item": 5, "time": now - 9, "utc_offset": 0})
    number, text = body(now, user=4711), body(now, user="4711")
    text["inputs"][0]["datatype"] = "BYTES"
    assert client.post(INFER, json=number).json() == client.post(INFER, json=text).json()


@pytest.mark.parametrize(
    ("path", "status", "holds"),
    [
        ("/v2", 200, "binary_tensor_data"),
        ("/v2/health/live", 200, "true"),
        ("/v2/health/ready", 200, "true"),
        ("/v2/models/longclock", 200, "candidates"),
        ("/v2/models/longclock/ready", 200, "true"),
        ("/v2/models/other", 404, "must be 'longclock', got 'other'"),
        ("/v2/models/longclock/versions/7", 404, "must be the current one"),
        ("/metrics", 200, "longclock_answer_seconds"),
    ],
)
def test_what_can_be_asked(client, path, status, holds):
    client.get("/v2")
    answer = client.get(path)
    assert answer.status_code == status
    assert holds in answer.text


def changed(place, value):
    def change(asked):
        asked["inputs"][1][place] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (changed("name", "items"), "inputs must be user, candidates, now, utc_offset, each once, got 'items'"),
        (changed("name", "user"), "each once, got 'user'"),
        (changed("datatype", "FP32"), "candidates: datatype must be INT64 or BYTES, got 'FP32'"),
        (changed("shape", [2]), "candidates: shape must be ['any number'] and fit the data, got [2] and 3 values"),
        (changed("shape", [3, 1]), "candidates: shape must be"),
        (changed("data", [1, 2, 0.5]), "candidates: data must be integers"),
        (changed("data", [1, 2, 2**63]), "candidates: data must fit INT64"),
        (changed("data", "no"), "candidates: data must be a list"),
        (changed("parameters", {"binary_data_size": 24}), "binary_data_size must be within the body"),
        (changed("parameters", 3), "parameters must be an object"),
        (lambda asked: asked.pop("inputs"), "list of inputs, got NoneType"),
        (lambda asked: asked["inputs"].pop(0), "inputs must have user, got candidates, now"),
        (lambda asked: asked.update(parameters={"top": 0}), "parameter top must be a positive integer, got 0"),
        (lambda asked: asked.update(outputs=[{"name": "z"}]), "outputs must be of items, scores, got 'z'"),
    ],
)  # fmt: skip
def test_mistakes_are_answered(model, client, change, words):
    asked = body(model[1])
    change(asked)
    answer = client.post(INFER, json=asked)
    assert answer.status_code == 400
    assert words in answer.json()["error"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "the body must be JSON"),
        (b"3", "a behaviour must be an object of item, time, utc_offset"),
        (b'{"item": 1, "time": 2}', "a behaviour must be an object of item, time, utc_offset"),
        (b'{"item": 1.5, "time": 2, "utc_offset": 0}', "item must be integers of 64 bits"),
        (b'{"item": 1, "time": 2, "utc_offset": 1e12}', "column 'utc_offset' must be int32"),
    ],
)
def test_mistakes_in_behaviours_are_answered(client, content, words):
    answer = client.post("/users/ada/behaviours", content=content)
    assert answer.status_code == 400
    assert words in answer.json()["error"]


def test_a_body_that_is_too_long(model):
    with open_client(model[0], body=1000) as client:
        whole = client.post(INFER, json=body(model[1], candidates=range(1000)))
        in_parts = client.post(INFER, content=iter([b" " * 600] * 2))
    for answer in (whole, in_parts):
        assert answer.status_code == 413
        assert "at most 1000 bytes" in answer.json()["error"]


class Held:
    """A recommender whose rankings wait until they are let go."""

    def __init__(self, recommender):
        self.inner, self.go, self.begun = recommender, threading.Event(), threading.Semaphore(0)

    def rank(self, *args, **kwargs):
        self.begun.release()
        assert self.go.wait(30)
        return self.inner.rank(*args, **kwargs)

    def __getattr__(self, name):
        return getattr(self.inner, name)


def held_client(model, **limits):
    held = Held(Recommender(model[0] / "model", SQLiteStore(model[0] / "histories.db")))
    return held, TestClient(create_app(held, Limits(**limits)))


def test_more_than_the_queue_holds_is_turned_away(model):
    held, client = held_client(model, threads=1, queue=1, deadline=30.0)
    answers = []
    with client:
        ask = lambda: answers.append(client.post(INFER, json=body(model[1])).status_code)  # noqa: E731
        threads = [threading.Thread(target=ask) for _ in range(2)]
        threads[0].start()
        assert held.begun.acquire(timeout=30)
        threads[1].start()
        until = time.monotonic() + 30
        while "longclock_waiting 2.0" not in client.get("/metrics").text:
            assert time.monotonic() < until
        turned_away = client.post(INFER, json=body(model[1]))
        assert (turned_away.status_code, turned_away.headers["retry-after"]) == (429, "1")
        assert client.get("/v2/health/live").status_code == 200  # the loop is free
        held.go.set()
        for thread in threads:
            thread.join()
    assert answers == [200, 200]


def test_what_waits_too_long_is_not_begun(model):
    held, client = held_client(model, threads=1, queue=5, deadline=30.0)
    with client:
        first = threading.Thread(target=lambda: client.post(INFER, json=body(model[1])))
        first.start()
        assert held.begun.acquire(timeout=30)
        late = client.post(INFER, json=body(model[1], parameters={"timeout": 50_000}))
        assert late.status_code == 504
        assert "within 0.05 s" in late.json()["error"]
        held.go.set()
        first.join()
        assert client.post(INFER, json=body(model[1])).status_code == 200
    assert held.begun.acquire(timeout=1)  # of the last one; that which gave up was never begun
    assert not held.begun.acquire(blocking=False)


def test_a_new_version_is_found(model, tmp_path):
    folder, now = model
    events = distinct(stream())
    _, _, path = trained(tmp_path, events, config=dataclasses.replace(SMALL, seed=5))
    export(folder / "lic.safetensors", tmp_path / "model")
    recommender = Recommender(tmp_path / "model", SQLiteStore(folder / "histories.db"))
    with TestClient(create_app(recommender, Limits(refresh=0.01))) as client:
        before = client.post(INFER, json=body(now)).json()
        (tmp_path / "model" / "current.json").write_bytes(
            b"{"
        )  # no version: the one before goes on
        until = time.monotonic() + 30
        while "longclock_refresh_failures_total 0.0" in client.get("/metrics").text:
            assert time.monotonic() < until
        assert client.post(INFER, json=body(now)).json() == before
        name = export(path, tmp_path / "model")
        while client.get("/v2/models/longclock").json()["versions"] != [name]:
            assert time.monotonic() < until
        assert client.post(INFER, json=body(now)).json()["outputs"] != before["outputs"]


@pytest.fixture
def server(model):
    """The command, as a process of its own, and its port."""
    folder = model[0]
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "longclock.serve", "--model", folder / "model", "--store", folder / "histories.db",
         "--port", str(port)],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    yield process, port
    process.kill()
    process.communicate()


def test_a_store_is_made_only_where_that_is_asked(model, monkeypatch, tmp_path, caplog):
    """With the columns that requests and behaviours have; one without histories is told."""
    monkeypatch.setattr("uvicorn.run", lambda *app, **options: None)
    words = [
        "--model",
        str(model[0] / "model"),
        "--store",
        str(tmp_path / "new.db"),
        "--threads",
        "1",
    ]
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert not (tmp_path / "new.db").exists()
    with caplog.at_level("INFO"):
        assert main([*words, "--new-store"]) == 0
    assert "new.db has no histories" in caplog.text
    with SQLiteStore(tmp_path / "new.db") as store:
        assert store.columns == {"utc_offset": "int32"}
        store.append(1, item=3, time=100, utc_offset=0)
    caplog.clear()
    for again in ([], ["--new-store"]):
        assert main([*words, *again]) == 0
    assert "no histories" not in caplog.text


def test_the_stock_client(model, server):
    """NVIDIA's client of the protocol: health, metadata, and the same ranking as JSON and in binary."""
    triton = pytest.importorskip("tritonclient.http")
    process, port = server
    with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
        until = time.monotonic() + 60
        while True:
            try:
                assert client.is_server_live()
                break
            except ConnectionRefusedError:
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.1)
        assert client.is_server_ready()
        assert client.is_model_ready("longclock")
        assert client.get_server_metadata()["name"] == "longclock"
        assert [each["name"] for each in client.get_model_metadata("longclock")["outputs"]] == [
            "items",
            "scores",
        ]
        found = []
        for binary in (True, False):
            inputs = []
            for name, values in (("user", [1]), ("candidates", range(12)), ("now", [model[1]])):
                values = np.array(values, np.int64)
                inputs.append(triton.InferInput(name, list(values.shape), "INT64"))
                inputs[-1].set_data_from_numpy(values, binary_data=binary)
            outputs = [
                triton.InferRequestedOutput(name, binary_data=binary)
                for name in ("items", "scores")
            ]
            answer = client.infer("longclock", inputs, outputs=outputs)
            found.append([torch.from_numpy(answer.as_numpy(name)) for name in ("items", "scores")])
        assert all(torch.equal(*pair) for pair in zip(*found, strict=True))
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode in (0, -signal.SIGTERM), said
    assert "Traceback" not in said
