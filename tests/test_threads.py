# SPDX-License-Identifier: Apache-2.0
"""Weights that change while others search: the torture's rounds, a few of each."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torture.threads import ROUNDS


@pytest.mark.parametrize("kind", ROUNDS, ids=lambda kind: kind.__name__)
def test_what_rests_is_exact(kind: Callable[[], str | None], device: str, emulated: bool) -> None:
    if emulated:
        pytest.skip("the emulator runs one call at a time")
    if device == "cuda":
        pytest.skip("tables and pages are kept on the CPU alone")
    for _ in range(3):
        assert kind() is None
