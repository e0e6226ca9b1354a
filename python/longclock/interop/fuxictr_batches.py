# SPDX-License-Identifier: Apache-2.0
"""Batches of FuxiCTR's long sequences with their times; FuxiCTR itself is not needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from longclock._extras import FUXICTR_EXTRA, imported_for

with imported_for("longclock.interop.fuxictr", FUXICTR_EXTRA):
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

NAME = "interop.fuxictr.TimedDataLoader"
OF_ROWS = ("user_index", "item_index", "seq_len", "time")


class TimedDataLoader(DataLoader[Any]):
    """Batches of long sequences with their times, from files as FuxiCTR's ``LongCTRDataLoader`` reads them.

    A batch of B rows is (rows, items, mask): the rows' columns; the columns of items, [B (M + 1)], M behaviours and then the
    target of one row after another; and mask [B, M], 0 where there is padding, which lies in front. The column ``time`` of items
    holds the times of behaviours, and for the target that of its row. FuxiCTR's own models take the same batches and read no time.

    Args:
        feature_map: has ``user_index``, ``item_index``, ``seq_len`` and ``time`` among its features, of type "meta".
        data_path: a Parquet file with these columns, the label and other features: ``seq_len`` is how many behaviours its user has
            before a row, ``time`` int32 or int64 seconds of the user's clock.
        user_info: a Parquet file whose row u has the lists ``full_item_seq`` and ``full_time_seq`` of user u, oldest first.
        item_info: a Parquet file whose row i has the features of item i; item 0 is padding.
        batch_size, shuffle, num_workers: as of PyTorch's loader.
        max_len: so many behaviours are given at most, the last ones.
        padding: "pre".
        kwargs: the other settings of an experiment, which are left alone.
    Raises:
        ValueError: a file without a column, or with one that does not fit; the message names it.

    Example::

        >>> import pyarrow as pa, pyarrow.parquet as pq
        >>> from fuxictr.features import FeatureMap
        >>> from longclock.interop.fuxictr import TimedDataLoader
        >>> files = {
        ...     "rows": {"user_index": [0], "item_index": [2], "seq_len": [1], "time": [90_000], "label": [1]},
        ...     "users": {"full_item_seq": [[1, 2]], "full_time_seq": [[3_600, 90_000]]},
        ...     "items": {"item_index": [0, 1, 2], "cate_id": [0, 7, 8]},
        ... }
        >>> for name, columns in files.items():
        ...     pq.write_table(pa.table(columns), f"{name}.parquet")
        >>> features = FeatureMap("plays", ".")
        >>> meta = dict.fromkeys(["user_index", "item_index", "seq_len", "time"], {"type": "meta"})
        >>> features.features, features.labels = {"cate_id": {"type": "categorical"}, **meta}, ["label"]
        >>> loader = TimedDataLoader(features, "rows", "users.parquet", "items.parquet")
        >>> rows, items, mask = next(iter(loader))
        >>> {name: column.tolist() for name, column in items.items()}
        {'cate_id': [7, 8], 'time': [3600, 90000]}
    """

    def __init__(
        self, feature_map: Any, data_path: str, user_info: str, item_info: str, batch_size: int = 32, shuffle: bool = False,
        num_workers: int = 0, max_len: int = 50, padding: str = "pre", **kwargs: Any,
    ) -> None:  # fmt: skip
        if padding != "pre":
            raise ValueError(f"{NAME}: padding must be 'pre', got {padding!r}")
        rows = data_path if data_path.endswith(".parquet") else f"{data_path}.parquet"
        batches = Batches.of(feature_map, rows, user_info, item_info, max_len)
        self.num_samples, self.num_blocks = len(batches.rows["seq_len"]), 1  # FuxiCTR prints them
        places: Any = range(self.num_samples)
        super().__init__(places, batch_size, shuffle, num_workers=num_workers, collate_fn=batches)


@dataclasses.dataclass(frozen=True)
class Batches:
    """Makes the batch of some rows, given by their numbers.

    Args:
        rows, of_item: columns of rows, and of items by their number.
        item, time: [T], the behaviours of all users, one user's behind another's.
        start: [users + 1], where those of each begin.
    """

    rows: dict[str, Tensor]
    of_item: dict[str, Tensor]
    item: Tensor
    time: Tensor
    start: Tensor
    max_len: int

    @classmethod
    def of(cls, feature_map: Any, rows: str, user_info: str, item_info: str, max_len: int) -> Batches:  # fmt: skip
        for name in OF_ROWS:
            kind = feature_map.features.get(name, {}).get("type")
            if kind != "meta":
                raise ValueError(f"{NAME}: feature_map must have {name!r} as a feature of type 'meta', got {kind!r}")  # fmt: skip
        read = {*feature_map.features, *feature_map.labels}
        table, users, items = (pq.read_table(path) for path in (rows, user_info, item_info))
        columns = {name: _values(table, name) for name in table.column_names if name in read}
        columns |= {name: _integers("data_path", table, name) for name in OF_ROWS}
        of_item = {name: _values(items, name) for name in items.column_names if name in read - {"item_index"}}  # fmt: skip
        item, start = _lists(users, "full_item_seq")
        time, start_of_times = _lists(users, "full_time_seq")
        if not torch.equal(start, start_of_times):
            raise ValueError(f"{NAME}: user_info must have a time for every item, got lists of other lengths in 'full_time_seq' than in 'full_item_seq'")  # fmt: skip
        if (columns["seq_len"] > start.diff()[columns["user_index"]]).any():
            raise ValueError(f"{NAME}: data_path must have no more in 'seq_len' than its user has behaviours")  # fmt: skip
        return cls(columns, of_item, item, time, start, max_len)

    def __call__(self, numbers: list[int]) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        at = torch.tensor(numbers)
        rows = {name: column[at] for name, column in self.rows.items()}
        count = rows["seq_len"][:, None]
        longest = min(int(count.max()), self.max_len)
        before = torch.arange(-longest, 0)  # the places of behaviours, from the end
        place = self.start[rows["user_index"]][:, None] + count + before
        is_there = count + before >= 0
        item, time = (x[place.where(is_there, 0)].where(is_there, 0) for x in (self.item, self.time))  # fmt: skip
        ids = torch.cat([item, rows["item_index"][:, None]], 1).flatten()
        items = {name: column[ids] for name, column in self.of_item.items()}
        items["time"] = torch.cat([time, rows["time"][:, None]], 1).flatten()
        return rows, items, (item > 0).float()


def _values(table: pa.Table, name: str) -> Tensor:
    """A column of numbers, [N], or of lists of one length, [N, ..]."""
    column = table.column(name).to_numpy()
    return torch.from_numpy(np.stack(list(column)) if column.dtype == object else column.copy())


def _integers(file: str, table: pa.Table, name: str) -> Tensor:
    return _as_tensor(_checked(file, table, name, "integers", lambda kind: kind))


def _lists(table: pa.Table, name: str) -> tuple[Tensor, Tensor]:
    """The lists of integers of a column, one behind the other, and where each begins and the last ends."""
    column = _checked("user_info", table, name, "lists of integers", lambda kind: getattr(kind, "value_type", None))  # fmt: skip
    lengths = _as_tensor(pc.list_value_length(column))
    return _as_tensor(pc.list_flatten(column)), torch.nn.functional.pad(lengths.cumsum(0), (1, 0))


def _checked(file: str, table: pa.Table, name: str, wanted: str, integer_of: Callable[[Any], Any]) -> Any:  # fmt: skip
    """A column, if what is there of its type is an integer's."""
    if name not in table.column_names:
        raise ValueError(f"{NAME}: {file} must have a column {name!r}, got {', '.join(table.column_names)}")  # fmt: skip
    kind = table.schema.field(name).type
    found = integer_of(kind)
    if found is None or not pa.types.is_integer(found):
        raise ValueError(f"{NAME}: {file} must have {wanted} in {name!r}, got {kind}")
    return table.column(name)


def _as_tensor(column: Any) -> Tensor:
    return torch.from_numpy(column.cast(pa.int64()).to_numpy().copy())
