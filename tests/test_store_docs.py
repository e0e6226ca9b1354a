# SPDX-License-Identifier: Apache-2.0
"""What docs/serving.md shows of stores works."""

from __future__ import annotations

import re
from pathlib import Path

from longclock.store import DamagedHistoryError, open_store

PAGE = (Path(__file__).parents[1] / "docs" / "serving.md").read_text(encoding="utf-8")
SECTION = PAGE[PAGE.index("## Histories in a store") :]


def blocks(kind):
    found = re.findall(rf"```{kind}\n(.*?)```", SECTION, re.DOTALL)
    assert len(found) == 1
    return found[0]


def test_the_store_in_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(blocks("python"), names)
    assert names["behaviours"].time.tolist() == [1_700_000_000]
    assert names["behaviours"].columns["seconds"].tolist() == [215]
    assert names["history"].offsets.tolist() == [0, 2, 3]
    names["store"].close()


def test_the_store_in_redis(redis_server):
    names: dict[str, object] = {"open_store": open_store}
    client = redis_server.client()
    client.config_set("requirepass", "secret")
    try:
        exec(blocks("py").replace("redis://localhost:6379", redis_server.url), names)
    finally:
        client.config_set("requirepass", "")
    assert names["store"].durable is True
    names["store"].close()


def test_the_message():
    error = DamagedHistoryError("SQLiteStore", "ada", 1_700_000_000, "its checksum is wrong")
    assert blocks("text").replace("\n", " ").strip() == f"DamagedHistoryError: {error}"
