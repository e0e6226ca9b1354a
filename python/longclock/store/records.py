# SPDX-License-Identifier: Apache-2.0
"""How a behaviour lies in a store: 16 bytes whose order is that of (time, item), then the columns that the store has besides."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

User = int | str
Array = npt.NDArray[Any]
Columns = Mapping[str, str]
BIAS = (
    1 << 63
)  # added to a signed integer, whose big-endian bytes are then in the order of the numbers
DTYPES = ("int8", "int16", "int32", "int64", "float32", "float64")
KEY = 16  # bytes of time and item
CHECKSUM = struct.Struct(">I")


class Behaviours(NamedTuple):
    """Some of what one user did, ordered by time, then by item.

    - ``item``, ``time``: int64 [M].
    - ``columns``: what the store has besides, by name, each [M].
    """

    item: Tensor
    time: Tensor
    columns: dict[str, Tensor]


class DamagedHistoryError(RuntimeError):
    """Bytes of a history are not what was written.

    Attributes:
        user: whose history it is.
        chunk: the time of the first behaviour of the piece that is damaged; None where not even that can be read.
    """

    def __init__(self, store: str, user: User, chunk: int | None, reason: str) -> None:
        where = (
            "a piece of it"
            if chunk is None
            else f"the piece that begins with the behaviour at {chunk}"
        )
        super().__init__(
            f"{store}: the history of user {user!r} is damaged in {where}: {reason}; put the file of a backup in its place, read it "
            "with on_damage='skip', or drop what is damaged with repair()"
        )
        self.user, self.chunk = user, chunk


class Records:
    """The layout of the records of one store.

    Args:
        columns: name to dtype, of what is kept besides time and item; their bytes are little-endian.
    """

    def __init__(self, columns: Columns) -> None:
        self.columns = dict(columns)
        fields = [(name, np.dtype(dtype).newbyteorder("<")) for name, dtype in columns.items()]
        self.dtype = np.dtype([("time", ">u8"), ("item", ">u8"), *fields])
        self.size = self.dtype.itemsize

    def pack(self, item: Array, time: Array, columns: Mapping[str, Array]) -> Array:
        """Behaviours in any order as records in theirs; of several with one time and item, the first."""
        records = np.empty(len(item), self.dtype)
        records["time"] = time.astype(np.int64).view(np.uint64) ^ np.uint64(BIAS)
        records["item"] = item.astype(np.int64).view(np.uint64) ^ np.uint64(BIAS)
        for name in self.columns:
            records[name] = columns[name]
        return self.merge(records[:0], records)

    def merge(self, old: Array, new: Array) -> Array:
        """Both in order; of two with one time and item the older stays."""
        both = self.join([old, new])
        if len(new) == 0 or (len(new) == 1 and len(old) and _key(old[-1]) < _key(new[0])):
            return both
        order = np.lexsort((both["item"], both["time"]))  # stable: the older first
        both = both[order]
        first = np.ones(len(both), bool)
        first[1:] = (both["time"][1:] != both["time"][:-1]) | (
            both["item"][1:] != both["item"][:-1]
        )
        return both[first]

    def join(self, parts: Sequence[Array]) -> Array:
        """One behind the other. NumPy would turn the bytes of their numbers round."""
        whole, end = np.empty(sum(map(len, parts)), self.dtype), 0
        for part in parts:
            whole[end : end + len(part)] = part
            end += len(part)
        return whole

    def unpack(self, records: bytes) -> Array:
        return np.frombuffer(records, self.dtype)

    def behaviours(self, records: Array) -> Behaviours:
        time, item = (
            torch.from_numpy((records[name].astype(np.uint64) ^ np.uint64(BIAS)).view(np.int64))
            for name in ("time", "item")
        )
        columns = {
            name: torch.from_numpy(records[name].astype(dtype))
            for name, dtype in self.columns.items()
        }
        return Behaviours(item, time, columns)

    def before(self, records: Array, time: int | None) -> Array:
        """Those that are older than ``time``."""
        if time is None:
            return records
        return records[: np.searchsorted(records["time"], np.uint64(_biased(time)))]


def _key(record: Any) -> tuple[int, int]:
    return int(record["time"]), int(record["item"])


def _biased(number: int) -> int:
    return min(max(number + BIAS, 0), 2 * BIAS - 1)


def time_of(key: bytes) -> int:
    """The time of a record that begins with these bytes."""
    return int.from_bytes(key[:8], "big") - BIAS


def user_key(user: User) -> bytes:
    """Different for every user: 7 is another than '7'."""
    return b"i%d" % user if isinstance(user, int) else b"s" + user.encode()


def sealed(user: User, records: bytes) -> bytes:
    """Records of a user behind their checksum, which that of another user does not fit."""
    return CHECKSUM.pack(zlib.crc32(records, zlib.crc32(user_key(user)))) + records


def opened(user: User, sealed_records: bytes, size: int) -> bytes:
    """The records, of ``size`` bytes each.

    Raises:
        ValueError: why they are not what was sealed for this user.
    """
    if not isinstance(sealed_records, bytes) or len(sealed_records) < CHECKSUM.size + size:
        raise ValueError("it is cut off")
    records = sealed_records[CHECKSUM.size :]
    if len(records) % size:
        raise ValueError("it ends within a behaviour")
    if sealed(user, records)[: CHECKSUM.size] != sealed_records[: CHECKSUM.size]:
        raise ValueError("its checksum is wrong")
    return records
