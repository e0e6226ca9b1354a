# SPDX-License-Identifier: Apache-2.0
"""bench.install types the README's commands and measures what they take; docs/install.md shows what is committed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bench import install  # noqa: E402


def run(**changes: Any) -> dict[str, Any]:
    step = {"command": "pip install .", "seconds": 61.4, "cpu_seconds": 110.2, "disk_mb": 12.6, "download_mb": 0.1}  # fmt: skip
    whole = {
        "way": "clone", "python": "3.10.13", "torch": "2.13.0", "steps": [step], "day": "2026-11-30",
        "commit": "abc", "machine": "Linux x86_64, 2 cores", "load": [0.1, 2.3],
    }  # fmt: skip
    return whole | changes


@pytest.fixture
def folder(tmp_path: Path) -> install.Run:
    return install.Run(tmp_path, sys.executable, "2.13.0", tmp_path)


def test_the_commands_are_those_of_the_readme() -> None:
    found = install.readme_commands()
    assert found[0].startswith("pip install -U 'setuptools>=77'")
    assert found[1:] == ["pip install --no-build-isolation ."]


def test_a_step_is_measured(folder: install.Run, capsys: pytest.CaptureFixture[str]) -> None:
    """3 MB under two names, pip's cache, which does not count, and what pip says in its log."""
    command = """
mkdir -p venv "$PIP_CACHE_DIR"
head -c 3000000 /dev/zero > venv/library; ln venv/library venv/again
head -c 2000000 /dev/zero > "$PIP_CACHE_DIR/body"
echo "2026-11-30T08:53:15,835   Downloading numpy-2.4.6-cp311-none-any.whl (16.9 MB)" >> "$PIP_LOG"
python3 -c 'sum(range(10_000_000))'
echo well
"""
    taken = folder.step(command, "shown")
    assert folder.said == "well"
    assert taken["command"] == "shown"
    assert (taken["disk_mb"], taken["download_mb"]) == (3.0, 16.9)
    assert taken["cpu_seconds"] > 0
    assert taken["seconds"] > 0
    assert "download_mb 16.9" in capsys.readouterr().out
    assert folder.step("true")["download_mb"] == 0


def test_steps_see_nothing_of_this_environment(
    folder: install.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LONGCLOCK_CUDA", "PYTHONPATH", "CMAKE_ARGS", "MAKEFLAGS", "CCACHE_DIR"):
        monkeypatch.setenv(name, "1")
    folder.step('[ -z "$LONGCLOCK_CUDA$PYTHONPATH$CMAKE_ARGS$MAKEFLAGS$CCACHE_DIR" ]')
    assert folder.environment["PATH"].startswith(str(folder.folder / "venv" / "bin"))


def test_exit_statuses_are_looked_at(folder: install.Run) -> None:
    with pytest.raises(SystemExit, match="exit status 3"):
        folder.step("echo no; exit 3")
    with pytest.raises(SystemExit, match="exit status 0"):
        folder.step("true", fails=True)
    folder.step("echo it lacks; exit 1", fails=True)
    assert folder.said == "it lacks"


def test_what_pip_fetched_is_in_its_log(tmp_path: Path) -> None:
    """From elsewhere or from this disk, which elsewhere would be fetched; no metadata, and not our own wheel."""
    for name in ("torch-2.whl", "longclock-0.whl"):
        (tmp_path / name).write_bytes(bytes(7000))
    log = f"""
2026-11-30T08:53:12,882 Processing {tmp_path}/longclock-0.whl
2026-11-30T08:53:12,882 Processing {tmp_path}/torch-2.whl (from torch)
2026-11-30T08:53:12,990 Processing {tmp_path}
2026-11-30T08:53:15,147   Downloading filelock-4.3.1-py3-none-any.whl.metadata (2.0 kB)
2026-11-30T08:53:15,147   Downloading filelock-4.3.1-py3-none-any.whl (244 kB)
2026-11-30T08:53:15,834 Downloading cuda.whl (1.5 GB)
2026-11-30T08:53:15,835   Using cached numpy-2.4.6-cp311-none-any.whl (16.9 MB)
"""
    assert install.fetched(log) == 1.5e9 + 244e3 + 7000


def test_a_run_takes_the_place_of_the_one_before() -> None:
    old, other = run(day="2026-11-01"), run(python="3.9.1")
    runs = install.kept(install.kept([], old), other)
    assert [each["python"] for each in runs] == ["3.9.1", "3.10.13"]
    runs = install.kept(runs, run())
    assert [each["day"] for each in runs] == ["2026-11-30", "2026-11-30"]


def test_the_table() -> None:
    demo = {"command": "python -m longclock.train, which names what it needs", "seconds": 1, "cpu_seconds": 1, "disk_mb": 0, "download_mb": 0}  # fmt: skip
    other = run(python="3.12.1", steps=[*run()["steps"], demo])
    assert install.table([run(), other, run(way="wheel")], "clone") == [
        "| typed | Python 3.10.13, PyTorch 2.13.0 | Python 3.12.1, PyTorch 2.13.0 |",
        "|---|---:|---:|",
        "| `pip install .` | 61 s (110), 13 MB | 61 s (110), 13 MB |",
        "| `python -m longclock.train`, which names what it needs |  | 1 s (1) |",
    ]
    page = f"before\n<!-- begin: {install.MARK} -->\nold\n<!-- end -->\nafter\n"
    text = install.updated(page, [run()])
    assert text.startswith("before\n<!-- begin")
    assert text.endswith("Python 3.10.13 by clone on 2026-11-30, abc, load 0.1 to 2.3.\n\n<!-- end -->\nafter\n")  # fmt: skip
    assert install.updated(text, [run()]) == text
    with pytest.raises(ValueError, match="must have one mark"):
        install.updated("none", [run()])


def test_the_page_shows_the_committed_runs() -> None:
    page = install.PAGE.read_text(encoding="utf-8")
    runs = install.committed(install.RESULTS)
    assert install.updated(page, runs) == page, "run python -m bench.install --table"
    for each in runs:
        commands = [step["command"] for step in each["steps"]]
        if each["way"] == "clone":  # what the README says now
            assert set(install.readme_commands()) <= set(commands)
