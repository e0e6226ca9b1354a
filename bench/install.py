# SPDX-License-Identifier: Apache-2.0
"""``python -m bench.install``: every way of installing longclock, as a stranger types it, with what each step takes.

    python -m bench.install --python python3.10 --python python3.13 --torch 2.14.1
    python -m bench.install --python python3.12 --torch 2.10.0 --way wheel
    python -m bench.install --table

The way ``clone`` clones the repository and installs it as the README's section "Install" says; ``demo`` clones it and types ``make demo``, with
the PyTorch that development has; ``wheel`` installs a wheel, looks at it and trains away from the repository, first without and then with what
training needs. Each run is a new folder with a virtual environment and an empty cache of pip's, both gone afterwards. Results are kept
in bench/results/install.json, a run of the same way, Python and PyTorch in place of the one before; ``--table`` puts them into docs/install.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results" / "install.json"
PAGE = ROOT / "docs" / "install.md"
MARK = "bench/results/install.json"
WAYS = {
    "clone": "In a clone, as the README says:",
    "demo": "From a clone to the first report, which the README's `make demo` makes:",
    "wheel": "Of the wheel, in a folder that is no clone:",
}
# What this process was started with is not a stranger's.
OWN = re.compile(
    r"LONGCLOCK_|CMAKE_|CCACHE_|PYTHON|PIP_(CONSTRAINT|REQUIRE|TARGET|USER)|VIRTUAL_ENV|MAKE"
)
MB = 1e6
UNITS = {"bytes": 1, "kB": 1e3, "MB": MB, "GB": 1e9}
FETCHED = re.compile(r"Downloading (\S+) \(([\d.]+) (bytes|kB|MB|GB)\)")
FROM_DISK = re.compile(r"Processing (/\S+\.(?:whl|tar\.gz))")


@dataclasses.dataclass
class Run:
    """One installation: a folder of its own, and the environment that its commands see."""

    folder: Path
    python: str
    torch: str
    there: Path  # where commands are typed
    said: str = ""  # by the last of them

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: text for name, text in os.environ.items() if not OWN.match(name)}
        return kept | {
            "PATH": os.pathsep.join([str(self.folder / "venv" / "bin"), kept["PATH"]]),
            "HOME": str(self.folder),
            "PIP_CACHE_DIR": str(self.folder / "cache"),
            "PIP_LOG": str(self.folder / "cache" / "pip.log"),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }

    def step(self, command: str, shown: str = "", fails: bool = False) -> dict[str, Any]:
        """Types a command: what it took. One that ought to fail, and does not, ends the run, as does the opposite."""
        log = self.folder / "cache" / "pip.log"
        log.unlink(missing_ok=True)
        disk, cpu = self._disk(), children()
        began = time.monotonic()
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.there, env=self.environment, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        seconds = time.monotonic() - began
        if (done.returncode != 0) != fails:
            sys.exit(f"{command}: exit status {done.returncode}\n{done.stdout[-4000:]}")
        self.said = (done.stdout.strip().splitlines() or [""])[-1]
        taken = {
            "command": shown or command,
            "seconds": round(seconds, 1),
            "cpu_seconds": round(children() - cpu, 1),
            "disk_mb": round((self._disk() - disk) / MB, 1),
            "download_mb": round((fetched(log.read_text()) if log.exists() else 0) / MB, 1),
        }
        print(" ".join(f"{name} {value}" for name, value in taken.items()), flush=True)
        return taken

    def _disk(self) -> int:
        """Bytes of the run's files, without pip's cache and log."""
        return on_disk(self.folder) - on_disk(self.folder / "cache")


def children() -> float:
    """Processor seconds of all that has ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def on_disk(folder: Path) -> int:
    """Bytes of the files of a folder; of a file with several names, once."""
    sizes = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            found = path.stat()
            sizes[found.st_dev, found.st_ino] = found.st_size
    return sum(sizes.values())


