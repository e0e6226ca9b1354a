# SPDX-License-Identifier: Apache-2.0
"""Loops of a kernel's machine code, and what one turn of its hot loop executes.

Loops are natural loops: the blocks from which a back edge's source is reached without passing its
head. How often an inner loop runs in one turn of an outer one is not in the machine code and
depends on how far the compiler unrolled it. It follows from the work: a tile of 32 keys of 256
bytes takes 16 warp-wide loads of 16 bytes, so a loop with 4 of them in its body runs 4 times.
Code for what a workload does not have (masks, tables, ragged ends) lies in the loop too. Blocks of
which no source line ran on the emulator are left out.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable
from functools import cached_property

CLASSES = {  # the first that matches
    "LDG.128": r"LDG\..*\b128\b",
    "LDG": r"LDG\b",
    "STG": r"STG\b",
    "LDSM": r"LDSM\b",
    "LDS": r"LDS\b",
    "STS": r"STS\b",
    "LDL/STL": r"(LDL|STL)\b",
    "HMMA": r"(HMMA|IMMA|BMMA)\b",
    "FP32": r"(FFMA|FADD|FMUL)2?\b",
    "HALF": r"(HFMA2|HADD2|HMUL2)\b",
    "MUFU": r"MUFU\b",
    "SHFL": r"SHFL\b",
    "ATOMS": r"ATOMS\b",
    "RED/ATOM": r"(RED|ATOM|ATOMG|REDG)\b",
    "BAR": r"BAR\b",
    "BRA": r"(BRA|BRX|JMP|CALL|RET|EXIT)\b",
    "NOP": r"NOP\b",
}
LINE = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(?:@(!?U?P\w+)\s+)?([A-Z][\w.]*)\s*([^;]*);")
SOURCE = re.compile(r'^\s*//## File "([^"]+)", line (\d+)')
LABEL = re.compile(r"^(\.L_\w+):")
ENDS = ("EXIT", "RET", "BRX", "JMX", "KILL")
Source = tuple[str, ...]  # "file:line", then where that was inlined, outwards


def place(file: str, line: str | int) -> str:
    """The same wherever the project lies."""
    *outside, inside = re.split("/kernels/|/include/longclock/", file)
    return f"{os.path.normpath(inside) if outside else os.path.basename(file)}:{line}"


@dataclasses.dataclass(frozen=True)
class Op:
    address: int
    guard: str | None
    name: str  # with its modifiers: LDG.E.128.CONSTANT
    operands: str
    source: Source

    @cached_property
    def kind(self) -> str:
        return next((kind for kind, p in CLASSES.items() if re.match(p, self.name)), "other")


@dataclasses.dataclass
class Block:
    ops: list[Op] = dataclasses.field(default_factory=list)
    next: list[int] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Loop:
    head: int  # index of a block
    blocks: frozenset[int]
    always: frozenset[int]  # of them, those that every turn passes
    inner: list[Loop] = dataclasses.field(default_factory=list)  # directly inside


@dataclasses.dataclass(frozen=True)
class Work:
    """What one turn of the hot loop does, to find it and to weigh its inner loops.

    ``loops``: for each loop inside, a mnemonic (a regular expression) that only it executes and how
    often one turn does so altogether, unrolled or not; the first entry also finds the hot loop.
    """

    units: int  # keys, rows, ... of a turn
    loops: dict[str, int]


def parse(text: str) -> list[Block]:
    """Basic blocks with their successors; [0] is the entry."""
    blocks, labels = [Block()], {}
    source: Source = ()
    continues = False  # a line of a source that is inlined there
    for line in text.splitlines():
        at = SOURCE.match(line)
        if at:
            source = (*(source if continues else ()), place(*at.groups()))
        continues = at is not None
        label = LABEL.match(line)
        if label:
            if blocks[-1].ops:
                blocks.append(Block())
            labels[label.group(1)] = len(blocks) - 1
            continue
        match = LINE.match(line)
        if not match:
            continue
        address, guard, mnemonic, operands = match.groups()
        op = Op(int(address, 16), guard, mnemonic, operands.strip(), source)
        blocks[-1].ops.append(op)
        if op.name.partition(".")[0] in ("BRA", *ENDS):
            blocks.append(Block())
    for index, block in enumerate(blocks):
        last = block.ops[-1] if block.ops else None
        name = last.name.partition(".")[0] if last else ""
        target = re.search(r"`\((\.L_\w+)\)", last.operands) if last else None
        always = last is not None and last.guard is None
        if last and name == "BRA" and target and "DIV" not in last.name.split("."):
            # BRA.DIV leads to the code of warps that are not converged.
            if target.group(1) in labels:
                block.next.append(labels[target.group(1)])
            always = always and last.operands.startswith("`")
        else:
            always = always and name in ENDS
        if not always and index + 1 < len(blocks):
            block.next.append(index + 1)
    return blocks


def dominators(blocks: list[Block]) -> list[set[int] | None]:
    """For each block, those on every way to it; None where there is no way."""
    found: list[set[int] | None] = [None] * len(blocks)
    found[0] = {0}
    before: list[list[int]] = [[] for _ in blocks]
    for index, block in enumerate(blocks):
        for other in block.next:
            before[other].append(index)
    changed = True
    while changed:
        changed = False
        for index in range(1, len(blocks)):
            known = [way for way in (found[other] for other in before[index]) if way is not None]
            if not known:
                continue
            now = set.intersection(*known) | {index}
            if now != found[index]:
                found[index], changed = now, True
    return found


def loops_of(blocks: list[Block]) -> list[Loop]:
    """All natural loops, outer before inner; back edges to one head are one loop."""
    over = dominators(blocks)
    before: dict[int, list[int]] = {}
    for index, block in enumerate(blocks):
        for other in block.next:
            if over[index] is not None:
                before.setdefault(other, []).append(index)
    bodies: dict[int, set[int]] = {}
    for head, sources in before.items():
        for source in sources:
            if head not in (over[source] or ()):
                continue
            body, todo = bodies.setdefault(head, {head}), [source]
            while todo:
                index = todo.pop()
                if index not in body:
                    body.add(index)
                    todo += before.get(index, [])
    loops = []
    for head, body in bodies.items():
        ends = [over[source] or set() for source in before[head] if source in body]
        loops.append(Loop(head, frozenset(body), frozenset(body).intersection(*ends)))
    loops.sort(key=lambda loop: (-len(loop.blocks), loop.head))
    for number, loop in enumerate(loops):
        outer = [other for other in loops[:number] if loop.blocks < other.blocks]
        if outer:
            min(outer, key=lambda other: len(other.blocks)).inner.append(loop)
    return loops


def count(blocks: list[Block], inside: Iterable[int], pattern: str) -> int:
    return sum(bool(re.match(pattern, op.name)) for i in inside for op in blocks[i].ops)


def working(blocks: list[Block], loop: Loop, work: Work) -> list[Loop]:
    """The loops inside that do the work: of loops in one another the deepest with a mark in it.

    What lies around them, as a loop over one clock, and what lies inside without a mark, as a loop
    that the code of this workload leaves at once, counts once a turn.
    """
    found = []
    for each in loop.inner:
        deeper = working(blocks, each, work)
        marked = any(count(blocks, other.blocks, p) for other in deeper for p in work.loops)
        found += deeper if marked else [each]
    return found


def weights(
    blocks: list[Block], loop: Loop, work: Work, ran: Collection[Source] | None
) -> dict[int, int] | None:
    """How often each block runs in a turn; None where the turn does not do this work.

    Of loops with the same mark the longest body runs as often as it fits, the next takes the rest:
    an unrolled loop and its remainder. Where loops do all of it, marked code beside them that a
    turn may pass by is a remainder too, and does not run. A loop without a mark counts once.
    """
    inner = working(blocks, loop, work)
    of_inner = frozenset[int]().union(*(each.blocks for each in inner))
    found = dict.fromkeys(loop.blocks, 0)
    live = {i for i in loop.blocks if ran is None or any(op.source in ran for op in blocks[i].ops)}
    found.update(dict.fromkeys(live, 1))
    direct = live - of_inner
    for number, (pattern, needed) in enumerate(work.loops.items()):
        marks = [count(blocks, each.blocks & live, pattern) for each in inner]
        if number == 0 and not any(marks) and not count(blocks, direct, pattern):
            return None
        optional = {i for i in direct - loop.always if count(blocks, [i], pattern)}
        for passed_by in (optional, set[int]()):
            rest = needed - count(blocks, direct - passed_by, pattern)
            runs = [1] * len(marks)
            for index in sorted(range(len(marks)), key=lambda i: -marks[i]):
                if marks[index] and rest >= 0:
                    runs[index], rest = divmod(rest, marks[index])
            if rest == 0:
                break
        else:
            return None
        found.update(dict.fromkeys(passed_by, 0))
        for each, mark, run in zip(inner, marks, runs, strict=True):
            if mark:
                found.update(dict.fromkeys(each.blocks & live, run))
    return found


@dataclasses.dataclass
class HotLoop:
    address: int
    units: int
    trips: list[int]  # of the loops inside, in the order of their addresses
    classes: dict[str, int]  # warp instructions of a turn
    lines: dict[str, int]  # the same by source line, the most first

    @property
    def instructions(self) -> int:
        return sum(self.classes.values())

    @property
    def per_unit(self) -> float:
        return self.instructions / self.units


def hot_loop(text: str, work: Work, ran: Collection[Source] | None = None) -> HotLoop | None:
    """The loop that does the work in the fewest instructions; ``ran``: what the emulator executed.

    All other code in its body counts once a turn, also where it branches: an upper bound, but for
    code that is called (slow paths of sqrt and division).
    """
    blocks = parse(text)
    found: list[HotLoop] = []
    for loop in loops_of(blocks):
        runs = weights(blocks, loop, work, ran)
        if runs is None:
            continue
        total: Counter[str] = Counter()
        lines: Counter[str] = Counter()
        for index, times in runs.items():
            for op in blocks[index].ops:
                total[op.kind] += times
                lines[op.source[0] if op.source else "?"] += times
        classes = {kind: total[kind] for kind in (*CLASSES, "other") if total[kind]}
        inner = sorted(each.head for each in loop.inner)
        address = blocks[loop.head].ops[0].address
        trips = [runs[head] for head in inner]
        found.append(HotLoop(address, work.units, trips, classes, dict(lines.most_common())))
    return min(found, key=lambda each: each.instructions, default=None)


def opcodes(text: str) -> dict[str, int]:
    """Instructions of the whole kernel by class."""
    total = Counter(op.kind for block in parse(text) for op in block.ops)
    return {kind: total[kind] for kind in (*CLASSES, "other") if total[kind]}
