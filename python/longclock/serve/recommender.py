# SPDX-License-Identifier: Apache-2.0
"""Ranks the candidates of a request by the current version of a model and the user's stored history."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from longclock._keywords import named_keywords
from longclock._sizes import check_size
from longclock.serve import model_folder
from longclock.serve.asked import Asked, Request, together
from longclock.serve.ranking_model import DTYPES, QUERY_DTYPES, Scoring, Served
from longclock.store import BehaviourStore
from longclock.store.records import User


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
        store: of histories, whose items are the same ids; with a column ``label`` for a model of a stream with labels, and ``utc_offset`` where times of
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

    @named_keywords()
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
    def served(self) -> Served:
        """That version: what the next request is answered with."""
        return self._served

    @property
    def items(self) -> int:
        """Rows of that one's table of items."""
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
            candidates: ids of items, int64 [C], as of :class:`Request`.
            top: how many are wanted; None: all.
        Raises:
            ValueError: an argument that does not fit; the message names it.
            DamagedHistoryError: the store cannot read the user's history.
        """
        return self.rank_many([Request(user, torch.as_tensor(candidates), now, utc_offset)], top)[0]

    def rank_many(self, requests: Sequence[Request], top: int | None = None) -> list[Ranking]:
        """The same of several requests, by one version and in one call of the model.

        One request is as fast by itself on a CPU; on a GPU several together are faster.
        """
        return ranked(self._served, self.store, requests, top)

    def _read(self, name: str | None) -> Served:
        served = Served.of(model_folder.read(self.folder, name), *self._of_version)
        if served.catalogue.labelled and "label" not in self.store.columns:
            raise ValueError(
                "Recommender: store must have the column 'label', which the model reads, got "
                f"{', '.join(self.store.columns) or 'none'}; make the store with columns={{'label': 'int8'}}"
            )
        return served


@torch.inference_mode()
def ranked(
    served: Served, store: BehaviourStore, requests: Sequence[Request], top: int | None = None
) -> list[Ranking]:
    """What :meth:`Recommender.rank_many` answers by this version."""
    if top is not None:
        check_size("Recommender.rank", "top", top, 1)
    for request in requests:
        _check(request)
    if not requests:
        return []
    asked = [Asked(served, store, request) for request in requests]
    logits = served.model(*together(served, asked))
    scores = logits.split([len(each.rows) for each in asked])
    rankings = []
    for each, of_known in zip(asked, scores, strict=True):
        score, order = each.of_all(of_known.cpu()).sort(descending=True, stable=True)
        rankings.append(Ranking(each.candidates[order[:top]], score[:top], served.version))
    return rankings


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