def fetched(log: str) -> float:
    """Bytes of the archives that pip says it took: from elsewhere, or from this disk, but for our own wheel."""
    size = 0.0
    for archive, amount, unit in FETCHED.findall(log):
        if not archive.endswith(".metadata"):
            size += float(amount) * UNITS[unit]
    for archive in map(Path, FROM_DISK.findall(log)):
        if not archive.name.startswith("longclock-") and archive.is_file():
            size += archive.stat().st_size
    return size


def readme_commands() -> list[str]:
    """What the README's section "Install" has one type to install."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.partition("## Install\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    lines = (line.partition("  #")[0].strip() for block in blocks for line in block.splitlines())
    return [line for line in lines if line.startswith("pip ")]


def clone_steps(run: Run) -> Iterator[dict[str, Any]]:
    """What the README says, in an environment with the PyTorch that it presumes."""
    yield from with_torch(run)
    yield cloned(run)
    for command in readme_commands():
        yield run.step(command)
    yield run.step("python -m longclock.info")


def demo_steps(run: Run) -> Iterator[dict[str, Any]]:
    yield cloned(run)
    yield run.step(f"make demo PYTHON={run.python}", "make demo")


def wheel_steps(run: Run, wheel: Path) -> Iterator[dict[str, Any]]:
    """A wheel in an environment of PyTorch alone, then training, which says what it lacks."""
    yield from with_torch(run)
    shutil.copy(wheel, run.there)
    shutil.copy(ROOT / "tests" / "wheel_smoke.py", run.there)
    yield run.step(f"pip install -q {wheel.name}", "pip install longclock-*.whl")
    yield run.step("python -m longclock.info")
    yield run.step("python wheel_smoke.py")
    yield run.step("python -m longclock.train", "python -m longclock.train, which names what it needs", fails=True)  # fmt: skip
    needs = re.search(r"longclock\.train needs \w+: (pip install .*)", run.said)
    if needs is None:
        sys.exit(f"python -m longclock.train does not say what it needs: {run.said}")
    yield run.step(needs[1], "the command that it names")
    yield run.step("python -m longclock.train --data nyc --days 7 --models lic,no-time --quiet")


def cloned(run: Run) -> dict[str, Any]:
    """Clones the repository, where what follows is typed."""
    step = run.step(f"git clone -q {ROOT.as_uri()} longclock", "git clone")
    run.there = run.folder / "longclock"
    return step


def with_torch(run: Run) -> Iterator[dict[str, Any]]:
    yield run.step(f"{run.python} -m venv venv", "python -m venv venv")
    yield run.step(f"pip install -q torch=={run.torch}", "pip install torch")


def version_of(python: str) -> str:
    program = "import platform; print(platform.python_version())"
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def pinned_torch() -> str:
    """The PyTorch of the environment that `make` makes."""
    found = re.search(r"^torch==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def measured(way: str, python: str, torch: str, options: argparse.Namespace) -> dict[str, Any]:
    """One run, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        run = Run(Path(name), python, torch, Path(name))
        before = os.getloadavg()[0]
        steps = {"clone": clone_steps, "demo": demo_steps}.get(way, partial(wheel_steps, wheel=options.wheel))  # fmt: skip
        found = list(steps(run))
        return {
            "way": way, "python": version_of(python), "torch": torch, "steps": found,
            "day": datetime.datetime.now(datetime.timezone.utc).date().isoformat(), "commit": commit(),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores", "load": [round(before, 1), round(os.getloadavg()[0], 1)],
        }  # fmt: skip


def commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()  # fmt: skip


