# SPDX-License-Identifier: Apache-2.0
"""Embeddings that grow while they are trained, and rows that are given to others."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from longclock.data import Catalogue
from longclock.data.shards import hashed
from longclock.data.stream import IntArray
from longclock.train.config import Config, Model
from longclock.train.loop import Run
from longclock.train.ranker import Ranker

LEAST_ROWS = 1024  # of a table that grows
BLOCK = 1024  # rows that are drawn at a time


def start_rows(config: Config, table: int, rows: IntArray, width: int) -> Tensor:
    """What some rows of a table begin with: the seed, the table and the row decide it, whenever the row comes. [rows, width]"""
    found = torch.empty(len(rows), width)
    block = rows // BLOCK
    for number in np.unique(block):
        seed = np.random.SeedSequence([config.seed, table, int(number)]).generate_state(2, np.uint64)[0]  # fmt: skip
        generator = torch.Generator().manual_seed(int(seed >> np.uint64(1)))
        drawn = torch.empty(BLOCK, width).normal_(0, config.spread, generator=generator)
        own = np.flatnonzero(block == number)
        found[own] = drawn[rows[own] - number * BLOCK]
    return found


def fit(run: Run, catalogue: Catalogue, config: Config) -> None:
    """Make every table as large as the catalogue says, with the optimizers' state; new rows start as :func:`start_rows` says."""
    if not isinstance(run.ranker, Ranker):
        return
    device = run.ranker.user.weight.device
    for number, (table, size) in enumerate(_tables(run.ranker, catalogue)):
        if size > table.num_embeddings:
            _grow(run, table, number, size, config)
    if catalogue.categories:
        ids = np.stack(list(catalogue.categories.values()))
        run.ranker.categories = torch.from_numpy(ids).to(device)
    else:
        run.ranker.categories = torch.empty(0, catalogue.items, dtype=torch.int64, device=device)
    if run.ranker.buckets is not None:
        run.ranker.buckets = hashed(torch.arange(catalogue.items, device=device), config.item_buckets)  # fmt: skip


def started(model: Model, config: Config, catalogue: Catalogue, device: torch.device) -> Run:
    """A new model for a catalogue, however large that is when the run begins: the seed decides the weights of all rows that are ever to come."""
    items = min(catalogue.items, LEAST_ROWS)
    least = Catalogue(
        min(catalogue.users, LEAST_ROWS),
        items,
        {name: ids[:items] for name, ids in catalogue.categories.items()},
        {name: min(size, LEAST_ROWS) for name, size in catalogue.category_sizes.items()},
        catalogue.labelled,
    )
    run = Run.new(least, model, config, device)
    begin(run, least, config)
    fit(run, catalogue, config)
    return run


def begin(run: Run, catalogue: Catalogue, config: Config) -> None:
    """Start all rows of all tables as :func:`start_rows` says."""
    if isinstance(run.ranker, Ranker):
        for number, (table, _) in enumerate(_tables(run.ranker, catalogue)):
            _start(run, table, number, np.arange(table.num_embeddings), config)


def begin_anew(run: Run, users: IntArray, items: IntArray, config: Config) -> None:
    """The same of the rows of some users and items, with the optimizers' state, before they are given to others."""
    if isinstance(run.ranker, Ranker):
        _start(run, run.ranker.user, 0, users, config)
        if run.ranker.buckets is None:
            _start(run, run.ranker.item, 1, items, config)


def _tables(ranker: Ranker, catalogue: Catalogue) -> list[tuple[nn.Embedding, int]]:
    """Those that grow, and how large they have to be."""
    items = catalogue.items if ranker.buckets is None else ranker.item.num_embeddings
    of_attributes = zip(ranker.category, catalogue.category_sizes.values(), strict=True)
    return [(ranker.user, catalogue.users), (ranker.item, items), *of_attributes]  # type: ignore[list-item]


@torch.no_grad()
def _grow(run: Run, table: nn.Embedding, number: int, size: int, config: Config) -> None:
    weight, old = table.weight, table.num_embeddings
    more = start_rows(config, number, np.arange(old, size), table.embedding_dim)
    weight.data = torch.cat([weight.data, more.to(weight)])
    weight.grad = None
    table.num_embeddings = size
    for state in _states(run, weight):
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape[:1] == (old,):
                state[key] = torch.cat([value, value.new_zeros(size - old, *value.shape[1:])])


@torch.no_grad()
def _start(run: Run, table: nn.Embedding, number: int, rows: IntArray, config: Config) -> None:
    weight, place = table.weight, torch.from_numpy(rows).to(table.weight.device)
    weight[place] = start_rows(config, number, rows, table.embedding_dim).to(weight)
    for state in _states(run, weight):
        for value in state.values():
            if isinstance(value, Tensor) and value.shape[:1] == weight.shape[:1]:
                value[place] = 0


def _states(run: Run, weight: Tensor) -> list[dict[str, object]]:
    """What the optimizers keep of a weight."""
    return [one.state[weight] for one in run.optimizers if weight in one.state]
