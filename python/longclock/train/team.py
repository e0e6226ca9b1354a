# SPDX-License-Identifier: Apache-2.0
"""Several processes that train one model: each learns from its own users, and all hold the same weights."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

from longclock.data.shards import hashed
from longclock.data.stream import IntArray
from longclock.distributed.ranks import Ranks

ANSWER_SECONDS = 3.0  # that the other ranks have to say that they live, once something went wrong
Value = TypeVar("Value")


class RankFault(RuntimeError):
    """Another rank ended, or does not answer; the message names it."""


class Team:
    """This process among those that ``torchrun`` started, or alone.

    Users are in groups by a hash, and every rank has consecutive groups. Without ``groups`` there are as many as ranks, and
    gradients are added up in an order that the network chooses. With ``groups`` each group's gradient is made by itself and sums
    are a tree over the groups, so that any number of ranks gives the same bits.

    Args:
        groups: how many groups of users, a power of two; 0: one for each rank.
        rank, world: this process, and how many there are.
        store: of torch.distributed, by which ranks find each other; None where there is one.
    Raises:
        ValueError: ``groups`` does not fit the number of ranks.
    """

    def __init__(self, groups: int = 0, rank: int = 0, world: int = 1, store: Any = None) -> None:
        if groups and (groups & (groups - 1) or groups % world):
            raise ValueError(
                f"--groups must be a power of two that the number of ranks divides, got {groups} for {world} "
                f"{'rank' if world == 1 else 'ranks'}"
            )
        self.rank, self.world, self.store = rank, world, store
        self.in_order, self.groups = groups > 0, groups or world

    @classmethod
    def started(cls, groups: int, timeout: float, device: torch.device) -> Team:
        """As the environment says: ``torchrun`` sets it.

        Args:
            timeout: seconds after which a rank that does not answer is given up.
            device: where the model runs.
        """
        world = int(os.environ.get("WORLD_SIZE", "1"))
        if world == 1:
            return cls(groups)
        if device.type != "cpu":
            raise ValueError(
                f"--device {device.type} is for one process, got {world} ranks, which add up their gradients on the CPU; leave "
                "it out, or start one process"
            )
        cls(groups, 0, world)  # what does not fit is said before the ranks wait for each other
        limit = timedelta(seconds=timeout)
        store, rank, world = next(iter(dist.rendezvous("env://", timeout=limit)))
        team = cls(groups, rank, world, store)
        store.set(_key("is", rank), f"process {os.getpid()} on {socket.gethostname()}")
        team._together(
            lambda: dist.init_process_group(
                "gloo", store=store, rank=rank, world_size=world, timeout=limit
            )
        )
        return team

    @property
    def alone(self) -> bool:
        """Whether there is nothing to add up."""
        return self.groups == 1

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes and prints."""
        return self.rank == 0

    def events_of(self, user: IntArray, rank: int | None = None) -> dict[int, IntArray]:
        """A rank's groups, and which of the events of these users they have: places, ascending. None: of this rank."""
        if self.alone:
            return {0: np.arange(len(user))}
        group = hashed(user.astype(np.int64), self.groups)
        each = self.groups // self.world
        first = each * (self.rank if rank is None else rank)
        return {number: np.flatnonzero(group == number) for number in range(first, first + each)}

    def places_of(self, user: IntArray) -> list[Tensor]:
        """Of every rank, which of the events of these users it has."""
        of_ranks = [self.events_of(user, rank) for rank in range(self.world)]
        return [torch.from_numpy(np.concatenate([*each.values()])) for each in of_ranks]

    def has(self, user: IntArray) -> npt.NDArray[np.bool_]:
        """Of each of these users, whether it is this rank's."""
        found = np.zeros(len(user), bool)
        for places in self.events_of(user).values():
            found[places] = True
        return found

    def exchange(self, values: Tensor, places: Sequence[Tensor]) -> None:
        """Fill in what others have found: ``values[places[r]]`` is rank r's."""
        if self.world == 1:
            return
        own = values.new_zeros(max(map(len, places)), *values.shape[1:])
        own[: len(places[self.rank])] = values[places[self.rank]]
        for place, found in zip(places, self._gathered(own), strict=True):
            values[place] = found[: len(place)]

    def add_gradients(
        self,
        weights: Sequence[Tensor],
        sparse: Sequence[bool],
        of_groups: Sequence[Sequence[Tensor | None]],
    ) -> None:
        """Make every weight's gradient the sum of all groups'.

        Args:
            weights: of the model, the same on every rank.
            sparse: whether a weight's gradient is of the rows that were read.
            of_groups: for each group of this rank, a gradient of every weight; None: all zeros.
        """
        dense = [i for i, rows in enumerate(sparse) if not rows]
        flat = self._sum(
            [_flat([weights[i] for i in dense], [g[i] for i in dense]) for g in of_groups]
        )
        for i, part in zip(dense, flat.split([weights[i].numel() for i in dense]), strict=True):
            weights[i].grad = part.view_as(weights[i])
        for i in (i for i, rows in enumerate(sparse) if rows):
            weights[i].grad = self._sum_of_rows(weights[i], [g[i] for g in of_groups])

    def from_first(self, make: Callable[[], Value]) -> Value:
        """What the first rank makes, on every rank."""
        made = [make() if self.first else None]
        if self.world > 1:
            self._together(lambda: dist.broadcast_object_list(made, 0))
        return made[0]  # type: ignore[return-value]

    def end(self) -> None:
        """Wait until all ranks are done."""
        if self.world > 1:
            self._together(dist.barrier)
            dist.destroy_process_group()

    def _sum(self, parts: list[Tensor]) -> Tensor:
        total = _tree(parts)
        if self.world == 1:
            return total
        if self.in_order:
            return _tree(self._gathered(total))
        self._together(lambda: dist.all_reduce(total))
        return total

    def _sum_of_rows(self, weight: Tensor, grads: Sequence[Tensor | None]) -> Tensor:
        """Group by group, each of which has a row once."""
        own = [_rows(weight, grad) for grad in grads]
        counts = self._gathered(torch.tensor([len(rows) for rows, _ in own]))
        total = torch.stack(counts).sum(1).tolist()
        rows, values = torch.cat([r for r, _ in own]), torch.cat([v for _, v in own])
        all_rows = [
            x[:n] for x, n in zip(self._gathered(_padded(rows, max(total))), total, strict=True)
        ]
        all_values = [
            x[:n] for x, n in zip(self._gathered(_padded(values, max(total))), total, strict=True)
        ]
        different, place = torch.cat(all_rows).unique(return_inverse=True)
        added = values.new_zeros(len(different), *values.shape[1:])
        sizes = torch.cat(counts).tolist()
        for at, found in zip(place.split(sizes), torch.cat(all_values).split(sizes), strict=True):
            added.index_add_(0, at, found)
        return torch.sparse_coo_tensor(different[None], added, weight.shape, is_coalesced=True)

    def _gathered(self, own: Tensor) -> list[Tensor]:
        """Every rank's tensor of this shape."""
        ranks = Ranks(None, self.rank, self.world)
        return list(self._together(lambda: ranks.gather(own)))

    def _together(self, call: Callable[[], Value]) -> Value:
        try:
            return call()
        except RuntimeError as error:
            raise RankFault(self._fault()) from error

    def _fault(self) -> str:
        """Who it was: whoever lives says so, and the others wait for it."""
        self.store.set(_key("lives", self.rank), "")
        silent = set(range(self.world)) - {self.rank}
        until = time.monotonic() + ANSWER_SECONDS
        while silent and time.monotonic() < until:
            silent = {rank for rank in silent if not self.store.check([_key("lives", rank)])}
            time.sleep(0.05)
        if not silent:
            return "the connection between ranks was lost"
        return f"{', '.join(map(self._name, sorted(silent)))} ended or does not answer"

    def _name(self, rank: int) -> str:
        known = self.store.check([_key("is", rank)])
        who = self.store.get(_key("is", rank)).decode() if known else "which never came"
        return f"rank {rank} ({who})"


def _key(what: str, rank: int) -> str:
    return f"longclock/{what}/{rank}"


def _flat(weights: Sequence[Tensor], grads: Sequence[Tensor | None]) -> Tensor:
    pairs = zip(weights, grads, strict=True)
    return torch.cat([(torch.zeros_like(w) if g is None else g).flatten() for w, g in pairs])


def _tree(parts: list[Tensor]) -> Tensor:
    """Their sum, in an order that pairs of neighbours have, pairs of pairs, and so on."""
    while len(parts) > 1:
        parts = [a + b for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def _rows(weight: Tensor, grad: Tensor | None) -> tuple[Tensor, Tensor]:
    """The rows of a gradient, each once, and their values; of a dense one, those that are not zero."""
    if grad is None:
        return weight.new_empty(0, dtype=torch.int64), weight.new_empty(0, *weight.shape[1:])
    if not grad.is_sparse:
        rows = grad.flatten(1).any(1).nonzero().flatten()
        return rows, grad[rows]
    grad = grad.coalesce()
    return grad.indices()[0], grad.values()


def _padded(x: Tensor, length: int) -> Tensor:
    return torch.cat([x, x.new_zeros(length - len(x), *x.shape[1:])])
