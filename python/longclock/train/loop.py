# SPDX-License-Identifier: Apache-2.0
"""Prequential training: everything is scored before it is learned from, and learned from once."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from longclock.data import Catalogue, EventStream
from longclock.data.stream import IntArray
from longclock.nn import parameter_groups
from longclock.optim import LazyAdam, RowWiseAdagrad
from longclock.train.adam import Adam
from longclock.train.batches import TrainingData
from longclock.train.clock_step import ClockStep
from longclock.train.config import SPANS, Config, Model
from longclock.train.counting import CountingRanker
from longclock.train.ranker import Ranker
from longclock.train.team import Team

Found: TypeAlias = list[
    tuple[IntArray, Tensor]
]  # events of a group, and the logits of their candidates
SCORING_EVENTS = 256  # events a forward pass when nothing is learned
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": Adam,
    "adagrad": partial(torch.optim.Adagrad, fused=True),
    "sgd": partial(torch.optim.SGD, fused=True),
}
# Of embeddings besides, and what they multiply the learning rate by: the steps of row-wise Adagrad shrink.
EMBEDDING_OPTIMIZERS: dict[str, tuple[Callable[..., torch.optim.Optimizer], float]] = {
    "lazy-adam": (LazyAdam, 1.0),
    "rowwise-adagrad": (RowWiseAdagrad, 10.0),
}


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
        return cls.new(data.catalogue, model, config, data.device, len(data.candidates.item))

    @classmethod
    def new(
        cls,
        catalogue: Catalogue,
        model: Model,
        config: Config,
        device: torch.device,
        rows: int = 0,
    ) -> Run:
        """The same for a catalogue, and so many candidates."""
        torch.manual_seed(config.seed)
        if model.counts is not None:
            ranker: Ranker | CountingRanker = CountingRanker(model.counts, config.period)
        else:
            ranker = Ranker(catalogue, model, config)
        ranker.to(device)
        groups = parameter_groups(ranker, config.learning_rate, config.dense_share)
        of_embeddings = None
        if config.embedding_optimizer and len(groups) == 2:
            kind, factor = EMBEDDING_OPTIMIZERS[config.embedding_optimizer]
            of_embeddings = kind(groups.pop(0)["params"], lr=factor * config.learning_rate)
        optimizer = OPTIMIZERS[config.optimizer](groups)
        return cls(ranker, optimizer, torch.full((rows,), torch.nan), of_embeddings)

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """All of them, that of embeddings last."""
        return [one for one in (self.optimizer, self.embedding_optimizer) if one is not None]

    @property
    def weights(self) -> tuple[list[Tensor], list[bool]]:
        """All that learns, and whether its optimizer takes the rows that have a gradient alone."""
        found = [
            (weight, optimizer is self.embedding_optimizer)
            for optimizer in self.optimizers
            for group in optimizer.param_groups
            for weight in group["params"]
        ]
        return [weight for weight, _ in found], [rows for _, rows in found]

    def diverged_at(self, data: TrainingData, parts: list[IntArray]) -> int | None:
        """The first event whose scores are not finite, of those that have been scored."""
        last = int(parts[self.chunk - 1][-1]) if self.chunk else -1
        wrong = ~self.scores[: int(data.candidates.first_row[last + 1])].isfinite()
        return int(data.candidates.event[int(wrong.int().argmax())]) if wrong.any() else None


def chunks(stream: EventStream, config: Config) -> list[IntArray]:
    """Events that are scored together before any of them is learned from, in stream order.

    A day for the ``daily`` protocol, an hour for ``hourly``, one batch for ``stream``.
    """
    ends = chunk_ends(stream.order_time, config)
    return [part for part in np.split(np.arange(len(stream)), ends) if len(part)]


def chunk_ends(order_time: IntArray, config: Config) -> IntArray:
    """Where the chunks of events end; where the last one does only if nothing can be added to it."""
    if config.protocol == "stream":
        return np.arange(config.batch, len(order_time) + 1, config.batch)
    if config.protocol in SPANS:
        return np.flatnonzero(np.diff(order_time // SPANS[config.protocol])) + 1
    raise ValueError(
        f"protocol must be one of {', '.join((*SPANS, 'stream'))}, got {config.protocol!r}"
    )


def train(
    run: Run,
    data: TrainingData,
    config: Config,
    after_chunk: Callable[[Run, int], None],
    team: Team | None = None,
) -> None:
    """Carry ``run`` to the end of the stream, or to where it diverges; ``after_chunk(run, events)`` after every chunk.

    Args:
        team: the processes that train it together; None: this one alone.
    """
    team = team or Team()
    parts = chunks(data.stream, config)
    if run.diverged_at(data, parts) is not None:
        return
    for events in parts[: run.chunk]:  # what a resumed run has seen
        observe(run.ranker, data, events)
    for events in parts[run.chunk :]:
        learns = events[-1] < config.learn_until * len(data.stream)
        carry(run, data, events, config, learns, team)
        after_chunk(run, len(events))
        if not finite(run, data, events):
            return


def carry(
    run: Run, data: TrainingData, events: IntArray, config: Config, learns: bool, team: Team
) -> None:
    """One chunk: its events are scored, and learned from if the run still learns."""
    started = time.perf_counter()
    if learns and config.protocol == "stream":
        _keep(run, data, events, learn(run, data, events, config.seed, team), team)
    else:
        _keep(run, data, events, scored(run, data, events, team), team)
    if learns and config.protocol != "stream":
        shuffled = np.random.default_rng([config.seed, run.chunk]).permutation(events)
        for batch in np.array_split(shuffled, -(-len(events) // config.batch)):
            learn(run, data, batch, config.seed, team)
    observe(run.ranker, data, events)
    run.chunk += 1
    run.seconds += time.perf_counter() - started


def finite(run: Run, data: TrainingData, events: IntArray) -> bool:
    """Whether all scores of a chunk are."""
    first, end = data.candidates.first_row[[events[0], events[-1] + 1]]  # one behind the other
    return bool(run.scores[first:end].isfinite().all())


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
    return torch.cat([_scores(ranker, data, part) for part in parts])


def _scores(ranker: Ranker | CountingRanker, data: TrainingData, events: IntArray) -> Tensor:
    batch, found = data.batch(events), None
    if isinstance(ranker, Ranker) and (step := ClockStep.of(ranker, data)):
        found = step.scores(ranker, batch, data)
    logits: Tensor = ranker(batch, data) if found is None else found
    return logits


def scored(run: Run, data: TrainingData, events: IntArray, team: Team) -> Found:
    """Logits of the candidates of this rank's events."""
    groups = [events[places] for places in team.events_of(data.stream.user[events]).values()]
    return [(own, score(run.ranker, data, own)) for own in groups if len(own)]


