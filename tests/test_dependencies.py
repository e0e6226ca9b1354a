# SPDX-License-Identifier: Apache-2.0
"""What the package imports is declared, and its core needs none of what only training needs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from longclock._extras import (
    EXTRAS,
    FUXICTR_EXTRA,
    IMPORTED_AS,
    RECHUB_EXTRA,
    SERVE_EXTRA,
    STREAM_EXTRA,
    TRAIN_EXTRA,
    modules_of,
)

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "python" / "longclock"
# Beside these parts, all of longclock is core; reading a file imports pandas and pyarrow when it is called, a store in Redis redis, a source of messages what it is of.
EXTRA_OF = {"train": "train", "study": "train", "metrics.py": "train", "plot": "train", "serve": "serve", "explore": "serve", "export.py": "serve",
            "interop/fuxictr.py": "fuxictr", "interop/fuxictr_batches.py": "fuxictr", "interop/torch_rechub.py": "torch-rechub"}  # fmt: skip
FOUND_BY_UVICORN = {"httptools", "uvloop"}
WHEN_CALLED = {"data": {"pandas", "pyarrow", "confluent_kafka", "orjson"}, "store": {"redis"}}


def extra_of(path: Path) -> str | None:
    """The extra of a file, or of the part that it lies in."""
    inside = path.relative_to(PACKAGE)
    return EXTRA_OF.get(inside.as_posix(), EXTRA_OF.get(inside.parts[0]))


def declared(name: str) -> set[str]:
    """Modules of a list of requirements of pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(rf"^{name} = \[(.*?)\]", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    packages = re.findall(r'"([\w.-]+)', found.group(1))
    return {IMPORTED_AS.get(package, package) for package in packages}


def imported(path: Path) -> set[str]:
    """Modules of other packages that a file imports, at its head or in a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"longclock"}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py*")), ids=lambda path: path.name)
def test_imports_are_declared(path):
    if path.suffix not in (".py", ".pyi"):
        return
    part = path.relative_to(PACKAGE).parts[0]
    allowed = declared("dependencies")
    extra = extra_of(path)
    if extra is not None:
        allowed |= declared(extra)
    assert imported(path) - allowed - WHEN_CALLED.get(part, set()) == set()


def test_nothing_is_declared_that_is_not_imported():
    everything = set().union(*(imported(path) for path in PACKAGE.rglob("*.py")))
    all_declared = set().union(*map(declared, ("dependencies", *EXTRAS)))
    assert all_declared == everything | FOUND_BY_UVICORN


def without(packages: set[str], program: str) -> subprocess.CompletedProcess[str]:
    """Run a program where these packages are not installed."""
    refused = f"""
import sys

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {sorted(packages)}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refused())
"""
    arguments = [sys.executable, "-c", refused + program]
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


def test_pictures_name_what_they_need():
    done = without({"matplotlib"}, "import longclock.plot")
    assert (
        done.stderr.splitlines()[-1]
        == f"ModuleNotFoundError: longclock.plot needs matplotlib: {TRAIN_EXTRA}"
    )


def test_the_core_needs_no_extra():
    """Every module outside training and serving can be imported with the core's dependencies alone."""
    files = [
        path for path in PACKAGE.rglob("*.py") if extra_of(path) is None and path.stem != "__main__"
    ]
    names = [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in files
    ]
    assert len(names) > 40
    program = f"""
import importlib
for name in {names}:
    importlib.import_module(name)
from longclock.data import read_events
try:
    read_events(".")
except ImportError as error:
    print(error)
"""
    done = without(set().union(*map(declared, EXTRAS)), program)
    assert done.stderr == ""
    assert done.stdout.strip() == f"reading event files needs pandas: {TRAIN_EXTRA}"


@pytest.mark.parametrize(
    ("program", "missing", "command"),
    [
        ("train", "sklearn", TRAIN_EXTRA),
        ("study --quiet", "sklearn", TRAIN_EXTRA),
        ("train", "matplotlib", TRAIN_EXTRA),
        ("train", "tqdm", TRAIN_EXTRA),
        ("serve --model a --store redis://b", "uvicorn", SERVE_EXTRA),
        ("serve --model a --store redis://b", "orjson", SERVE_EXTRA),
        ("explore --model a --store redis://b", "uvicorn", SERVE_EXTRA),
        ("export --checkpoint a --out b", "safetensors", SERVE_EXTRA),
        ("store --store b --events absent.parquet", "pandas", TRAIN_EXTRA),
    ],
)
def test_a_missing_extra_is_named(program, missing, command):
    name, *arguments = program.split()
    called = f"import runpy, sys; sys.argv = ['', *{arguments}]; runpy.run_module('longclock.{name}', run_name='__main__')"
    done = without({missing}, called)
    user = "longclock.store: reading event files" if name == "store" else f"longclock.{name}"
    assert done.stderr.splitlines()[-1] == f"{user} needs {missing}: {command}"
    said = name != "store" and "--quiet" not in program  # a store's file is read before
    assert (f"longclock.{name}: loading PyTorch and " in done.stderr) == said
    assert "Traceback" not in done.stderr
    assert done.returncode == (2 if name == "store" else 1)


@pytest.mark.parametrize(
    ("imported", "missing", "user", "command"),
    [
        ("import longclock.metrics", "scipy", "longclock.metrics", TRAIN_EXTRA),
        ("from longclock.serve import Recommender", "safetensors", "longclock.serve", SERVE_EXTRA),
        ("import longclock as lc; lc.plot", "matplotlib", "longclock.plot", TRAIN_EXTRA),
        ("from longclock.export import export; export('a', 'b')", "safetensors", "longclock.export", SERVE_EXTRA),
        ("import longclock as lc; lc.interop.fuxictr", "fuxictr", "longclock.interop.fuxictr", FUXICTR_EXTRA),
        ("from longclock.interop.fuxictr import LIC", "ray", "longclock.interop.fuxictr", FUXICTR_EXTRA),
        ("from longclock.interop.torch_rechub import LIC", "torch_rechub", "longclock.interop.torch_rechub", RECHUB_EXTRA),
    ],
)  # fmt: skip
def test_an_import_names_what_it_needs(imported, missing, user, command):
    done = without({missing}, imported)
    assert done.stderr.splitlines()[-1] == f"ModuleNotFoundError: {user} needs {missing}: {command}"


def test_info_says_what_is_missing_and_how_to_get_it():
    done = without({"sklearn", "scipy", "redis"}, "from longclock.info import main; main([])")
    assert done.returncode == 0, done.stderr
    said = dict(line.split(maxsplit=2)[1:] for line in done.stdout.splitlines() if line.startswith("extra "))  # fmt: skip
    assert said == {
        "train": "missing: pip install scikit-learn scipy",
        "serve": "missing: pip install redis",
        "stream": "missing: pip install redis",
        "fuxictr": "complete",
        "torch-rechub": "complete",
    }


def test_a_missing_kafka_is_named():
    program = """
from longclock.data.sources import KafkaSource
try:
    KafkaSource("localhost:9092", "plays")
except ModuleNotFoundError as error:
    print(error)
"""
    done = without({"confluent_kafka"}, program)
    assert done.stdout.strip() == f"KafkaSource needs confluent_kafka: {STREAM_EXTRA}"


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_command_installs_what_is_declared(extra):
    command = EXTRAS[extra]
    assert command.split()[:2] == ["pip", "install"]
    assert set(modules_of(command).values()) == declared(extra)
