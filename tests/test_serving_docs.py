# SPDX-License-Identifier: Apache-2.0
"""What docs/serving.md shows works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from longclock.store import DamagedHistoryError, open_store

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def blocks(word):
    found = [block for block in BLOCKS if word in block]
    assert found
    return found


def test_the_store_in_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks("sqlite:///"):
        exec(block, names)
    assert names["behaviours"].time.tolist() == [1_700_000_000]
    assert names["behaviours"].columns["seconds"].tolist() == [215]
    assert names["history"].offsets.tolist() == [0, 2, 3]
    names["store"].close()


def test_the_store_in_redis(redis_server):
    for block in blocks("redis://"):
        names: dict[str, object] = {"open_store": open_store}
        client = redis_server.client()
        client.config_set("requirepass", "secret")
        try:
            exec(block.replace("redis://localhost:6379", redis_server.url), names)
        finally:
            client.config_set("requirepass", "")
        assert names["store"].durable is True
        names["store"].close()


def test_the_message():
    error = DamagedHistoryError("SQLiteStore", "ada", 1_700_000_000, "its checksum is wrong")
    shown = re.findall(r"```text\nDamagedHistoryError: (.*?)\n```", PAGE, re.DOTALL)
    assert [text.replace("\n", " ") for text in shown] == [str(error)]


@pytest.mark.parametrize("command", re.findall(r"`(python -m [\w.]+)", PAGE))
def test_its_programs_are_there(command):
    module = command.split()[-1]
    assert (ROOT / Path(*module.split("."))).with_suffix(".py").exists() or (
        ROOT / "python" / Path(*module.split("."))
    ).exists()
