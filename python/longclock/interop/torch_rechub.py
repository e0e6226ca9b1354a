# SPDX-License-Identifier: Apache-2.0
"""The Long-term Interest Clock as a model of Torch-RecHub, with its features and its trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from longclock._extras import RECHUB_EXTRA, imported_for
from longclock.history import History
from longclock.nn import LongTermInterestClock
from longclock.types import Lookup

with imported_for("longclock.interop.torch_rechub", RECHUB_EXTRA):
    from torch_rechub.basic.layers import MLP, EmbeddingLayer

__all__ = ["LIC"]


class LIC(nn.Module):
    """The interest vector of the target item in a tower of Torch-RecHub, for its CTRTrainer, with the arguments of its DIN.

    Args:
        features: of the user and the context, for the tower; may be empty.
        history_features: SequenceFeatures of a behaviour; the first one's ids tell where there is padding: its ``padding_idx``, or 0.
        target_features: SparseFeatures of the target item.
        mlp_params: of the tower.
        history_time, time: the names of the behaviours' times and of the moment in a batch.
        options: of :class:`longclock.LongTermInterestClock`, as k, heads, head_dim and clocks.

    Example::

        >>> import torch
        >>> from torch_rechub.basic.features import SequenceFeature, SparseFeature
        >>> from longclock.interop.torch_rechub import LIC
        >>> item = SparseFeature("item_id", vocab_size=10, embed_dim=8)
        >>> seen = SequenceFeature("hist_item_id", 10, 8, pooling="concat", shared_with="item_id")
        >>> model = LIC([], [seen], [item], mlp_params={"dims": [16]}, k=20).eval()
        >>> batch = {"item_id": torch.tensor([7]), "hist_item_id": torch.tensor([[0, 3]])}  # 0 is padding
        >>> times = {"time": torch.tensor([32 * 3600]), "hist_time": torch.tensor([[0, 8 * 3600]])}
        >>> model(batch | times).shape
        torch.Size([1])
    """

    def __init__(
        self, features: Sequence[Any], history_features: Sequence[Any], target_features: Sequence[Any], mlp_params: Mapping[str, Any],
        history_time: str = "hist_time", time: str = "time", **options: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        self.features, self.history_features, self.target_features = (
            list(x) for x in (features, history_features, target_features)
        )
        self.history_time, self.time = history_time, time
        beside, behaviour, target = (
            sum(feature.embed_dim for feature in x)
            for x in (self.features, self.history_features, self.target_features)
        )
        self.embedding = EmbeddingLayer([*features, *history_features, *target_features])
        self.interest = LongTermInterestClock(behaviour, target, out_dim=target, **options)
        self.mlp = MLP(beside + 3 * target, **mlp_params)

    def forward(self, x: Mapping[str, Tensor]) -> Tensor:
        """Probabilities [B].

        Args:
            x: by names, ids [B, M] of history features, [B] of others; times are int32 or int64 seconds, [B, M] and [B].
        """
        target = torch.cat(self._vectors(x, self.target_features), -1)
        tables = [self.embedding.embed_dict[f.shared_with or f.name] for f in self.history_features]
        ids = [x[feature.name].long() for feature in self.history_features]
        rows = Lookup(tuple(table.weight for table in tables), tuple(ids))
        mask = ids[0] != (self.history_features[0].padding_idx or 0)
        interest = self.interest(target, History.dense(rows, x[self.history_time], mask=mask), x[self.time])  # fmt: skip
        beside = self._vectors(x, self.features)
        logits = self.mlp(torch.cat([*beside, target, interest, target * interest], -1))
        return logits.squeeze(-1).sigmoid()

    def _vectors(self, x: Mapping[str, Tensor], features: list[Any]) -> list[Tensor]:
        """One by one: together they would have to be of one width."""
        return [self.embedding(x, [feature], squeeze_dim=True) for feature in features]
