# SPDX-License-Identifier: Apache-2.0
"""Ranks the candidates of a request by the current version of a model and the user's stored history."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from longclock.data.stream import DAY
from longclock.ops._errors import check_size
from longclock.serve import model_folder
from longclock.serve.ranking_model import DTYPES, QUERY_DTYPES, Scoring, Served
from longclock.store import Behaviours, BehaviourStore
from longclock.store.records import User

OFFSET = "utc_offset"  # the column that says how far the clock of a behaviour's place is ahead


class Request(NamedTuple):
    """One request.

    - ``user``: as the store knows the user.
    - ``candidates``: int64 [C], items.
    - ``now``: seconds; only behaviours before it count.
    - ``utc_offset``: seconds by which the clock where the user is is ahead of ``now``; behaviours have theirs in the store's
      column of this name.

    Example::

        >>> import torch
        >>> from longclock.serve import Request
        >>> Request("ada", torch.tensor([3, 5]), now=1_700_000_000).utc_offset
        0
    """

    user: User
    candidates: Tensor
    now: int
    utc_offset: int = 0


class Ranking(NamedTuple):
    """Candidates, best first: their items, int64 [top], and scores, float32 [top]; the version of the model that ranked them.

    Example::

        >>> import torch
        >>> from longclock.serve import Ranking
        >>> Ranking(torch.tensor([5, 3]), torch.tensor([1.5, -0.5]), "0001-9f3c2a7d").items.tolist()
        [5, 3]
    """

    items: Tensor
    scores: Tensor
    version: str


class Recommender:
    """A model in a folder and the histories in a store, together what answers requests.

    A request is answered by one version, the one that was current when it began, whatever is switched meanwhile. Threads may
    call it at one time.

    A user whom the store does not know has an empty history; one whom the model does not know, the mean of its users' vectors.
    Behaviours with items that the model does not know are left out. A candidate that it does not know has a score of -inf and
    comes behind all others. Equal scores are in the order of the candidates.

    Args:
        folder: of :mod:`longclock.export`.
        store: of histories; with a column ``label`` for a model of a stream with labels, and ``utc_offset`` where times of
            day are local.
        scoring: "folded", or "precomputed": projections of all items' rows are made once a version, and the search compares
            them. The same ranking, of int8 all but the same.
        dtype: "fp32" or "bf16", of the table of behaviours that search and attention read; or "int8": the search reads rows in
            bytes (:func:`longclock.quantize_rows`), made once a version beside the table in fp32, which the attention reads. For
            models that search by dot products.
        query_dtype: of int8, to what the search rounds its queries: "fp32", "bf16" or "int8"; None: "int8", the fastest.
        device: of the model.
    Raises:
        ModelFolderError: there is no model, or a damaged one.
        ValueError: an argument that does not fit, also the model; a store without a column that the model reads.

    Example::

        >>> import torch
        >>> from pathlib import Path
        >>> from longclock.export import export
        >>> from longclock.serve import Recommender
        >>> from longclock.store import SQLiteStore
        >>> from longclock.train.cli import main as train
        >>> train("--data nyc --days 2 --models lic --out run --quiet".split())
        model...
        0
        >>> version = export(Path("run/checkpoints/lic.safetensors"), Path("model"))
        >>> store = SQLiteStore("histories.db")
        >>> store.append("ada", item=3, time=1_333_400_000)
        True
        >>> recommender = Recommender("model", store)
        >>> ranking = recommender.rank("ada", torch.arange(500), now=1_333_500_000, top=50)
        >>> ranking.items.shape, ranking.version == version
        (torch.Size([50]), True)
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        store: BehaviourStore,
        *,
        scoring: Scoring = "folded",
        dtype: str = "fp32",
        query_dtype: str | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if scoring not in ("folded", "precomputed"):
            raise ValueError(
                f"Recommender: scoring must be 'folded' or 'precomputed', got {scoring!r}"
            )
        _check_dtypes(dtype, query_dtype)
        self.folder, self.store = Path(folder), store
        rounded = QUERY_DTYPES[query_dtype or "int8"]
        self._of_version = scoring, DTYPES[dtype], torch.device(device), rounded
        self._switching = threading.Lock()
        self._served = self._read(None)

    @property
    def version(self) -> str:
        """That which the next request is answered by."""
        return self._served.version

    @property
    def items(self) -> int:
        """How many items that one knows, by number from 0."""
        return self._served.catalogue.items

    def refresh(self) -> bool:
        """Switch to the folder's current version, if it is another; requests go on meanwhile. Returns whether it was.

        Raises:
            ModelFolderError: it cannot be read; the version before stays.
        """
        with self._switching:
            name = model_folder.current(self.folder)
            if name == self._served.version:
                return False
            self._served = self._read(name)
        return True

    def rank(
        self,
        user: User,
        candidates: Tensor | Sequence[int],
        now: int,
        top: int | None = None,
        *,
        utc_offset: int = 0,
    ) -> Ranking:
        """The candidates of one request, best first.

        Args:
            user, now, utc_offset: as of :class:`Request`.
            candidates: items, int64 [C].
            top: how many are wanted; None: all.
        Raises:
            ValueError: an argument that does not fit; the message names it.
            DamagedHistoryError: the store cannot read the user's history.
        """
        return self.rank_many([Request(user, torch.as_tensor(candidates), now, utc_offset)], top)[0]

    @torch.inference_mode()
    def rank_many(self, requests: Sequence[Request], top: int | None = None) -> list[Ranking]:
        """The same of several requests, by one version and in one call of the model.

        One request is as fast by itself on a CPU; on a GPU several together are faster.
        """
        if top is not None:
            check_size("Recommender.rank", "top", top, 1)
        served = self._served
        for request in requests:
            _check(request)
        if not requests:
            return []
        asked = [_Asked(served, self.store, request) for request in requests]
        logits = served.model(*_together(served, asked))
        scores = logits.split([len(each.rows) for each in asked])
        return [each.ranked(score.cpu(), top) for each, score in zip(asked, scores, strict=True)]

    def _read(self, name: str | None) -> Served:
        served = Served.of(model_folder.read(self.folder, name), *self._of_version)
        if served.catalogue.labelled and "label" not in self.store.columns:
            raise ValueError(
                "Recommender: store must have the column 'label', which the model reads, got "
                f"{', '.join(self.store.columns) or 'none'}; make the store with columns={{'label': 'int8'}}"
            )
        return served


