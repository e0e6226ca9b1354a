# SPDX-License-Identifier: Apache-2.0
"""Calls in which the fuzz found faults, as they are written by hand."""

from __future__ import annotations

import torch

import longclock as lc

MLP = (torch.ones(1, 4), torch.zeros(1), torch.ones(1), torch.zeros(()))


def test_the_reference_takes_rows_of_no_width() -> None:
    """Its own scale, 1 / sqrt(D), was a division by zero."""
    times = torch.tensor([[0, 3600]]), torch.tensor([0])
    rows = torch.zeros(1, 0), torch.zeros(1, 2, 0)
    expected = lc.gsu_score(*rows, *times, MLP)
    torch.testing.assert_close(lc.reference.gsu_score(*rows, *times, MLP), expected)
