# SPDX-License-Identifier: Apache-2.0
"""A step of a ranker with the clock whose gradient is written out: PyTorch's operations without its autograd.

A step on some hundred candidates is operations on a few thousand numbers each: what autograd and modules do around them takes longer than
they do. Here every part of the ranker is run once and has its derivative beside it. Scores and gradients have the bits of
``Ranker.with_auxiliary`` and ``loss.backward()``, for operations are the same and sums are taken in the same order.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from longclock._clocks import periods_of
from longclock._library import raw
from longclock._torch_state import below_autograd
from longclock.data.stream import IntArray
from longclock.history import History
from longclock.history.windows import edges_of
from longclock.nn import LongTermInterestClock, TimeSimilarity
from longclock.train.batches import Batch, TrainingData
from longclock.train.ranker import Ranker, inverse_size, met_by, tower_features, whereabouts
from longclock.train.touched import Touched

aten: Any = torch.ops.aten


class TwoLayers:
    """A linear layer, ReLU and another linear layer."""

    def __init__(self, layers: nn.Sequential) -> None:
        self._first: Any = layers[0].weight, layers[0].bias
        self._second: Any = layers[2].weight, layers[2].bias

    def __call__(self, x: Tensor) -> Tensor:
        self._x = x
        (weight, bias), (last_weight, last_bias) = self._first, self._second
        self._hidden = torch.addmm(bias, x, weight.t()).relu_()
        return torch.addmm(last_bias, self._hidden, last_weight.t())

    def backward(self, grad: Tensor) -> Tensor:
        """The gradient of x."""
        inner = _through(self._second, self._hidden, grad)
        inner = aten.threshold_backward.default(inner, self._hidden, 0)
        return _through(self._first, self._x, inner)


def _through(layer: tuple[Tensor, Tensor], x: Tensor, grad: Tensor) -> Tensor:
    """Back through a linear layer of x, its weight and its bias."""
    weight, bias = layer
    weight.grad, bias.grad = grad.t().mm(x), grad.sum(0)
    return grad.mm(weight)


class ItemVectors:
    """:meth:`Ranker.item_table`."""

    def __init__(self, ranker: Ranker) -> None:
        self._scale, self._sparse = ranker.item_scale, ranker.sparse
        self._own, self._tables = ranker.item.weight, [_weight(table) for table in ranker.category]
        self._widths = [table.shape[1] for table in (self._own, *self._tables)]

    def __call__(self, ranker: Ranker, items: Tensor | None) -> Tensor:
        """Of some items, or of all."""
        self._rows, categories = ranker.item_rows(items)
        self._distinct = self._rows is items and not self._sparse
        self._parts = list(zip(self._tables, categories.unbind(), strict=True))
        own = self._own if self._rows is None else self._own.index_select(0, self._rows)
        parts = [table.index_select(0, ids) for table, ids in self._parts]
        self._whole = torch.cat([own, *parts], 1)
        if not self._scale:
            return self._whole
        self._inverse = inverse_size(self._whole)
        return _times(self._whole * self._inverse, self._scale)

    def backward(self, grad: Tensor) -> None:
        if self._scale:
            grad = _times(grad, self._scale)
            share = (grad * self._whole).sum(1, keepdim=True).mul_(-0.5).mul_(self._inverse.pow(3))
            share.div_(grad.shape[1])
            grad = grad.mul_(self._inverse).add_(share * (self._whole * 2.0))
        own, *others = grad.split_with_sizes(self._widths, 1)
        if self._rows is None:
            self._own.grad = own.contiguous()
        elif self._distinct:  # nothing is added up
            self._own.grad = torch.zeros_like(self._own).index_copy_(0, self._rows, own)
        else:
            self._own.grad = _rows_gradient(self._own, self._rows, own, self._sparse)
        for (table, ids), part in zip(self._parts, others, strict=True):
            table.grad = _rows_gradient(table, ids, part)


def _weight(table: Any) -> Tensor:
    weight: Tensor = table.weight
    return weight


def _times(x: Tensor, factor: float) -> Tensor:
    return x if factor == 1 else x * factor


def _rows_gradient(table: Tensor, ids: Tensor, grad: Tensor, sparse: bool = False) -> Tensor:
    """Of a table, from that of the rows that were looked up."""
    backward = aten.embedding_sparse_backward if sparse else aten.embedding_dense_backward
    found: Tensor = backward.default(grad, ids, table.shape[0], -1, False)
    return found


def latest(k: int, starts: IntArray, ends: IntArray) -> tuple[Tensor, Tensor]:
    """As :func:`longclock.nn.pooling.last_of` finds them, which must suit exports and therefore takes a matrix: positions of the last ``k``
    behaviours of every window, the latest first, and where those of each window begin."""
    counts = np.minimum(ends - starts, k)
    first = counts.cumsum() - counts
    index = (ends - 1 + first).repeat(counts)
    index -= np.arange(len(index))
    return torch.from_numpy(index), torch.from_numpy(first)


class Behaviours:
    """What :meth:`Ranker.behaviour_rows` gives, and the mean of the last of every window."""

    def __init__(self, ranker: Ranker) -> None:
        self._outcome, self._recent = ranker.outcome, ranker.recent
        self._width = ranker.candidate_dim

    def __call__(self, ranker: Ranker, vectors: Tensor, touched: Touched | None) -> Tensor:
        self._items = self._table = vectors
        if touched is not None:
            self._item, self._label = touched.kind_item, touched.kind_label
            self._table = ranker.behaviour_rows(vectors, self._item, self._label)
        return self._table

    def mean_of_last(self, history: History) -> Tensor:
        index, first = latest(self._recent, *(bound.numpy() for bound in edges_of(history)))
        ids = history.rows.ids.index_select(0, index)  # type: ignore[union-attr]
        mean, *more = aten._embedding_bag.default(self._table, ids, first, False, 1)
        self._bags = ids, first, *more
        return mean

    def backward(self, grad: Tensor, of_mean: Tensor) -> Tensor:
        """The gradient of the items' vectors, from that of the table by the attention, and of the means."""
        bags = aten._embedding_bag_backward.default(of_mean, *self._bags, self._table.shape[0], False, 1, False, None)  # fmt: skip
        grad = grad + bags
        if self._outcome is None:
            return grad
        own, ended = grad.split_with_sizes([self._width, grad.shape[1] - self._width], 1)
        assert self._item is not None
        assert self._label is not None
        self._outcome.weight.grad = _rows_gradient(self._outcome.weight, self._label, ended)
        return _rows_gradient(self._items, self._item, own)