def committed(path: Path) -> list[dict[str, Any]]:
    """The runs of a file, none where there is no file yet."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def key(run: dict[str, Any]) -> tuple[str, tuple[int, ...], str]:
    return run["way"], tuple(int(part) for part in run["python"].split(".")), run["torch"]


def kept(runs: list[dict[str, Any]], run: dict[str, Any]) -> list[dict[str, Any]]:
    """With a run in place of the one before it of the same way, Python and PyTorch."""
    return sorted([each for each in runs if key(each) != key(run)] + [run], key=key)


def table(runs: list[dict[str, Any]], way: str) -> list[str]:
    """A row a step, a column a run: wall and processor seconds, MB of disk, MB fetched."""
    columns = [run for run in runs if run["way"] == way]
    commands = list(dict.fromkeys(step["command"] for run in columns for step in run["steps"]))
    heads = [f"Python {run['python']}, PyTorch {run['torch']}" for run in columns]
    lines = [f"| typed | {' | '.join(heads)} |", "|---|" + "---:|" * len(columns)]
    for command in commands:
        cells = []
        for run in columns:
            steps = [step for step in run["steps"] if step["command"] == command]
            cells.append(cell(steps[0]) if steps else "")
        lines.append(f"| {named(command)} | {' | '.join(cells)} |")
    return lines


def named(command: str) -> str:
    """A command is code, what it does is not."""
    code, comma, words = command.partition(", ")
    return command if command.startswith("the ") else f"`{code}`{comma}{words}"


def cell(step: dict[str, Any]) -> str:
    parts = [f"{step['seconds']:,.0f} s ({step['cpu_seconds']:,.0f})"]
    parts += [f"{step[name]:,.0f} MB{words}" for name, words in (("disk_mb", ""), ("download_mb", " fetched")) if step[name] >= 0.5]  # fmt: skip
    return ", ".join(parts)


def section(runs: list[dict[str, Any]]) -> str:
    if not runs:
        return "Not measured yet."
    parts = []
    for way, title in WAYS.items():
        if any(run["way"] == way for run in runs):
            parts += [title, "\n".join(table(runs, way))]
    taken = [f"Python {run['python']} by {run['way']} on {run['day']}, {run['commit']}, load {run['load'][0]} to {run['load'][1]}" for run in runs]  # fmt: skip
    machines = ", ".join(dict.fromkeys(run["machine"] for run in runs))
    return "\n\n".join([*parts, f"{machines}. {'; '.join(taken)}."])


def updated(page: str, runs: list[dict[str, Any]]) -> str:
    text = f"<!-- begin: {MARK} -->\n\n{section(runs)}\n\n<!-- end -->"
    whole, count = re.subn(rf"<!-- begin: {re.escape(MARK)} -->.*?<!-- end -->", lambda _: text, page, flags=re.DOTALL)  # fmt: skip
    if count != 1:
        raise ValueError(f"the page must have one mark of {MARK}, has {count}")
    return whole


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m bench.install", description="Installs longclock as a stranger would, and says what each step takes.")  # fmt: skip
    p.add_argument("--python", action="append", default=[], help="an interpreter; may be given several times")  # fmt: skip
    p.add_argument("--torch", default="2.13.0", metavar="VERSION", help="the PyTorch (2.13.0)")
    p.add_argument(
        "--way", action="append", choices=tuple(WAYS), help="clone, demo or wheel (all three)"
    )
    p.add_argument("--wheel", type=Path, metavar="FILE", help="the wheel (the newest of dist/)")
    p.add_argument("--folder", type=Path, help="where runs have their folders (the system's)")
    p.add_argument("--json", type=Path, default=RESULTS, help="the results (bench/results/install.json)")  # fmt: skip
    p.add_argument("--table", action="store_true", help="put the results into docs/install.md")
    return p


def main(argv: Sequence[str] | None = None) -> None:
    p = parser()
    options = p.parse_args(argv)
    ways = options.way or list(WAYS)
    if options.python and "wheel" in ways and options.wheel is None:
        found = sorted((ROOT / "dist").glob("longclock-*.whl"), key=lambda path: path.stat().st_mtime)  # fmt: skip
        if not found:
            p.error("there is no wheel in dist/: make wheel, or name one with --wheel")
        options.wheel = found[-1]
    runs = committed(options.json)
    for python in options.python:
        for way in ways:
            torch = pinned_torch() if way == "demo" else options.torch
            runs = kept(runs, measured(way, python, torch, options))
            options.json.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
    if options.table:
        PAGE.write_text(updated(PAGE.read_text(encoding="utf-8"), runs), encoding="utf-8")


if __name__ == "__main__":
    main()
