# SPDX-License-Identifier: Apache-2.0
"""HSTU against its definition, one query and one pair of tokens at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rivals import LENGTHS, H, K, L, M, called, inputs
from streams import stream

from longclock import History
from longclock.baselines import HSTU
from longclock.train.batches import TrainingData
from longclock.train.config import MODELS, Config
from longclock.train.loop import Run
from longclock.train.ranker import Inputs


def hstu_layer(layer, x, time, heads, longest):
    """A layer over all tokens, oldest first, [T, D]: every pair on its own."""
    u, v, q, k = F.silu(layer.uvqk(layer.before(x))).chunk(4, 1)
    width = x.shape[1] // heads
    attended = torch.zeros_like(x)
    for i in range(len(x)):
        for j in range(i + 1):
            seconds = max(1, abs(int(time[i] - time[j])))
            bucket = min(127, math.floor(math.log(seconds) / 0.301))
            bias = layer.by_distance[i - j] + layer.by_time[bucket]
            for head in range(heads):
                part = slice(head * width, (head + 1) * width)
                weight = F.silu(q[i, part] @ k[j, part] + bias) / (longest + 1)
                attended[i, part] = attended[i, part] + weight * v[j, part]
    return x + layer.out(layer.after(attended) * u)


@pytest.mark.parametrize("k", [0, 1, 4, 20])
def test_hstu_attends_pointwise_by_content_distance_and_elapsed_time(k):
    model = HSTU(L, H, k=k, heads=2, head_dim=3, out_dim=7)
    with torch.no_grad():
        for layer in model.layers:
            layer.by_distance.mul_(50)
            layer.by_time.mul_(50)
    for q, rows, time, now, found in called(model):
        rows, time = rows[max(0, len(rows) - k) :], torch.cat([time[max(0, len(time) - k) :], now[None]])  # fmt: skip
        x = torch.cat([model.behaviour(rows), model.candidate(q)[None]])
        for layer in model.layers:
            x = hstu_layer(layer, x, time, 2, k)
        c = model.out(x[-1]) if len(rows) else torch.zeros(L)
        torch.testing.assert_close(found, (model.head(c), c[None]))


def test_hstu_takes_seconds_where_times_are_of_the_day():
    table, ids, time, now, candidate = inputs()
    model = HSTU(L, H, k=K)
    with torch.no_grad():
        for layer in model.layers:
            layer.by_time.mul_(50)
    days = 86400 * torch.arange(M)
    seconds = {"behaviour_seconds": time + days, "query_seconds": now + 86400 * M}
    history = History.dense(table[ids], time, LENGTHS)
    found = model(candidate, history, now, **seconds)
    grown = history._replace(time=time + days)
    assert torch.equal(found, model(candidate, grown, now + 86400 * M))
    assert not torch.equal(found[:2], model(candidate, history, now)[:2])
    for changes, text in (
        ({"query_seconds": None}, "behaviour_seconds must come with query_seconds, got query_seconds=None"),
        ({"behaviour_seconds": None}, "query_seconds must come with behaviour_seconds"),
        ({"behaviour_seconds": time.float()}, "behaviour_seconds must be int32 or int64"),
        ({"behaviour_seconds": time[:, 1:]}, r"behaviour_seconds must have the shape of history.time = \[3, 9\], got \[3, 8\]"),
        ({"query_seconds": now[1:]}, r"query_seconds must have the shape of query_time = \[3\], got \[2\]"),
        ({"query_seconds": [1, 2, 3]}, "query_seconds must be a tensor, got list"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"^HSTU: {text}"):
            model(candidate, history, now, **(seconds | changes))


def test_the_trainer_gives_seconds_that_grow():
    config = Config(history=40, negatives=1)
    data = TrainingData.of(stream(events=60), config)
    batch = data.batch(np.array([50, 3]))
    inputs = Inputs(Run.start(data, MODELS["hstu"], config).ranker, batch, data)
    assert torch.equal(inputs.query_seconds, torch.from_numpy(data.stream.time[[50, 3]]))
    starts, ends = inputs.history.starts.tolist(), inputs.history.ends.tolist()
    for start, end, first, last in zip(
        starts, ends, batch.starts.tolist(), batch.ends.tolist(), strict=True
    ):
        assert (
            inputs.behaviour_seconds[start:end].tolist() == data.histories.time[first:last].tolist()
        )
    assert int(inputs.behaviour_seconds.max()) > 86400
    later = Inputs(inputs._ranker, batch._replace(time=batch.time * 0 + 7), data)
    assert (later.query_seconds % 86400 == 7).all()  # another time of the same day
    assert (later.query_seconds // 86400 == inputs.query_seconds // 86400).all()
