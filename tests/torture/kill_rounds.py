# SPDX-License-Identifier: Apache-2.0
"""Kills the trainer and the study at random moments, or fills their disk, and lets them go on.

    python -m tests.torture.kill_rounds --what train --rounds 20 --seed 0      (train, study, disk, or all)

Every round must end with exactly the figures of a run that nothing disturbed, each run counted once, nothing that was
written lost, no partial file and no process left, and never a traceback. Rounds are forked from one process that has
imported everything; every 25th of the study starts as a user's does, as a new interpreter.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from tests.torture.counted import counted

from longclock.study import cli as study_cli
from longclock.study import command as study_command
from longclock.study.plan import read_lines
from longclock.train import cli as train_cli

PR_SET_CHILD_SUBREAPER = 36
KILLS = {signal.SIGKILL: -9, signal.SIGTERM: -15, signal.SIGINT: 130}
STUDY_KILLS = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}
TIMED = ("seconds", "events_per_second", "ms_per_1000", "versions")
LEFT_SECONDS = 30.0  # for the last process of a killed study to be gone
INTERPRETER_EVERY = 25
START_SECONDS = 5.0  # of a new interpreter
TRAIN = ["--models", "no-time,lic", "--protocol", "stream", "--batch", "16", "--k", "3", "--checkpoint-seconds", "0",
         "--quiet", "--resume"]  # fmt: skip
STUDY = ["--models", "no-time", "--protocol", "daily", "--seeds", "3", "--learning-rates", "0.01,0.02", "--k", "3",
         "--jobs", "2", "--quiet"]  # fmt: skip


class Program:
    """The trainer or the study, started again and again into one folder."""

    def __init__(self, what: str, events: Path, out: Path) -> None:
        self.what, self.out, self.log = what, out, out.with_name(f"{out.name}.log")
        name, main, words = {
            "train": ("--events", train_cli.main, TRAIN),
            "study": ("--data", study_cli.main, STUDY),
        }[what]
        self.words = [name, str(events), *words, "--out", str(out)]
        self.main: Callable[[list[str]], int] = main

    def start(self, most_bytes: int | None = None, interpreter: bool = False) -> int:
        """Its process; ``most_bytes`` a file is a full disk."""
        child = os.fork()
        if child:
            return child
        status = 70
        try:
            log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), line_buffering=True)
            sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), line_buffering=True)
            if most_bytes is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
            if interpreter:
                module = f"longclock.{self.what}"
                os.execv(sys.executable, [sys.executable, "-m", module, *self.words])
            status = self.main(self.words)
        except SystemExit as end:
            status = int(end.code or 0)
        except KeyboardInterrupt:  # before or behind the program's own lines
            status = 130
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def ended(self, child: int) -> int:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said = self.log.read_text()
        assert "Traceback" not in said or before_its_first_line(said), f"a traceback:\n{said}"
        no_process_is_left()
        return status

    def here(self) -> None:
        """In this process."""
        assert self.main(self.words) == 0

    def run(self, **options: Any) -> int:
        return self.ended(self.start(**options))

    def killed(self, draw: random.Random, seconds: float, interpreter: bool) -> str:
        """Start, kill at a random moment; what happened."""
        kills = STUDY_KILLS if self.what == "study" else KILLS
        signum = draw.choice(list(kills))
        moment = draw.uniform(0, seconds)
        child = self.start(interpreter=interpreter)
        time.sleep(moment)
        os.kill(child, signum)  # not waited for yet, so the number is still its own
        status = self.ended(child)
        # Before its handlers are set a process dies of any signal.
        assert status in (0, 130, kills[signum], -int(signum)), f"status {status} of {signum.name}"
        return f"{signum.name} after {moment:.2f} s: status {status}"

    def found(self) -> Any:
        """Everything that must not depend on what happened on the way."""
        if self.what == "train":
            results = json.loads((self.out / "results.json").read_text())
            assert (self.out / "report.html").stat().st_size > 0
            return without_times({"models": results["models"], "interest": results["interest"]})
        assert (self.out / "report.md").stat().st_size > 0
        lines = [without_times(line) for line in self.lines()]
        return sorted(lines, key=lambda line: json.dumps(line, sort_keys=True))

    def lines(self) -> list[dict[str, Any]]:
        return [x for name in ("tuning", "runs") for x in read_lines(self.out / f"{name}.jsonl")]

    def check_folder(self) -> None:
        partials = [*self.out.glob("**/.*.partial"), *self.out.glob("**/*.partial")]
        assert not partials, f"partial files are left: {partials}"


def before_its_first_line(said: str) -> bool:
    """Ctrl-C while Python imports the package, to which a program of it belongs: the answer is Python's own."""
    return "in _get_module_details" in said and said.rstrip().endswith("KeyboardInterrupt")


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(part) for key, part in value.items() if key not in TIMED}
    return value


def no_process_is_left() -> None:
    """Orphans come to this process, their subreaper: all end by themselves, and are waited for."""
    until = time.monotonic() + LEFT_SECONDS
    while True:
        try:
            child, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if child == 0:
            assert time.monotonic() < until, "a process is left"
            time.sleep(0.01)


def write_events(path: Path) -> None:
    draw = random.Random(0)
    rows = [f"{draw.randrange(6)},{draw.randrange(15)},{1_700_000_000 + 1800 * t},{draw.randrange(3)}" for t in range(120)]  # fmt: skip
    path.write_text("user,item,time,category\n" + "\n".join(rows) + "\n")