def learn(run: Run, data: TrainingData, events: IntArray, seed: int, team: Team) -> Found:
    """One step of all ranks; returns the logits from before it, of the candidates of this rank's events."""
    first_row = data.candidates.first_row
    rows = int((first_row[events + 1] - first_row[events]).sum())
    weights, sparse = ([], []) if team.alone else run.weights
    # A checkpoint has the state of the CPU's draws alone.
    drawn_anew = not team.alone or data.device.type != "cpu"
    found: Found = []
    gradients = []
    for group, places in team.events_of(data.stream.user[events]).items():
        own = events[places]
        _forget_gradients(run)
        if len(own):
            with (
                _draws(seed, data.before + int(events[0]), group)
                if drawn_anew
                else contextlib.nullcontext()
            ):
                found.append((own, _backward(run, data, own, rows)))
        gradients.append([weight.grad for weight in weights])
    if not team.alone:
        team.add_gradients(weights, sparse, gradients)
    for optimizer in run.optimizers:
        optimizer.step()
    return found


def _forget_gradients(run: Run) -> None:
    """As ``zero_grad`` of every optimizer, without its record for profilers, which takes longer than this does."""
    for optimizer in run.optimizers:
        for group in optimizer.param_groups:
            for weight in group["params"]:
                weight.grad = None


@contextlib.contextmanager
def _draws(seed: int, event: int, group: int) -> Iterator[None]:
    """What is drawn at random for a group depends on the step and the group, not on what was drawn before, or where."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence([seed, event, group]).generate_state(1)[0]))
        yield


def _backward(run: Run, data: TrainingData, events: IntArray, rows: int) -> Tensor:
    """The gradient of binary cross-entropy, meaned over all ``rows`` candidates of a step; returns the logits."""
    assert isinstance(run.ranker, Ranker)  # what counts is never asked to learn
    batch, step = data.batch(events), ClockStep.of(run.ranker, data)
    if step is not None:
        learned = step.learn(run.ranker, batch, data, rows)
        if learned is not None:
            return learned
    logits, auxiliary, search = run.ranker.with_auxiliary(batch, data)
    label = batch.label.to(logits.device)
    loss = F.binary_cross_entropy_with_logits(logits, label)
    if auxiliary is not None:
        loss = loss + F.binary_cross_entropy_with_logits(auxiliary, label)
    if search is not None:
        loss = loss + search
    if len(logits) < rows:
        loss = loss * (len(logits) / rows)
    loss.backward()
    return logits.detach()


def _keep(run: Run, data: TrainingData, events: IntArray, found: Found, team: Team) -> None:
    """The scores of all candidates of the events, whichever rank has found them."""

    def rows(own: IntArray) -> Tensor:
        return torch.from_numpy(data.candidates.rows(own))

    for own, logits in found:
        run.scores[rows(own)] = logits.cpu()
    if team.world > 1:
        places = team.places_of(data.stream.user[events])
        team.exchange(run.scores, [rows(events[place.numpy()]) for place in places])
