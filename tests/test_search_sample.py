# SPDX-License-Identifier: Apache-2.0
"""What a loss of a search is taken over: what was found, and draws that stand for all else."""

from __future__ import annotations

import math

import torch
from test_search_loss import ALL, C, H, L, build, unlike

import longclock as lc
from longclock.history.windows import windows_of
from longclock.nn.search_loss import sample_of


def test_a_sample_stands_for_the_whole() -> None:
    """Over many draws a weighted sum over the sample is the sum over the window, whatever is summed."""
    torch.manual_seed(0)
    counts = torch.tensor([40, 9, 3, 0])
    ends = counts.cumsum(0)
    time = torch.zeros(int(ends[-1]), dtype=torch.int64)
    history = lc.History.windows(torch.zeros(len(time), 1), time, ends - counts, ends)
    windows = windows_of("test", history, (4,))
    found = torch.tensor([[3, 39, 0], [8, 2, -1], [1, 0, 2], [-1, -1, -1]])
    value = torch.randn(4, 40, dtype=torch.float64).exp()
    value[torch.arange(40) >= counts[:, None]] = math.nan
    sums = []
    for _ in range(4000):
        sample = sample_of(windows, found, 8)
        assert sample.indices.shape == sample.log_weight.shape == (4, 3 + 8)
        there = sample.log_weight > -math.inf
        picked = value.gather(1, sample.indices.clamp(max=39)).masked_fill(~there, 0)
        sums.append((sample.log_weight.exp() * picked).sum(1))
        assert torch.equal(there[:, :3], found >= 0)
        for row in range(1, 4):  # the draws of a window of up to 8 are all else of it, once each
            got = sample.indices[row][there[row]].tolist()
            if counts[row] <= 8:
                assert sorted(got) == list(range(counts[row]))
            assert len(set(got) & set(found[row].tolist())) == (found[row] >= 0).sum()
    total, spread = torch.stack(sums).mean(0), torch.stack(sums).std(0) / math.sqrt(4000)
    expected = value.nan_to_num().sum(1)
    assert ((total - expected).abs() <= 4 * spread + 1e-5).all()
    assert spread[2] < 1e-9
    assert spread[0] > 0


def test_a_loss_of_samples_is_near_that_of_the_whole() -> None:
    """Within a tenth for 80 of 400, which it is not where either stage leaves out what a draw stands for."""
    torch.manual_seed(2)
    clock = unlike(build("cpu", own_search=True))
    history = lc.History.dense(torch.randn(8, 400, L), torch.randint(0, 10**6, (8, 400)))
    call = torch.randn(8, C, H), history, torch.randint(0, 10**6, (8,))
    with torch.no_grad():
        whole = clock.search_loss(*call, sample=ALL)
        sampled = torch.stack([clock.search_loss(*call, sample=80) for _ in range(100)])
    assert abs(sampled.mean() - whole) < 0.1 * whole
    assert sampled.std() > 0
