# SPDX-License-Identifier: Apache-2.0
"""The trained ranking model as requests need it: tables of finished vectors, the interest module, the tower."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import longclock
from longclock.data import Catalogue, OutcomeCounts
from longclock.data.numbering import Numbering
from longclock.history import History
from longclock.nn import InterestModule, LongTermInterestClock
from longclock.nn.pooling import mean_of_last
from longclock.ops._shapes import MAX_INT8_DIM
from longclock.quantize import quantize_rows
from longclock.serve import settings
from longclock.serve.model_folder import ModelFolderError, Version
from longclock.train.checkpoint import (
    ROWS,
    Trained,
    categories_of,
    numberings_of,
    of_kind,
    outcomes_of,
    tensors_of_ids,
)
from longclock.train.config import MODELS, Config
from longclock.train.ranker import Ranker, met_by, new_tower, tower_features
from longclock.types import Lookup, QuantizedRows

Scoring = Literal["folded", "precomputed"]
DTYPES = {name: getattr(torch, theirs) for name, theirs in settings.DTYPES.items()}
QUERY_DTYPES = settings.DTYPES


class RankingModel(nn.Module):
    """Scores the candidates of requests, as the ranker that was trained does: the same bits on a CPU for fp32 tables.

    Args:
        items: [N, candidate_dim], the vector of every item.
        behaviours: [N, behaviour_dim], or [2 N, behaviour_dim] of a stream with labels: those of label 0 first.
        users: [U + 1, width]; the last row is the mean of the others and stands for whoever is not known.
        interest, tower: as trained.
        recent: behaviours in the plain mean that the tower reads.
        scoring: "precomputed" compares projections of the behaviours, which are made here, once: the same ranking.
        query_dtype: the search reads its rows in bytes, which are made here as well, and rounds queries to this, as
            :func:`longclock.clock_gsu` does. None: it reads them as they are.
    """

    items: Tensor
    behaviours: Tensor
    users: Tensor
    keys: Tensor | None
    key_scale: Tensor | None

    def __init__(
        self, items: Tensor, behaviours: Tensor, users: Tensor, interest: InterestModule, tower: nn.Module,
        recent: int, scoring: Scoring = "folded", query_dtype: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.interest, self.tower, self.recent = interest, tower, recent
        for name, table in (("items", items), ("behaviours", behaviours), ("users", users)):
            self.register_buffer(name, table)
        if scoring == "precomputed":
            if not isinstance(interest, LongTermInterestClock):
                raise ValueError(
                    f"RankingModel: scoring must be 'folded' for {type(interest).__name__}, got 'precomputed'; projections are "
                    "LongTermInterestClock's"
                )
            interest.scoring = scoring
        keys: Tensor | None = None
        key_scale: Tensor | None = None
        with torch.no_grad():
            if query_dtype is not None:
                keys, key_scale = _in_bytes(interest, behaviours, query_dtype)
            elif scoring == "precomputed":
                keys = interest.project(behaviours)
        self.query_dtype = query_dtype
        self.register_buffer("keys", keys)
        self.register_buffer("key_scale", key_scale)

    def searched(self) -> dict[str, Any]:
        """What the search reads in place of the behaviours, and how, by the keywords of the interest module's call."""
        if self.keys is None:
            return {}
        if self.key_scale is None:
            return {"keys": self.keys}
        return {"keys": QuantizedRows(self.keys, self.key_scale), "query_dtype": self.query_dtype}

    def forward(
        self,
        user: Tensor,
        candidate: Tensor,
        behaviour: Tensor,
        behaviour_time: Tensor,
        ends: Tensor,
        query_offsets: Tensor,
        query_time: Tensor,
        outcomes: Tensor | None = None,
    ) -> Tensor:
        """Logits of the candidates of S requests, fp32 [R].

        Args:
            user: int64 [S], rows of ``users``.
            candidate: int64 [R], rows of ``items``; those of request s begin at ``query_offsets[s]``, [S + 1].
            behaviour, behaviour_time: int64 [T], rows of ``behaviours`` and seconds, one request's behind another's; those of
                request s end before ``ends[s]``, [S].
            query_time: int64 [S], seconds.
            outcomes: [R, features], where the tower reads them.
        """
        starts = F.pad(ends, (1, 0))[:-1]
        rows = Lookup(self.behaviours, behaviour)
        history = History.windows(rows, behaviour_time, starts, ends, query_offsets)
        number = torch.arange(candidate.shape[0], device=candidate.device)
        request = torch.searchsorted(query_offsets[1:], number, right=True)
        vectors = F.embedding(candidate, self.items)
        v, context = self.interest(
            vectors, history, query_time, return_context=True, **self.searched()
        )
        recent = mean_of_last("RankingModel", self.recent, history)
        of_user = F.embedding(user, self.users)
        of_user, recent = (x.index_select(0, request) for x in (of_user, recent))
        features = tower_features(of_user, vectors, recent, v, met_by(vectors, context))
        if outcomes is not None:
            features.append(outcomes)
        logits: Tensor = self.tower(torch.cat(features, 1)).squeeze(1)
        return logits


def _in_bytes(interest: InterestModule, behaviours: Tensor, query_dtype: str) -> QuantizedRows:
    """The rows that the module's search compares."""
    if not isinstance(interest, LongTermInterestClock) or not interest.takes_quantized_keys:
        raise ValueError(
            f"RankingModel: dtype must be fp32 or bf16 for {type(interest).__name__}, got int8, which a search by dot products "
            "alone reads"
        )
    rows = interest.project(behaviours) if interest.scoring == "precomputed" else behaviours
    if query_dtype == "int8" and rows.shape[-1] > MAX_INT8_DIM:
        raise ValueError(
            f"RankingModel: query_dtype must be fp32 or bf16 for rows of more than {MAX_INT8_DIM} columns, got int8 for "
            f"{rows.shape[-1]}"
        )
    return quantize_rows(rows)


