# SPDX-License-Identifier: Apache-2.0
"""Parquet files for the tests of reading events, and what is said of a bad file."""

from __future__ import annotations

import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from longclock.data import EventFileError, read_events

TIME = [1_700_000_000, 1_700_000_001, 1_700_000_002]
GOOD = {"user": ["a", "b", "a"], "item": [1, 2, 1], "time": TIME}
NO_END = 253_402_300_799  # 9999-12-31 23:59:59


def write(folder, name="events.parquet", options=None, **changes):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {name: values for name, values in {**GOOD, **changes}.items() if values is not None}
    pq.write_table(pa.table(columns), path, **(options or {}))
    return path


def refused(path, *parts, **arguments):
    with pytest.raises(EventFileError) as error:
        read_events(path, **arguments)
    for part in parts:
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


def stamps(seconds, unit="us", zone=None):
    factor = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    return pa.array([second * factor for second in seconds], pa.timestamp(unit, zone))
