# SPDX-License-Identifier: Apache-2.0
"""Parquet files that are cut, overwritten or encrypted."""

from __future__ import annotations

import numpy as np
import pytest
from event_files import refused, write

from longclock.data import EventFileError, read_events


@pytest.mark.parametrize("compression", ["NONE", "snappy", "zstd", "gzip"])
def test_broken_files_get_one_line(tmp_path, compression):
    options = {"compression": compression, "write_page_checksum": True, "use_dictionary": False}
    user = [f"user {number}" for number in range(3000)]
    path = write(tmp_path, options=options, user=user, item=user, time=list(range(3000)))
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    messages = []
    for _ in range(60):
        begin = int(rng.integers(0, len(whole)))
        broken = bytearray(whole)
        broken[begin : begin + 30] = rng.bytes(len(broken[begin : begin + 30]))
        path.write_bytes(broken)
        events = None
        try:
            events = read_events(path)
        except EventFileError as error:
            messages.append(str(error))
        if events is not None:  # statistics and names of the writer are not read
            assert events.time.tolist() == list(range(3000))
    assert len(messages) > 40
    for message in messages:
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
    for length in (0, 1, 4, 8, 12, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(path, "cannot be read")


def test_an_encrypted_file(tmp_path):
    path = write(tmp_path)
    whole = bytearray(path.read_bytes())
    whole[:4] = whole[-4:] = b"PARE"  # how a file with an encrypted footer begins and ends
    path.write_bytes(whole)
    refused(path, "cannot be read", "write the file without encryption")