@torch.no_grad()
def exported(trained: Trained) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a version of a trained model says of itself, and its tensors.

    Raises:
        ValueError: a model that reads more of a request than a store of histories has.
    """
    name, config = trained.identity["model"], _config(trained.identity)
    model = MODELS[name]
    if model.counts is not None or model.shuffled_times:
        raise ValueError(
            f"longclock.export: the model must be one that can be served, got {name!r}, a control; train lic"
        )
    ranker = Ranker(trained.catalogue, model, config)
    ranker.load_state_dict(trained.weights)
    if ranker.interest.reads:
        raise ValueError(
            f"longclock.export: the model must read histories alone, got {name!r}, which also reads "
            f"{', '.join(ranker.interest.reads)}; train lic, or another model that does"
        )
    items = ranker.item_table()
    users, of_ids = ranker.user.weight, trained.numberings
    known = np.sort(of_ids["users"].pairs[1]) if "users" in of_ids else np.arange(0)
    mean = users[torch.from_numpy(known)] if len(known) else users  # other rows are nobody's yet
    tensors = {
        "items": items,
        "users": torch.cat([users, mean.mean(0, keepdim=True)]),
        **{f"interest.{key}": value for key, value in ranker.interest.state_dict().items()},
        **{f"tower.{key}": value for key, value in ranker.tower.state_dict().items()},
        **{
            f"category.{key}": torch.from_numpy(ids)
            for key, ids in trained.catalogue.categories.items()
        },
        **{f"numbered.{key}": value for key, value in tensors_of_ids(of_ids).items()},
    }
    if trained.catalogue.labelled:  # else they are the items
        tensors["behaviours"] = ranker.behaviour_table(items)
    if ranker.reads_outcomes and trained.outcomes is not None:
        arrays = trained.outcomes.arrays()
        tensors |= {name: torch.from_numpy(array) for name, array in arrays.items()}
    catalogue = trained.catalogue
    about = {
        "longclock": longclock.__version__,
        "model": name,
        "config": dataclasses.asdict(config),
        "users": catalogue.users,
        "items": catalogue.items,
        "category_sizes": catalogue.category_sizes,
        "labelled": catalogue.labelled,
        "reads_outcomes": ranker.reads_outcomes,
        **{rows: trained.identity.get(rows, 0) for rows in ROWS.values()},
    }
    return about, tensors


@dataclasses.dataclass(frozen=True)
class Served:
    """One version, ready for requests; nothing of it changes any more."""

    version: str
    model: RankingModel
    config: Config
    catalogue: Catalogue
    outcomes: OutcomeCounts | None
    numberings: dict[str, Numbering]

    def numbers(self, kind: str, ids: Tensor) -> Tensor:
        """The rows of ids, of "users" or of "items", int64 of their shape [N]; -1 where the model does not know one."""
        if kind in self.numberings:
            return torch.from_numpy(self.numberings[kind].find(ids.numpy()))
        count = self.catalogue.users if kind == "users" else self.catalogue.items
        if not len(ids):
            return ids
        least, most = ids.aminmax()
        return ids if least >= 0 and most < count else ids.where((ids >= 0) & (ids < count), -1)

    @classmethod
    @torch.no_grad()
    def of(
        cls, version: Version, scoring: Scoring, dtype: torch.dtype, device: torch.device, query_dtype: str = "int8",
    ) -> Served:  # fmt: skip
        """Builds the modules that the version names and puts its tensors into them.

        Args:
            dtype: of the behaviours; of int8 the search alone reads them in bytes, beside those in fp32.
            query_dtype: of int8, see :class:`RankingModel`.
        Raises:
            ValueError: a model that does not take the scoring or the dtype.
            ModelFolderError: tensors that do not fit what the version says of itself.
        """
        about, tensors = version.about, version.tensors
        try:
            config = _config(about)
            items, users = tensors["items"], tensors["users"]
            behaviours = tensors.get("behaviours", items)
            widths = behaviours.shape[1], items.shape[1]
            sizes = about["category_sizes"]
            interest = MODELS[about["model"]].build(config, *widths, len(sizes), about["users"])
            interest.load_state_dict(of_kind(tensors, "interest"))
            tower = new_tower(tensors["tower.0.weight"].shape[1])
            tower.load_state_dict(of_kind(tensors, "tower"))
            categories = categories_of(tensors, sizes)
            catalogue = Catalogue(
                about["users"], about["items"], categories, sizes, about["labelled"]
            )
            outcomes = outcomes_of(tensors, len(sizes)) if about["reads_outcomes"] else None
            in_bytes = dtype == torch.int8
            rows = behaviours if in_bytes else behaviours.to(dtype)
            rounded = query_dtype if in_bytes else None
            model = RankingModel(
                items, rows, users, interest, tower, config.recent, scoring, rounded
            )
        except (KeyError, TypeError, RuntimeError, IndexError) as error:
            raise ModelFolderError(
                f"version {version.name} is not a model of this longclock ({error}); export again"
            ) from error
        return cls(
            version.name, model.requires_grad_(False).eval().to(device), config, catalogue, outcomes,
            numberings_of(of_kind(tensors, "numbered"), about),
        )  # fmt: skip


def _config(known: dict[str, Any]) -> Config:
    """Of an identity, or of what a version says of itself; fields that this version does not know are left out."""
    given = known.get("config", known)
    return Config(
        **{each.name: given[each.name] for each in dataclasses.fields(Config) if each.name in given}
    )
