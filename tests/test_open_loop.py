# SPDX-License-Identifier: Apache-2.0
"""The load on a server: latency counts from when a request was due, whatever answers; and the bench of it runs."""

from __future__ import annotations

import json
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bench import report, serve_load  # noqa: E402
from bench.open_loop import Answers, arrivals, by_threads, over_http  # noqa: E402


def test_requests_are_due_at_the_rate():
    due = arrivals(200, 10.0, seed=1)
    assert len(due) == 2000
    assert np.all(np.diff(due) >= 0)
    assert due[-1] < 10
    gaps = np.diff(due)
    assert 0.9 < gaps.std() / gaps.mean() < 1.1  # as exponential ones have
    assert not np.array_equal(due, arrivals(200, 10.0, seed=2))


def test_a_request_waits_for_those_before_it():
    """One stall of 0.3 s is seen by all who came in it, not by the one who asked alone."""
    due = np.arange(30) * 0.01
    stalls = iter([0.3] + [0.0] * 29)
    answers = by_threads(lambda number: time.sleep(next(stalls)), due, threads=1)
    latency = answers.end - answers.due
    assert latency[0] >= 0.3
    assert np.all(latency[:29] >= 0.3 - due[:29])
    assert answers.answered.all()
    assert answers.latency_ms()["p50"] > 100


def test_threads_take_turns():
    lock, together, most = threading.Lock(), 0, 0

    def ask(number):
        nonlocal together, most
        with lock:
            together += 1
            most = max(most, together)
        time.sleep(0.02)
        with lock:
            together -= 1

    answers = by_threads(ask, np.zeros(12), threads=3)
    assert most == 3
    assert answers.end.max() >= 0.08
    assert answers.a_second <= 12 / 0.08


def test_an_error_is_raised():
    def fail(number):
        raise ValueError("no answer")

    with pytest.raises(ValueError, match="no answer"):
        by_threads(fail, np.zeros(5), threads=2)


def test_quantiles_of_too_few_are_left_out():
    answers = Answers(np.zeros(100), np.arange(1, 101) / 1e3, np.arange(100) < 99)
    found = answers.latency_ms()
    assert found["p50"] == pytest.approx(50)
    assert found["p99.9"] is None
    assert answers.a_second == pytest.approx(99 / 0.1)


@pytest.fixture
def server():
    """Answers with the status that the body names, a while later."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 0.1  # seconds that a connection may be idle

        def do_POST(self):
            status = int(self.rfile.read(int(self.headers["content-length"])))
            time.sleep(0.2)
            self.send_response(status)
            self.send_header("content-length", "3")
            self.end_headers()
            self.wfile.write(b"abc")

        def log_message(self, *words):
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made.server_address[1]
    made.shutdown()
    made.server_close()
    thread.join()


def test_over_http(server):
    bodies = [b"200"] * 8 + [b"429", b"504"]
    answers = over_http(server, "/", bodies, np.arange(10) * 0.01)
    assert answers.answered.tolist() == [True] * 8 + [False] * 2
    assert np.all(answers.end - answers.due >= 0.2)
    assert answers.end.max() < 10 * 0.2  # together, not one behind the other
    with pytest.raises(RuntimeError, match="500"):
        over_http(server, "/", [b"500"], np.zeros(1))


def test_a_connection_that_the_server_has_closed(server):
    assert over_http(server, "/", [b"200"] * 2, np.array([0.0, 0.8])).answered.all()


def test_histories_of_the_bench():
    sizes = serve_load.FULL.sizes
    for data, make in serve_load.DATA.items():
        for items, times in make(sizes, 3):
            assert len(items) == len(times) == sizes.behaviours
            assert np.all(np.diff(times) >= 0)
            assert times[-1] <= serve_load.NOW
            assert len({*zip(items.tolist(), times.tolist(), strict=True)}) == len(items)
            assert 0 <= items.min() <= items.max() < sizes.items
            assert (len(np.unique(items)) == len(items)) == (data == "distinct items")


def test_the_bench_runs(tmp_path, capsys):
    file, image = tmp_path / "load.json", tmp_path / "load.svg"
    assert serve_load.main(["--quick", "--json", str(file), "--svg", str(image)]) == 0
    results = json.loads(file.read_text())
    assert results["results"].keys() == {"music", "distinct items"}
    for found in results["results"].values():
        assert found["load"]["behaviours"] == 5 * 60
        assert found["points"].keys() == {"longclock, bf16", "longclock, fp32", "endpoint, bf16", "plain PyTorch, fp32"}  # fmt: skip
        for points in found["points"].values():
            for point in points:
                assert point["answers"] + point["refused"] == round(0.3 * point["rate"])
                assert point["latency_ms"]["p50"] > 0
                assert point["cpu_ms"] > 0
                assert point["appends"]["a_second"] > 0
    assert "answered" in capsys.readouterr().out
    text = report.section(results)
    assert text.count("\n| ") == 2 + 8
    lines = ElementTree.parse(image).findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 2 * 2 * 4