def kill_round(what: str, events: Path, out: Path, draw: random.Random, right: Any, seconds: float, number: int) -> str:  # fmt: skip
    program = Program(what, events, out)
    interpreter = what == "study" and number % INTERPRETER_EVERY == INTERPRETER_EVERY - 1
    said, kept = [], []
    for _ in range(draw.randint(1, 3)):
        said.append(program.killed(draw, seconds + START_SECONDS * interpreter, interpreter))
        if what == "study":
            lines = program.lines()
            assert lines[: len(kept)] == kept or all(line in lines for line in kept), (
                "a run is lost"
            )
            kept = lines
    assert program.run() == 0, program.log.read_text()
    assert program.found() == right, "other figures than those of an undisturbed run"
    if what == "study":
        assert all(line in program.lines() for line in kept), "a run is lost"
    program.check_folder()
    return "; ".join(said)


def disk_round(what: str, events: Path, out: Path, draw: random.Random, right: Any) -> str:
    """Files that may not grow beyond a size, then room again."""
    program = Program(what, events, out)
    most = int(2 ** draw.uniform(9, 18))
    status = program.run(most_bytes=most)
    said = program.log.read_text()
    assert status in (0, 1), f"status {status}:\n{said}"
    if status == 1:  # one of the files, or the report
        assert "not be written" in said, said
    if most > 4096:  # the log is a file, too
        assert "AUC" in said, f"the figures are not printed:\n{said}"
        assert status == 0 or "could not be written" in said, said
    program.check_folder()
    assert program.run() == 0, program.log.read_text()
    assert program.found() == right, "other figures than those of an undisturbed run"
    program.check_folder()
    return f"{what}, files up to {most:,} bytes: status {status}"


def tmpfs_round(what: str, events: Path, small: Path, draw: random.Random, right: Any) -> str:
    """A disk of some kilobytes, then a larger one."""
    program = Program(what, events, small / "out")
    program.log = small.with_name("tmpfs.log")
    size = draw.choice([16, 24, 40, 64, 100, 160, 256, 400])
    with tmpfs(small, size):
        status = program.run()
        said = program.log.read_text()
        assert status in (0, 1), f"status {status}:\n{said}"
        assert "AUC" in said, f"the figures are not printed:\n{said}"
        program.check_folder()
        subprocess.run(["mount", "-o", "remount,size=64m", small], check=True)
        assert program.run() == 0, program.log.read_text()
        assert program.found() == right, "other figures than those of an undisturbed run"
        program.check_folder()
    return f"{what}, a disk of {size} KiB: status {status}"


@contextlib.contextmanager
def tmpfs(folder: Path, kilobytes: int) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder]
    subprocess.run(command, check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def may_mount(folder: Path) -> str:
    """Why there are no rounds on a small tmpfs; empty where there are."""
    try:
        with tmpfs(folder, 16):
            return ""
    except (OSError, subprocess.CalledProcessError) as error:
        return str(getattr(error, "stderr", None) or error)


def rounds(what: str, count: int, seed: int, folder: Path) -> int:
    """How many of the rounds failed."""
    events = folder / "plays.csv"
    write_events(events)
    programs = ("train", "study") if what == "disk" else (what,)
    right, seconds = {}, {}
    for name in programs:
        with contextlib.redirect_stdout(io.StringIO()):  # what is imported late is here from now on
            Program(name, events, folder / f"warm-{name}").here()
        program = Program(name, events, folder / f"undisturbed-{name}")
        started = time.monotonic()
        assert program.run() == 0, program.log.read_text()
        seconds[name] = time.monotonic() - started
        right[name] = program.found()
    no_mount = may_mount(folder / "tmpfs") if what == "disk" else ""
    if no_mount:
        print(f"no rounds on a small tmpfs: {no_mount.strip()}")
    failed = 0
    for number in range(count):
        draw = random.Random(f"{seed} {what} {number}")
        out = folder / f"{what}-{number}"
        name = programs[number % len(programs)]
        try:
            if what != "disk":
                said = kill_round(what, events, out, draw, right[name], seconds[name], number)
            elif number // 2 % 2 and not no_mount:
                said = tmpfs_round(name, events, folder / "tmpfs", draw, right[name])
            else:
                said = disk_round(name, events, out, draw, right[name])
            shutil.rmtree(out, ignore_errors=True)
        except AssertionError as error:
            failed += 1
            said = f"FAILED: {error}"
        print(f"{what} {number}: {said}", flush=True)
    return failed


def main() -> int:
    p = argparse.ArgumentParser(prog="python -m tests.torture.kill_rounds", description=__doc__)
    p.add_argument("--what", choices=["train", "study", "disk", "all"], default="all")
    p.add_argument("--rounds", type=int, default=20, help="of each (20)")
    p.add_argument("--seed", type=int, default=0, help="of moments, signals and sizes (0)")
    args = p.parse_args()
    torch.set_num_threads(1)
    for signum in STUDY_KILLS:  # what started this may ignore them
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)  # fmt: skip
    study_command.START = "fork"  # workers of a forked round need not import everything again
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    kinds = ("train", "study", "disk") if args.what == "all" else (args.what,)
    return counted(kinds, args.rounds, args.seed, rounds)


if __name__ == "__main__":
    sys.exit(main())