class Attention:
    """A call of :class:`longclock.LongTermInterestClock`."""

    def __init__(self, clock: LongTermInterestClock) -> None:
        self._clock, self._head = clock, TwoLayers(clock.head)
        self._w_b, self._w_q, self._w_v = clock.w_b, clock.w_q, clock.w_v
        self._s, self._units = clock.time, list(clock.time.units)
        self._search, self._attend = (
            periods_of(clock._clocks_of(sees))
            for sees in (clock.search_sees_time, clock.attention_sees_time)
        )

    @staticmethod
    def takes(clock: Any) -> bool:
        """Whether it is a clock that searches by what it attends with, all heads and clocks having one kind of s."""
        return (
            isinstance(clock, LongTermInterestClock)
            and not _changed(type(clock))
            and clock.backend == "compiled"
            and clock.k is not None
            and clock.scoring == "folded"
            and not clock.searches_itself
            and isinstance(clock.time, TimeSimilarity)
            and len(set(clock.time.falls)) == 1
        )

    def __call__(self, candidate: Tensor, history: History, time: Tensor) -> tuple[Tensor, Tensor]:
        clock: Any = self._clock
        self._candidate, self._projection = candidate, self._w_q.flatten(0, 1)
        projected = candidate.mm(self._projection.t())
        self._of_heads = clock._of_heads(projected)
        u = torch.bmm(self._of_heads, self._w_b).transpose(0, 1)
        query, table, scale = clock._search_by(candidate, projected, u, history.table, None)
        weights, ids, when = self._s.mlp(), history.rows.ids, history.time  # type: ignore[union-attr]
        windows = (
            None, None, history.query_offsets, history.starts, history.ends, None, clock.exclude_future
        )  # fmt: skip
        found = raw.clock_gsu.default(
            query, table, when, time, *weights, ids, *windows, scale, self._search, self._units, None, None, None, None, clock.k
        )[1]  # fmt: skip
        positions, times = raw.esu_attention_positions.default(when, time, *windows, found)
        self._given = (u, table, ids, when, times, positions, *weights, None, self._attend, self._units, None, None)  # fmt: skip
        context, softmax = raw.esu_attention.default(*self._given, False)
        self._gave = context, softmax
        self._context = context.transpose(0, 1)
        each = torch.bmm(self._context, self._w_v).transpose(0, 1)
        return self._head(each.flatten(1)), context

    def backward(self, of_v: Tensor, of_met: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients of the candidates and of the table of behaviours; ``of_met`` is that of :func:`met_by`."""
        heads, _, dim = self._w_v.shape
        each = self._head.backward(of_v).view(-1, heads, dim).transpose(0, 1)
        self._w_v.grad = self._context.transpose(1, 2).bmm(each)
        of_context = each.bmm(self._w_v.transpose(1, 2)).transpose(0, 1).contiguous()
        of_context[..., : of_met.shape[1]].add_(of_met.div(heads).unsqueeze(1))

        learns = self._s.w1.requires_grad
        of_u, of_rows, *of_s = raw.esu_attention_backward.default(
            of_context, *self._given, *self._gave, True, True, learns
        )
        if learns:
            _teach(self._s, *of_s)
        _, table, ids, _, _, positions, *_ = self._given
        of_table = raw.esu_attention_table_grad.default(of_rows, ids, positions, None, table.shape[0])  # fmt: skip
        of_u = of_u.transpose(0, 1)
        self._w_b.grad = self._of_heads.transpose(1, 2).bmm(of_u)
        projected = of_u.bmm(self._w_b.transpose(1, 2)).transpose(0, 1).flatten(1)
        projected = projected.div_(math.sqrt(dim))
        self._w_q.grad = projected.t().mm(self._candidate).view_as(self._w_q)
        return projected.mm(self._projection), of_table


def _changed(kind: type) -> bool:
    """Whether a class computes something else than the clock: it has methods of its own besides those that make it."""
    above = kind.__mro__[: kind.__mro__.index(LongTermInterestClock)]
    own = {name: value for each in above for name, value in vars(each).items()}
    makes = {"__init__", "reset_parameters"}
    return any(name not in makes and (callable(value) or isinstance(value, property)) for name, value in own.items())  # fmt: skip


def _teach(s: Any, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> None:
    """Back through :meth:`TimeSimilarity.mlp`, from the gradients of what it gave."""
    if s.falls[0]:
        w1, w2 = w1.neg_().mul_(s.w1.sgn()), w2.mul_(s.w2.sgn())
    s.w1.grad, s.b1.grad, s.w2.grad, s.b2.grad = w1, b1, w2, b2


class Parts(NamedTuple):
    """What the tower reads of every candidate, or the gradients of that."""

    user: Tensor
    candidate: Tensor
    recent: Tensor
    v: Tensor
    of_v: Tensor  # candidate * v
    of_met: Tensor  # candidate * met


class ClockStep:
    """The passes of a ranker over the candidates of batches, on the CPU: their scores, and what is learned from them."""

    def __init__(self, ranker: Ranker) -> None:
        self._user, self._sparse = ranker.user.weight, ranker.sparse
        self._items, self._behaviours = ItemVectors(ranker), Behaviours(ranker)
        self._attention: Attention = Attention(ranker.interest)  # type: ignore[arg-type]
        self._tower = TwoLayers(ranker.tower)

    @classmethod
    def of(cls, ranker: Ranker, data: TrainingData) -> ClockStep | None:
        """That of a ranker; None where it takes autograd."""
        if data.device.type != "cpu":
            return None
        if ranker.clock_step is None:
            takes = not ranker.search_loss and Attention.takes(ranker.interest)
            ranker.clock_step = cls(ranker) if takes else False
        return ranker.clock_step or None

    def scores(self, ranker: Ranker, batch: Batch, data: TrainingData) -> Tensor | None:
        """Logit of every candidate, ``[R]``; None where the batch takes autograd."""
        with below_autograd():
            return self._forward(ranker, batch, data)

    def _forward(self, ranker: Ranker, batch: Batch, data: TrainingData) -> Tensor | None:
        touched = data.touched(batch)
        if touched is None and ranker.outcome is not None:
            return None
        there = whereabouts(batch, data, touched)
        self._at = there.candidate
        items = None if touched is None else touched.items
        self._vectors = vectors = self._items(ranker, items)
        history = there.history(self._behaviours(ranker, vectors, touched), batch)
        mean = self._behaviours.mean_of_last(history)
        self._candidate = candidate = vectors.index_select(0, self._at)
        self._v, context = self._attention(candidate, history, batch.time)
        self._met = met_by(candidate, context)
        user = self._user.index_select(0, batch.user)
        of_user, recent = user.index_select(0, batch.event), mean.index_select(0, batch.event)
        features = tower_features(of_user, candidate, recent, self._v, self._met)
        self._widths = [part.shape[1] for part in features]
        if ranker.reads_outcomes:
            features.append(data.outcomes[batch.number[batch.event]])
        return self._tower(torch.cat(features, 1)).squeeze(1)

    def learn(self, ranker: Ranker, batch: Batch, data: TrainingData, rows: int) -> Tensor | None:
        """Gives every weight its gradient of binary cross-entropy, meaned over all ``rows`` candidates of a step; returns the logits."""
        with below_autograd():
            logits = self._forward(ranker, batch, data)
            if logits is None:
                return None
            wrong = logits.sigmoid().sub_(batch.label)
            if len(logits) < rows:
                wrong.mul_(len(logits) / rows)
            self._backward(batch, self._tower.backward(wrong.div_(len(logits)).unsqueeze(1)))
            return logits

    def _backward(self, batch: Batch, grad: Tensor) -> None:
        """From the gradient of what the tower reads."""
        candidate = self._candidate
        widths, others = self._widths, grad.shape[1] - sum(self._widths)
        of = Parts(*grad.split_with_sizes([*widths, others], 1)[: len(widths)])
        of_v = of.v + of.of_v * candidate
        own, of_table = self._attention.backward(of_v, of.of_met * candidate)
        of_candidate = (of.of_met * self._met).add_(of.candidate)
        of_candidate.add_(of.of_v * self._v).add_(own)

        # Of user and recent behaviours, which the candidates of an event share; what lies between them is left.
        wide = sum(widths[:3])
        of_event = grad.new_zeros(batch.user.shape[0], wide).index_add_(
            0, batch.event, grad[:, :wide]
        )
        of_user, _, of_mean = of_event.split_with_sizes(widths[:3], 1)
        self._user.grad = _rows_gradient(self._user, batch.user, of_user, self._sparse)
        of_items = self._behaviours.backward(of_table, of_mean)
        of_items.add_(_rows_gradient(self._vectors, self._at, of_candidate))
        self._items.backward(of_items)
