# SPDX-License-Identifier: Apache-2.0
"""Calls in child processes that may die or hang, and the count of what came of them."""

from __future__ import annotations

import argparse
import multiprocessing
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from ops import OPS

from .call import Call
from .draw import Draw
from .run import BAD, invoke, make, outcome

Invoke = Callable[[Call], Any]

START = 300.0  # seconds that a child may take to start
HANG = 60.0  # and one call
COLUMNS = ("right", "refused", "open", "wrong", "unnamed", "accepted", "crashed", "hung")
FAULTS = COLUMNS[3:]


def child(given: argparse.Namespace, first: int, slot: Any, results: Any, invoke: Invoke) -> None:
    """Calls from ``first`` on, until it is stopped. ``slot`` names the call in progress."""
    warnings.simplefilter("ignore")  # PyTorch's, of prototypes
    torch.set_num_threads(1)
    emulated = given.device == "emulated"
    results.send("started")
    index = first
    while True:
        slot.value = index
        try:
            call = make(given.seed, index, emulated, given.op)
            status, text = outcome(call, emulated, invoke)
            results.send((index, call.op, status, text, str(call) if status in BAD else ""))
        except Exception:  # of the fuzz itself, which must not hide a fault behind its own
            results.send((index, op_of(given, index), "wrong", traceback.format_exc(), ""))
        index += 1


class Count:
    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.by_op: dict[str, Counter[str]] = {}

    def add(self, index: int, op: str, status: str, text: str = "", call: str = "") -> None:
        counts = self.by_op.setdefault(op, Counter())
        counts[status] += 1
        if status not in FAULTS or sum(counts[name] for name in FAULTS) > self.given.show:
            return
        one = f" --op {self.given.op}" if self.given.op else ""
        print(
            f"{status}: --seed {self.given.seed} --only {index}{one}: {text}\n{call}\n", flush=True
        )

    def table(self) -> str:
        lines = [f"| op | calls | {' | '.join(COLUMNS)} |", "|---|" + "---:|" * (len(COLUMNS) + 1)]
        lines += [row(op, self.by_op[op]) for op in sorted(self.by_op)]
        return "\n".join([*lines, row("all", sum(self.by_op.values(), Counter()))])

    def faults(self) -> int:
        return sum(counts[name] for counts in self.by_op.values() for name in FAULTS)


def row(op: str, counts: Counter[str]) -> str:
    numbers = [sum(counts.values()), *(counts[name] for name in COLUMNS)]
    return f"| {op} | " + " | ".join(str(number) for number in numbers) + " |"


def run(given: argparse.Namespace, invoke: Invoke = invoke, hang: float = HANG) -> Count:
    """In children one after the other: a call that ends its child is counted, the next one begins
    with the call after it."""
    counted = Count(given)
    calls = given.calls if given.calls is not None or given.seconds else 2000
    last = None if calls is None else given.start + calls
    until = None if given.seconds is None else time.monotonic() + given.seconds
    context = multiprocessing.get_context("spawn")
    index = given.start
    while (last is None or index < last) and (until is None or time.monotonic() < until):
        slot = context.Value("q", index)
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(
            target=child, args=(given, index, slot, theirs, invoke), daemon=True
        )
        process.start()
        theirs.close()
        died, started = "", False
        while (last is None or index < last) and (until is None or time.monotonic() < until):
            if not ours.poll(hang if started else START):
                died = "hung"
                break
            try:
                message = ours.recv()
            except EOFError:
                died = "crashed"
                break
            if started:
                counted.add(*message)
                index += 1
            started = True
        process.kill()
        process.join()
        if died:
            op = op_of(given, slot.value)
            counted.add(slot.value, op, died, f"exit status {process.exitcode}")
            index = slot.value + 1
    return counted


def op_of(given: argparse.Namespace, index: int) -> str:
    """Of a call that cannot be made here: it ends processes."""
    draw = Draw(given.seed, index, given.device == "emulated")
    return given.op or draw.pick(*sorted(OPS))
