# SPDX-License-Identifier: Apache-2.0
"""Prequential training: everything is scored before it is learned from, and learned from once."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from longclock.data import EventStream
from longclock.data.stream import DAY, IntArray
from longclock.nn import parameter_groups
from longclock.train.batches import Batch, TrainingData
from longclock.train.config import EMBEDDING_OPTIMIZERS, OPTIMIZERS, Config, Model
from longclock.train.counting import CountingRanker
from longclock.train.ranker import Ranker

SCORING_EVENTS = 256  # events a forward pass when nothing is learned
SPANS = {
    "daily": DAY,
    "hourly": 3600,
}  # seconds of the stream that are scored together, then learned from


@dataclasses.dataclass
class Run:
    """One model on its way through a stream: all that a checkpoint has to hold.

    ``chunk`` is the stream position: chunks before it have been scored and learned from. ``scores`` [R]
    are logits, NaN where not scored yet. A run whose scores are no longer finite has diverged: it ends there.
    """

    ranker: Ranker | CountingRanker
    optimizer: torch.optim.Optimizer
    scores: Tensor
    embedding_optimizer: torch.optim.Optimizer | None = None  # where it is another
    chunk: int = 0
    seconds: float = 0.0

    @classmethod
    def start(cls, data: TrainingData, model: Model, config: Config) -> Run:
        """A new model at the start of the stream; its weights depend on the seed alone."""
        torch.manual_seed(config.seed)
        if model.counts is not None:
            ranker: Ranker | CountingRanker = CountingRanker(model.counts, config.period)
        else:
            ranker = Ranker(data.catalogue, model, config)
        groups = parameter_groups(ranker, config.learning_rate, config.dense_share)
        of_embeddings = None
        if config.embedding_optimizer and len(groups) == 2:
            kind, factor = EMBEDDING_OPTIMIZERS[config.embedding_optimizer]
            of_embeddings = kind(groups.pop(0)["params"], lr=factor * config.learning_rate)
        optimizer = OPTIMIZERS[config.optimizer](groups)
        scores = torch.full((len(data.candidates.item),), torch.nan)
        return cls(ranker, optimizer, scores, of_embeddings)

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """All of them, that of embeddings last."""
        return [one for one in (self.optimizer, self.embedding_optimizer) if one is not None]

    def diverged_at(self, data: TrainingData, parts: list[IntArray]) -> int | None:
        """The first event whose scores are not finite, of those that have been scored."""
        last = int(parts[self.chunk - 1][-1]) if self.chunk else -1
        wrong = ~self.scores[: int(data.candidates.first_row[last + 1])].isfinite()
        return int(data.candidates.event[int(wrong.int().argmax())]) if wrong.any() else None


def chunks(stream: EventStream, config: Config) -> list[IntArray]:
    """Events that are scored together before any of them is learned from, in stream order.

    A day for the ``daily`` protocol, an hour for ``hourly``, one batch for ``stream``.
    """
    events = np.arange(len(stream))
    if config.protocol == "stream":
        parts = np.split(events, events[config.batch :: config.batch])
    elif config.protocol in SPANS:
        span = stream.order_time // SPANS[config.protocol]
        parts = np.split(events, np.flatnonzero(np.diff(span)) + 1)
    else:
        raise ValueError(
            f"protocol must be one of {', '.join((*SPANS, 'stream'))}, got {config.protocol!r}"
        )
    return [part for part in parts if len(part)]


def train(
    run: Run, data: TrainingData, config: Config, after_chunk: Callable[[Run, int], None]
) -> None:
    """Carry ``run`` to the end of the stream, or to where it diverges; ``after_chunk(run, events)`` after every chunk."""
    parts = chunks(data.stream, config)
    if run.diverged_at(data, parts) is not None:
        return
    for events in parts[: run.chunk]:  # what a resumed run has seen
        observe(run.ranker, data, events)
    for events in parts[run.chunk :]:
        started = time.perf_counter()
        rows = torch.from_numpy(data.candidates.rows(events))
        if events[-1] >= config.learn_until * len(data.stream):
            run.scores[rows] = score(run.ranker, data, events)
        elif config.protocol == "stream":
            run.scores[rows] = learn(run, data, data.batch(events))
        else:
            run.scores[rows] = score(run.ranker, data, events)
            shuffled = np.random.default_rng([config.seed, run.chunk]).permutation(events)
            for batch in np.array_split(shuffled, -(-len(events) // config.batch)):
                learn(run, data, data.batch(batch))
        observe(run.ranker, data, events)
        run.chunk += 1
        run.seconds += time.perf_counter() - started
        after_chunk(run, len(events))
        if not run.scores[rows].isfinite().all():
            return


def observe(ranker: Ranker | CountingRanker, data: TrainingData, events: IntArray) -> None:
    """Tells the interest module what users took, once it has been scored."""
    stream = data.stream
    taken = events if stream.label is None else events[stream.label[events] == 1]
    user, item, time = (
        torch.from_numpy(column[taken]) for column in (stream.user, stream.item, stream.time)
    )
    ranker.interest.observe(user, item, time)


@torch.no_grad()
def score(ranker: Ranker | CountingRanker, data: TrainingData, events: IntArray) -> Tensor:
    """Logits of all candidates of the events."""
    parts = np.split(events, range(SCORING_EVENTS, len(events), SCORING_EVENTS))
    return torch.cat([ranker(data.batch(part), data) for part in parts])


def learn(run: Run, data: TrainingData, batch: Batch) -> Tensor:
    """One step of binary cross-entropy; returns the logits from before it."""
    assert isinstance(run.ranker, Ranker)  # what counts is never asked to learn
    logits, auxiliary, search = run.ranker.with_auxiliary(batch, data)
    loss = F.binary_cross_entropy_with_logits(logits, batch.label)
    if auxiliary is not None:
        loss = loss + F.binary_cross_entropy_with_logits(auxiliary, batch.label)
    if search is not None:
        loss = loss + search
    for optimizer in run.optimizers:
        optimizer.zero_grad()
    loss.backward()
    for optimizer in run.optimizers:
        optimizer.step()
    return logits.detach()
