# SPDX-License-Identifier: Apache-2.0
"""Help and mistakes in arguments come before anything heavy is imported; the programs then run as if it had been."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

PROGRAMS = ("train", "study", "serve", "explore", "export", "store", "info")
HEAVY = {"torch", "numpy", "scipy", "sklearn", "matplotlib", "pandas", "pyarrow", "starlette", "uvicorn", "safetensors"}  # fmt: skip
MISTAKES = [
    ("train", "--k 0", "longclock.train: --k must be at least 1, got 0"),
    ("train", "--models lic,clock", "longclock.train: --models: unknown model 'clock'; full-clock is near it; choose from lic, no-time"),
    ("train", "--source folder:x --events a.csv", "longclock.train: --events is of events that are all in memory"),
    ("train", "--source folder:x --models graph", "longclock.train: --models graph: it reads more of the past"),
    ("train", "--negatives-from others", "longclock.train: argument --negatives-from: invalid choice: 'others'"),
    ("study", "--learning-rates fast", "longclock.study: --learning-rates must be numbers"),
    ("study", "--seeds 0", "longclock.study: --seeds must be at least 1, got 0"),
    ("store", "--store a.db --data nyc --categories x", "longclock.store: --categories is of a FILE"),
    ("export", "--checkpoint a --out b --package c", "longclock.export: --package must be a file that ends with .pt2"),
    ("train", "--data nyc --data-dir . --events a.csv", "longclock.train: --data and --events exclude each other"),
    ("train", "--events a.csv --data-dir .", "longclock.train: --data-dir is of the example data (nyc, "),
    ("train", "--events a.csv --columns user=a,user=b", "longclock.train: --columns must say once which column is the user, got 'a' and 'b'"),
    ("explore", "--model a --store absent.db", "longclock.explore: --store: absent.db does not exist; fill it: python -m longclock.store --store absent.db\n"),
    ("explore", "--model a --store b --days 3", "longclock.explore: --days is of events: give --events or --data, or leave it out"),
    ("serve", "--model a --store absent.db", "longclock.serve: --store: absent.db does not exist; fill it: python -m longclock.store --store absent.db, or make an empty one with --new-store"),
    ("serve", "--model a --store sqlite:///absent.db", "longclock.serve: --store: sqlite:///absent.db does not exist"),
    ("serve", "--model a --store b --threads 0", "python -m longclock.serve: error: --threads must be positive"),
]  # fmt: skip


def run(program: str, *arguments: str) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """A program as it is typed, and the packages that it imported."""
    command = [sys.executable, "-X", "importtime", "-m", f"longclock.{program}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = re.findall(r"^import time:.*\| +(\S+)$", done.stderr, re.MULTILINE)
    assert "longclock" in lines
    return done, {line.partition(".")[0] for line in lines}


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_is_quick_and_plain(program: str) -> None:
    done, imported = run(program, "--help")
    assert done.returncode == 0
    assert imported & HEAVY == set()
    assert done.stdout.startswith(f"usage: python -m longclock.{program} ")
    assert "%%" not in done.stdout
    assert "``" not in done.stdout
    assert "no_time" not in done.stdout
    lists = done.stdout.count("transact-v2")  # of all models
    assert lists == (1 if program in ("train", "study") else 0)


@pytest.mark.parametrize(("program", "arguments", "message"), MISTAKES)
def test_mistakes_in_arguments_are_quick(program: str, arguments: str, message: str) -> None:
    done, imported = run(program, *arguments.split())
    assert done.returncode == 2
    assert message in done.stderr
    assert imported & HEAVY == set()


BAD = {  # a file, and what is wrong with it
    "absent.csv": "event file not found: absent.csv",
    "columns.csv": "columns.csv: column 'time' is missing; the columns are: user, item (say which is the time: --columns time=NAME; without a line of names, --no-header)",
    "noon.csv": "noon.csv: column 'time', row 2: must be a number, got 'noon'",
    "damaged.parquet": "damaged.parquet: cannot be read: Parquet magic bytes not found",
}  # fmt: skip
READING = [
    ("train", "--data"),
    ("study", "--data"),
    ("store", "--store histories.db --events"),
    ("explore", "--model model --data"),
]


@pytest.mark.parametrize("file", BAD)
@pytest.mark.parametrize(("program", "arguments"), READING)
def test_a_bad_file_is_told_before_pytorch_is_imported(tmp_path, program, arguments, file) -> None:
    (tmp_path / "columns.csv").write_text("user,item\nann,jazz\n")
    (tmp_path / "noon.csv").write_text("user,item,time\nann,jazz,1700000000\nann,folk,noon\n")
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "torch.py").write_text("raise SystemExit('PyTorch was imported')\n")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    command = [sys.executable, "-m", f"longclock.{program}", *arguments.split(), file]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )  # fmt: skip
    first, second = done.stderr.splitlines()
    assert first == f"longclock.{program}: reading {file} ..."
    assert second.startswith(f"longclock.{program}: {BAD[file]}")
    assert done.returncode == 2


@pytest.mark.parametrize(("program", "arguments"), READING)
def test_nothing_is_imported_before_the_first_line(tmp_path, program, arguments) -> None:
    """It comes as soon as the arguments are read: before NumPy, and what reads files."""
    (tmp_path / "numpy.py").write_text("raise SystemExit('NumPy was imported')\n")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    command = [sys.executable, "-m", f"longclock.{program}", *arguments.split(), "nyc"]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.stderr == f"longclock.{program}: reading nyc ...\nNumPy was imported\n"


def test_a_source_that_is_not_there_is_told_before_pytorch_is_imported() -> None:
    done, imported = run("train", "--source", "folder:absent")
    assert done.returncode == 2
    assert "longclock.train: event file not found: absent" in done.stderr
    assert "torch" not in imported


def test_what_is_imported_in_the_end(tmp_path) -> None:
    """The list above is of what the programs do import."""
    done, imported = run("train", "--models", "interest-clock", "--period", "3600", "--max-events", "1", "--out", str(tmp_path))  # fmt: skip
    assert done.returncode == 2
    assert "longclock.train: --models interest-clock: InterestClock: period must be" in done.stderr
    assert imported >= HEAVY - {"starlette", "uvicorn"}


def test_a_library_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGCLOCK_LIBRARY", "absent.so")
    for program in ("train", "info"):
        command = [sys.executable, "-m", f"longclock.{program}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        line = "longclock: the compiled library absent.so does not exist; LONGCLOCK_LIBRARY names it: correct or unset that variable\n"
        assert done.stderr.removeprefix("longclock.info: ").endswith(line)
        assert "Traceback" not in done.stderr


def test_only_programs_of_this_package_are_lazy(tmp_path) -> None:
    """Whoever imports longclock has its ops, also from a package that Python is looking for a module in."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("import longclock, sys\nassert sys.argv[0] == '-m'\n")  # fmt: skip
    (tmp_path / "mine" / "go.py").write_text("import torch\nprint(torch.ops.longclock.clock_gsu)\n")
    done = subprocess.run([sys.executable, "-m", "mine.go"], cwd=tmp_path, capture_output=True, text=True, check=False)  # fmt: skip
    assert done.stdout == "longclock.clock_gsu\n", done.stderr


def test_parts_are_reached_by_their_names() -> None:
    program = """
import sys
import longclock as lc
assert "scipy" not in sys.modules and "longclock.train" not in sys.modules
print(lc.baselines.TWIN.__name__, lc.data.EventStream.__name__, lc.metrics.auc.__name__, lc.plot.hands.__name__)
print(lc.serve.Recommender.__name__, lc.store.open_store.__name__, lc.study.__name__, lc.train.__name__)
assert {"train", "baselines", "clock_gsu"} <= set(dir(lc))
for name in ("trains", "_train"):
    try:
        getattr(lc, name)
    except AttributeError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)  # fmt: skip
    assert done.stdout.splitlines() == [
        "TWIN EventStream auc hands",
        "Recommender open_store longclock.study longclock.train",
        "module 'longclock' has no attribute 'trains'",
        "module 'longclock' has no attribute '_train'",
    ], done.stderr
