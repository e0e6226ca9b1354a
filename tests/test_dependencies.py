# SPDX-License-Identifier: Apache-2.0
"""What the package imports is declared, and its core needs none of what only training needs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from longclock._extras import SERVE_EXTRA, STREAM_EXTRA, TRAIN_EXTRA

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "python" / "longclock"
IMPORTED_AS = {"scikit-learn": "sklearn", "prometheus-client": "prometheus_client", "confluent-kafka": "confluent_kafka"}  # fmt: skip
# Beside these parts, all of longclock is core; reading a file imports pandas and pyarrow when it is called, a store in Redis redis, a source of messages what it is of.
EXTRA_OF = {"train": "train", "study": "train", "metrics.py": "train", "plot": "train", "serve": "serve", "export.py": "serve"}  # fmt: skip
FOUND_BY_UVICORN = {"httptools", "uvloop"}
WHEN_CALLED = {"data": {"pandas", "pyarrow", "confluent_kafka", "orjson"}, "store": {"redis"}}


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
    if part in EXTRA_OF:
        allowed |= declared(EXTRA_OF[part])
    assert imported(path) - allowed - WHEN_CALLED.get(part, set()) == set()


def test_nothing_is_declared_that_is_not_imported():
    everything = set().union(*(imported(path) for path in PACKAGE.rglob("*.py")))
    all_declared = set().union(*map(declared, ("dependencies", "train", "serve", "stream")))
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
        == f"ImportError: longclock.plot needs matplotlib: {TRAIN_EXTRA}"
    )


def test_the_core_needs_no_extra():
    """Every module outside training and serving can be imported with the core's dependencies alone."""
    files = [
        path
        for path in PACKAGE.rglob("*.py")
        if path.relative_to(PACKAGE).parts[0] not in EXTRA_OF and path.stem != "__main__"
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
    done = without(declared("train") | declared("serve") | declared("stream"), program)
    assert done.stderr == ""
    assert done.stdout.strip() == f"reading event files needs pandas: {TRAIN_EXTRA}"


@pytest.mark.parametrize(
    ("module", "missing", "command"),
    [
        ("train", "sklearn", TRAIN_EXTRA),
        ("study", "sklearn", TRAIN_EXTRA),
        ("train", "matplotlib", TRAIN_EXTRA),
        ("serve", "uvicorn", SERVE_EXTRA),
        ("export", "safetensors", SERVE_EXTRA),
    ],
)
def test_a_missing_extra_is_named(module, missing, command):
    program = f"import runpy; runpy.run_module('longclock.{module}', run_name='__main__')"
    done = without({missing}, program)
    assert done.returncode == 1
    assert done.stderr.strip() == f"longclock.{module} needs {missing}: {command}"


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


@pytest.mark.parametrize(
    ("extra", "command"),
    [("train", TRAIN_EXTRA), ("serve", SERVE_EXTRA), ("stream", STREAM_EXTRA)],
)
def test_the_command_installs_what_is_declared(extra, command):
    words = command.split()
    assert words[:2] == ["pip", "install"]
    assert {IMPORTED_AS.get(word, word) for word in words[2:]} == declared(extra)
