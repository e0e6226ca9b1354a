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
# Added to a signed integer, whose big-endian bytes are then in the order of the numbers.
BIAS = 1 << 63
DTYPES = ("int8", "int16", "int32", "int64", "float32", "float64")
KEY = 16  # bytes of time and item: their order is that of (time, item)
TAIL = struct.Struct(">II")  # of sealed records: their length, and a checksum of all before it
CHECKSUM = 4  # bytes
BOTH = struct.Struct(">QQ")


class Behaviours(NamedTuple):
    """Some of what one user did, ordered by time, then by item.

    - ``item``, ``time``: int64 [M].
    - ``columns``: what the store has besides, by name, each [M].

    Example::

        >>> from longclock.store import open_store
        >>> with open_store("histories.db", columns={"liked": "int8"}) as store:
        ...     store.append_many([7, 7], [40, 30], [20, 10], liked=[1, 0])
        ...     store.get(7)
        2
        Behaviours(item=tensor([30, 40]), time=tensor([10, 20]), columns={'liked': tensor([0, 1], dtype=torch.int8)})
    """

    item: Tensor
    time: Tensor
    columns: dict[str, Tensor]


class DamagedHistoryError(RuntimeError):
    """Bytes of a history are not what was written.

    Attributes:
        user: whose history it is; None where that cannot be read.
        chunk: the time of the first behaviour of the piece that is damaged; None where not even that can be read.

    Example::

        >>> from longclock.store import DamagedHistoryError
        >>> error = DamagedHistoryError("SQLiteStore", "ada", 1_700_000_000, "its checksum is wrong")
        >>> error.user, error.chunk
        ('ada', 1700000000)
    """

    def __init__(self, store: str, user: User | None, chunk: int | None, reason: str) -> None:
        where = "" if chunk is None else f" in the piece that begins with the behaviour at {chunk}"
        whose = "what is stored" if user is None else f"the history of user {user!r}"
        super().__init__(
            f"{store}: {whose} is damaged{where}: {reason}; put a backup in its place, read what is left with on_damage='skip', or "
            "drop what is damaged with repair()"
        )
        self.store, self.user, self.chunk, self.reason = store, user, chunk, reason

    def __reduce__(self) -> Any:
        return DamagedHistoryError, (self.store, self.user, self.chunk, self.reason)


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
        return records[self.order(records)]

    def order(self, records: Array) -> Array:
        """Where they lie in order; of several with one time and item the first."""
        places = np.lexsort((records["item"], records["time"]))  # stable
        time, item = records["time"][places], records["item"][places]
        first = np.ones(len(places), bool)
        first[1:] = (time[1:] != time[:-1]) | (item[1:] != item[:-1])
        return np.asarray(places[first])

    def merge(self, old: Array, new: Array) -> tuple[Array, Array]:
        """Both in order, as each of them is; of two with one time and item the old one stays.

        Returns:
            The records, and which of the new ones are among them.
        """
        if len(new) == 0 or len(old) == 0 or key_of(old[-1]) < key_of(new[0]):
            return self.join([old, new]), np.ones(len(new), bool)
        begin = int(np.searchsorted(_native(old["time"]), np.uint64(new["time"][0])))
        both = self.join([old[begin:], new])
        places = self.order(both)
        kept = np.zeros(len(new), bool)
        of_new = places - (len(old) - begin)
        kept[of_new[of_new >= 0]] = True
        return self.join([old[:begin], both[places]]), kept

    def join(self, parts: Sequence[Array]) -> Array:
        """One behind the other. NumPy would turn the bytes of their numbers round."""
        return self.unpack(b"".join([part.tobytes() for part in parts]))

    def unpack(self, records: bytes | memoryview) -> Array:
        return np.frombuffer(records, self.dtype)

    def one(self, item: int, time: int) -> Array:
        """The record of one behaviour without columns."""
        return self.unpack(BOTH.pack(time + BIAS, item + BIAS).ljust(self.size, b"\0"))

    def behaviours(self, records: Array) -> Behaviours:
        time, item = (torch.from_numpy(self.numbers(records, name)) for name in ("time", "item"))
        columns = {
            name: torch.from_numpy(records[name].astype(dtype))
            for name, dtype in self.columns.items()
        }
        return Behaviours(item, time, columns)

    def numbers(self, records: Array, name: str) -> npt.NDArray[np.int64]:
        """Times or items as they were given."""
        found = records[name].astype(np.uint64)
        found ^= np.uint64(BIAS)
        return found.view(np.int64)

    def before(self, records: Array, time: int | None) -> Array:
        """Those that are older than ``time``."""
        if time is None or len(records) == 0 or int(records["time"][-1]) < time + BIAS:
            return records
        return records[: np.searchsorted(_native(records["time"]), np.uint64(_biased(time)))]

    def trimmed(self, records: Array, keep: int | None, before: int | None) -> Array:
        """The newest ``keep``, of those that are not older than ``before``."""
        if before is not None:
            records = records[len(self.before(records, before)) :]
        return records if keep is None else records[len(records) - min(keep, len(records)) :]


def _native(numbers: Array) -> Array:
    """NumPy searches numbers of the machine's own byte order only without a copy of all for each search."""
    return numbers.astype(np.uint64)


def key_of(record: Any) -> bytes:
    return bytes(record.tobytes()[:KEY])


def _biased(number: int) -> int:
    return min(max(number + BIAS, 0), 2 * BIAS - 1)


def time_of(key: bytes) -> int:
    """The time of a record that begins with these bytes."""
    return int.from_bytes(key[:8], "big") - BIAS


def user_key(user: User) -> bytes:
    """Different for every user: 7 is another than '7'."""
    return b"i%d" % user if isinstance(user, int) else b"s" + user.encode()


def seal_of(user: User) -> int:
    """Where a user's checksums begin, so that they do not fit another's records."""
    return zlib.crc32(user_key(user))


def sealed(seal: int, records: bytes, room: int) -> bytes:
    """Records with zeros up to ``room`` bytes, and behind them their length in bytes and a checksum of all before it.

    What tells of a change lies at the end, for that is where a change of records goes on to.
    """
    content = records.ljust(room, b"\0") + len(records).to_bytes(TAIL.size - CHECKSUM, "big")
    return content + zlib.crc32(content, seal).to_bytes(CHECKSUM, "big")


def opened(seal: int, sealed_records: Any, size: int) -> memoryview:
    """The records, of ``size`` bytes each.

    Raises:
        ValueError: why they are not what was sealed for this user.
    """
    if not isinstance(sealed_records, bytes):
        raise ValueError("it is not bytes")
    end = len(sealed_records) - TAIL.size
    if end < size:
        raise ValueError("it is cut off")
    length, checksum = TAIL.unpack_from(sealed_records, end)
    if not size <= length <= end:
        raise ValueError("it is cut off")
    if length % size:
        raise ValueError("it ends within a behaviour")
    content = memoryview(sealed_records)
    if zlib.crc32(content[:-CHECKSUM], seal) != checksum:
        raise ValueError("its checksum is wrong")
    return content[:length]


def length_of(tail: Any) -> int:
    """Bytes of sealed records, of which these are the last bytes; 0 where that cannot be."""
    if not isinstance(tail, bytes) or len(tail) != TAIL.size:
        return 0
    return int(TAIL.unpack(tail)[0])
