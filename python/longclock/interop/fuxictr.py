# SPDX-License-Identifier: Apache-2.0
"""The Long-term Interest Clock as a model of FuxiCTR, whose trainer, embeddings, tower and configurations it uses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from longclock._constants import DEFAULT_PERIOD
from longclock._extras import FUXICTR_EXTRA, imported_for
from longclock.history import History
from longclock.nn import LongTermInterestClock
from longclock.types import Lookup

with imported_for("longclock.interop.fuxictr", FUXICTR_EXTRA):
    from fuxictr.pytorch.layers import FeatureEmbedding, MLP_Block
    from fuxictr.pytorch.models import BaseModel

    from longclock.interop.fuxictr_batches import TimedDataLoader

__all__ = ["LIC", "TimedDataLoader"]


class LIC(BaseModel):
    """The interest vector of the target item in a tower of FuxiCTR, trained as its DIN and TWIN are.

    It takes the batches of :class:`TimedDataLoader`. A behaviour is the features with ``source: item``: tables are read where they lie,
    a feature with an encoder, or of pretrained vectors, is gathered first. Arguments that are not listed are those of FuxiCTR's models.

    Args:
        topk, num_heads, attention_dim: behaviours kept, heads, and the width of all heads together.
        clocks, unit: as of :class:`longclock.LongTermInterestClock`; a list is a tuple.

    Example::

        >>> import torch
        >>> from fuxictr.features import FeatureMap
        >>> from longclock.interop.fuxictr import LIC
        >>> features = FeatureMap("plays", ".")
        >>> item = {"type": "categorical", "source": "item", "vocab_size": 10}
        >>> features.features, features.labels = {"item_id": item, "time": {"type": "meta"}}, ["label"]
        >>> features.default_emb_dim = 8
        >>> trained = {"optimizer": "adam", "loss": "binary_crossentropy", "metrics": ["AUC"]}
        >>> model = LIC(features, embedding_dim=8, topk=20, **trained, model_root=".", verbose=0)
        >>> time = 3600 * torch.tensor([0, 8, 32])
        >>> items = {"item_id": torch.tensor([0, 3, 7]), "time": time}  # padding, a behaviour, the target
        >>> model(({"label": torch.ones(1)}, items, torch.tensor([[0.0, 1.0]])))["y_pred"].shape
        torch.Size([1, 1])
    """

    def __init__(
        self, feature_map: Any, model_id: str = "LIC", gpu: int = -1, dnn_hidden_units: Any = (512, 128, 64), dnn_activations: Any = "ReLU",
        attention_dim: int = 64, num_heads: int = 4, topk: int = 50, clocks: Any = DEFAULT_PERIOD, unit: Any = None,
        learning_rate: float = 1e-3, embedding_dim: int = 10, net_dropout: float = 0, batch_norm: bool = False, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(feature_map, model_id=model_id, gpu=gpu, **kwargs)
        of_item = {x: spec for x, spec in feature_map.features.items() if spec.get("source") == "item"}  # fmt: skip
        self.of_item = list(of_item)
        width = sum(spec.get("embedding_dim", embedding_dim) for spec in of_item.values())
        self.embedding_layer = FeatureEmbedding(feature_map, embedding_dim)
        self.dnn = MLP_Block(
            feature_map.sum_emb_out_dim() + 2 * width, list(dnn_hidden_units), dnn_activations, output_dim=1,
            output_activation=self.output_activation, dropout_rates=net_dropout, batch_norm=batch_norm,
        )  # fmt: skip
        self.reset_parameters()  # before there is a clock, whose weights are drawn as it needs them
        clocks, unit = (tuple(x) if isinstance(x, list) else x for x in (clocks, unit))
        head_dim = attention_dim // num_heads
        self.interest = LongTermInterestClock(width, width, head_dim, num_heads, topk, width, clocks=clocks, unit=unit)  # fmt: skip
        self.compile(kwargs["optimizer"], kwargs["loss"], learning_rate)
        self.model_to_device()

    def forward(self, inputs: Any) -> dict[str, Tensor]:
        rows, items, mask = inputs
        of_item = self.get_inputs({name: items[name].unflatten(0, (len(mask), -1)) for name in self.of_item})  # fmt: skip
        time = items["time"].to(self.device).view(len(mask), -1)
        target = self.embedding_layer({x: column[:, -1] for x, column in of_item.items()}, flatten_emb=True)  # fmt: skip
        behaviours = self.behaviours({x: column[:, :-1] for x, column in of_item.items()})
        history = History.dense(behaviours, time[:, :-1], mask=mask.to(self.device) > 0)
        interest = self.interest(target, history, time[:, -1])
        others = self.get_inputs(rows)
        beside = [self.embedding_layer(others, flatten_emb=True)] if others else []
        return {"y_pred": self.dnn(torch.cat([*beside, target, interest, target * interest], -1))}

    def behaviours(self, of_item: dict[str, Tensor]) -> Tensor | Lookup:
        """The vectors of items given by their features, [B, M, ..] each: [B, M, L]."""
        layers = self.embedding_layer.embedding_layer
        tables = [layers.embedding_layers[name] for name in of_item]
        encoded = any(name in layers.feature_encoders for name in of_item)
        if not encoded and all(type(table) is nn.Embedding for table in tables):
            return Lookup(tuple(x.weight for x in tables), tuple(x.long() for x in of_item.values()))  # fmt: skip
        flat = {name: column.flatten(0, 1) for name, column in of_item.items()}
        vectors: Tensor = self.embedding_layer(flat, flatten_emb=True)
        return vectors.unflatten(0, next(iter(of_item.values())).shape[:2])

    def get_labels(self, inputs: Any) -> Any:
        return super().get_labels(inputs[0])

    def get_group_id(self, inputs: Any) -> Any:
        return super().get_group_id(inputs[0])