class _Asked:
    """What the model takes of one request."""

    def __init__(self, served: Served, store: BehaviourStore, request: Request) -> None:
        self._served, self.candidates = served, request.candidates.cpu()
        catalogue, config = served.catalogue, served.config
        self._now = request.now
        self.known = _within(self.candidates, catalogue.items)
        self.rows = self.candidates if self.known is None else self.candidates[self.known]
        seen = store.get(request.user, before=request.now - config.history_delay)
        seen = _newest(seen, config.history, config.history_days, request.now)
        of_model = _within(seen.item, catalogue.items)
        self.seen = seen if of_model is None else _some(seen, of_model)
        user = request.user
        row = user if isinstance(user, int) and 0 <= user < catalogue.users else catalogue.users
        self.user, self.time = row, request.now + request.utc_offset
        self.behaviour_time = self.seen.time
        if OFFSET in self.seen.columns:
            self.behaviour_time = self.seen.time + self.seen.columns[OFFSET]
        self.behaviour = self.seen.item
        if catalogue.labelled:
            self.behaviour = self.behaviour + catalogue.items * self.seen.columns["label"].long()

    def outcomes(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Of every candidate that the model knows."""
        counts, categories = self._served.outcomes, self._served.catalogue.categories
        assert counts is not None
        candidates, items = self.rows.numpy(), self.seen.item.numpy()
        fields = [(candidates, items)] + [
            (ids[candidates], ids[items]) for ids in categories.values()
        ]
        of_candidates, of_user = zip(*fields, strict=True)
        label = self.seen.columns["label"].numpy().astype(np.int64)
        return counts.columns(of_candidates, of_user, label, self.seen.time.numpy(), self._now)

    def ranked(self, scores: Tensor, top: int | None) -> Ranking:
        if self.known is not None:
            of_known, scores = scores, torch.full(self.candidates.shape, -torch.inf)
            scores[self.known] = of_known
        scores, order = scores.sort(descending=True, stable=True)
        return Ranking(self.candidates[order[:top]], scores[:top], self._served.version)


def _together(served: Served, asked: list[_Asked]) -> tuple[Tensor | None, ...]:
    """The arguments of :class:`RankingModel` for all of them."""
    device = served.model.items.device

    def counted(sizes: list[int]) -> Tensor:
        return torch.tensor(list(itertools.accumulate(sizes)))

    outcomes = None
    if served.outcomes is not None:
        outcomes = torch.from_numpy(np.concatenate([each.outcomes() for each in asked]))
    arguments = (
        torch.tensor([each.user for each in asked]),
        _joined([each.rows for each in asked]),
        _joined([each.behaviour for each in asked]),
        _joined([each.behaviour_time for each in asked]),
        counted([len(each.behaviour) for each in asked]),
        counted([0, *(len(each.rows) for each in asked)]),
        torch.tensor([each.time for each in asked]),
        outcomes,
    )
    return tuple(x if x is None else x.to(device) for x in arguments)


def _within(items: Tensor, count: int) -> Tensor | None:
    """Which are from 0 to ``count`` - 1; None: all."""
    if not len(items):
        return None
    least, most = items.aminmax()
    return None if least >= 0 and most < count else (items >= 0) & (items < count)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _newest(seen: Behaviours, longest: int | None, days: int, now: int) -> Behaviours:
    """What the windows of training hold of it."""
    first = 0 if not days else int(torch.searchsorted(seen.time, now - days * DAY))
    if longest is not None:
        first = max(first, len(seen.time) - longest)
    return seen if first <= 0 else _some(seen, slice(first, None))


def _some(seen: Behaviours, which: Any) -> Behaviours:
    columns = {name: values[which] for name, values in seen.columns.items()}
    return Behaviours(seen.item[which], seen.time[which], columns)


def _check_dtypes(dtype: str, query_dtype: str | None) -> None:
    op = "Recommender"
    if dtype not in DTYPES:
        raise ValueError(f"{op}: dtype must be {', '.join(DTYPES)}, got {dtype!r}")
    if query_dtype is not None and dtype != "int8":
        raise ValueError(
            f"{op}: query_dtype must be None for dtype {dtype!r}, got {query_dtype!r}; a query is rounded to its rows' dtype"
        )
    if query_dtype is not None and query_dtype not in QUERY_DTYPES:
        raise ValueError(
            f"{op}: query_dtype must be {', '.join(QUERY_DTYPES)} or None, got {query_dtype!r}"
        )


def _check(request: Request) -> None:
    op = "Recommender.rank"
    candidates = request.candidates
    if candidates.dim() != 1 or candidates.is_floating_point() or candidates.dtype == torch.bool:
        raise ValueError(
            f"{op}: candidates must be integers [C], got {candidates.dtype} {list(candidates.shape)}"
        )
    for name, value in (("now", request.now), ("utc_offset", request.utc_offset)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{op}: {name} must be an int of seconds, got {value!r}")
