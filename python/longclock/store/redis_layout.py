# SPDX-License-Identifier: Apache-2.0
"""How histories lie in Redis: two values a user, in which every record has a check of its own."""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from longclock.store.records import BIAS, Array, Columns, Records, User, user_key

TOTALS = struct.Struct(">II")  # at a tail's end: records of both values, the sum of their checks
PIECE = 512  # records of what is reported as one piece
ODD = np.array(
    [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5], np.uint64
)
MODULUS = 1 << 32


class Damage(NamedTuple):
    """``chunk``: the time of the piece's first behaviour, where that can be read."""

    chunk: int | None
    reason: str


class CheckedRecords(Records):
    """Records that end with 32 bits of a hash of the others and of their user.

    The server can append, order and drop such records without computing a checksum, which is slow in Lua: their sum tells of
    those that are missing. The client verifies all of a history in some passes of NumPy, which CRCs of records do not allow.
    """

    def __init__(self, columns: Columns) -> None:
        super().__init__(columns)
        self.dtype = np.dtype([*self.dtype.descr, ("check", ">u4")])
        self.size = self.dtype.itemsize

    def stamped(self, user: User, records: Array) -> bytes:
        """With their checks, as bytes."""
        records = records.copy()
        records["check"] = self.checks(user, records)
        return records.tobytes()

    def checks(self, user: User, records: Array) -> npt.NDArray[np.uint32]:
        """Each field times an odd number of its own, so that no one change of a field goes unseen before the last shift."""
        seed = zlib.crc32(user_key(user)) * int(ODD[3]) % (1 << 64) + 1
        total = np.full(len(records), np.uint64(seed % (1 << 64)))
        for number, name in enumerate(self.dtype.names or ()):
            if name == "check":
                continue
            field = records[name]
            if name in self.columns:
                field = field.astype(self.columns[name]).view(f"u{field.dtype.itemsize}")
            factor = int(ODD[number % 3]) + 2 * (number // 3)
            total += field.astype(np.uint64) * np.uint64(factor)
        total ^= total >> np.uint64(32)
        total *= ODD[3]
        return (total >> np.uint64(32)).astype(np.uint32)

    def totals(self, records: Array) -> bytes:
        """The tail of a history whose records are all in its body."""
        return TOTALS.pack(len(records) % MODULUS, _sum_of_checks(records))

    def found(
        self, user: User, body: bytes | None, tail: bytes | None
    ) -> tuple[Array, list[Damage]]:
        """The records of a user's two values that are what was written, in order, and what is damaged."""
        if body is None and tail is None:
            return self.unpack(b""), []
        body, tail = body or b"", tail or b""
        damaged: list[Damage] = []
        texts = body, tail[: -TOTALS.size]
        if any(len(text) % self.size for text in texts):
            damaged.append(Damage(None, "a value ends within a behaviour"))
        whole = [text[: len(text) // self.size * self.size] for text in texts]
        records = self.unpack(b"".join(whole))
        good = records["check"] == self.checks(user, records)
        counted = TOTALS.unpack(tail[-TOTALS.size :]) if len(tail) >= TOTALS.size else (0, 0)
        if not good.all():
            damaged += self._bad_pieces(records, good)
        elif counted != (len(records) % MODULUS, _sum_of_checks(records)):
            reason = (
                f"{len(records)} behaviours are there where {counted[0]} were written, or others"
            )
            damaged.append(Damage(None, reason))
        ends = len(whole[0]) // self.size  # where the body does
        in_order = self._in_order(records, damaged, ends)
        if not damaged:
            return (records if in_order else self.merge(records[:ends], records[ends:])[0]), damaged
        kept = records[good]
        return kept[self.order(kept)], damaged

    def _in_order(self, records: Array, damaged: list[Damage], ends: int) -> bool:
        """Whether body and tail follow each other. Each by itself is in order, or damaged."""
        time = records["time"].astype(np.uint64)
        wrong = time[1:] < time[:-1]
        same = np.flatnonzero(time[1:] == time[:-1])
        if len(same):
            item = records["item"].astype(np.uint64)
            wrong[same] = item[same + 1] <= item[same]
        places = np.flatnonzero(wrong)
        if any(places != ends - 1):
            damaged.append(Damage(None, "its behaviours are not in their order"))
        return len(places) == 0

    def _bad_pieces(self, records: Array, good: npt.NDArray[np.bool_]) -> list[Damage]:
        found = []
        for first in np.unique(np.flatnonzero(~good) // PIECE) * PIECE:
            bad = int((~good[first : first + PIECE]).sum())
            chunk = int(records["time"][first]) - BIAS if good[first] else None
            count = len(good[first : first + PIECE])
            reason = f"the checks of {bad} of {count} behaviours from the {first + 1}. on are wrong"
            found.append(Damage(chunk, reason))
        return found


def _sum_of_checks(records: Array) -> int:
    return int(records["check"].sum(dtype=np.uint64)) % MODULUS
