# SPDX-License-Identifier: Apache-2.0
"""The reference refuses what the ops refuse, in the same words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import longclock as lc

S, M, D = 2, 5, 8
INT = torch.int64


def search(**changes: Any) -> dict[str, Any]:
    return {
        "query": torch.randn(S, D), "keys": torch.randn(S, M, D),
        "key_time": torch.zeros(S, M, dtype=INT), "query_time": torch.zeros(S, dtype=INT),
        "mlp": lc.TimeSimilarity(),
    } | changes  # fmt: skip


FLAT: dict[str, Any] = {"keys": torch.randn(10, D), "key_time": torch.zeros(10, dtype=INT)}
TABLE: dict[str, Any] = {"keys": torch.randn(9, D), "ids": torch.full((S, M), 9)}
HASHES = torch.zeros(S, M, 1, dtype=INT)
ATTENTION: dict[str, Any] = {
    "u": torch.randn(S, 2, D), "z": torch.randn(S, M, D), "z_time": torch.zeros(S, M, dtype=INT),
    "query_time": torch.zeros(S, dtype=INT), "mlp": lc.TimeSimilarity(),
}  # fmt: skip


def ints(*values: int) -> torch.Tensor:
    return torch.tensor(values)


SEARCHES: list[dict[str, Any]] = [
    {"query": None}, {"query": np.zeros((S, D))}, {"query": torch.randn(S, D - 1)},
    {"query": torch.randn(S + 1, D)}, {"query": torch.randn(D)}, {"query": torch.randn(S, D).to_sparse()},
    {"keys": [1.0]}, {"keys": torch.randn(S, M - 1, D)}, {"keys": torch.randn(1, M, D)},
    {"key_time": None}, {"key_time": torch.zeros(S, M)}, {"key_time": torch.zeros(1, M, dtype=INT)},
    {"query_time": [0, 0]}, {"query_time": torch.zeros(1, dtype=INT)},
    {"mlp": torch.nn.Linear(4, 1)}, {"mlp": (1, 2, 3, 4)}, {"mlp": None},
    {"lengths": ints(1)}, {"lengths": ints(1, 6)}, {"lengths": ints(-1, 1)},
    {"lengths": torch.ones(S)}, {"lenghts": ints(1, 1)}, {"scale_by": 1.0},
    {"mask": [True]}, {"mask": torch.ones(S, M)}, {"mask": torch.ones(S, 1, dtype=torch.bool)},
    {"clocks": 1.5}, {"clocks": 0}, {"clocks": (86400,) * 5}, {"clocks": (86400, 7)}, {"unit": "hours"}, {"unit": 0.0},
    TABLE, TABLE | {"ids": -TABLE["ids"]}, TABLE | {"ids": TABLE["ids"][:, :4]},
    FLAT, FLAT | {"starts": ints(0, 5)}, FLAT | {"starts": ints(0, 5), "ends": ints(5, 11)},
    FLAT | {"starts": ints(0, 5), "ends": ints(5, 4)}, FLAT | {"starts": ints(-1, 5), "ends": ints(5, 9)},
    FLAT | {"starts": ints(0), "ends": ints(5)}, FLAT | {"offsets": ints(0, 5, 11)},
    FLAT | {"offsets": ints(1, 5, 10)}, FLAT | {"offsets": ints(0, 11, 10)}, FLAT | {"offsets": ints(0, 10)},
    FLAT | {"offsets": ints(0, 5, 10), "query_offsets": ints(0, 1, 3)},
    FLAT | {"offsets": ints(0, 5, 10), "query_offsets": ints(0, 3, 2)},
    {"query_offsets": ints(0, 1, 2)}, FLAT | {"query_offsets": ints(0, 1, 2)},
    FLAT | {"starts": ints(0, 5), "ends": ints(5, 9), "query_offsets": ints(0, 1, 3)},
    FLAT | {"starts": ints(0, 5), "ends": ints(5, 9), "query_offsets": ints(0, 3, 2)},
    FLAT | {"starts": ints(0, 5), "ends": ints(5, 9), "query_offsets": ints(1, 1, 2)},
    FLAT | {"starts": ints(0, 5), "ends": ints(5, 11), "query_offsets": ints(0, 1, 2)},
    FLAT | {"starts": ints(0), "ends": ints(5), "query_offsets": ints(0, 2)},
    FLAT | {"starts": ints(0, 5), "ends": ints(5, 9), "query_offsets": ints(0, 2)},
]  # fmt: skip
FOUND = ints(0, 4)[:, None]
FLAT_FOUND: dict[str, Any] = {
    "z": torch.randn(10, D),
    "z_time": torch.zeros(10, dtype=INT),
    "found": FOUND,
}
ATTENTIONS: list[dict[str, Any]] = [
    {"found": FOUND + 1}, {"found": FOUND - 2}, {"found": FOUND.int()}, {"found": FOUND.float()}, {"found": [[0], [1]]},
    {"found": FOUND[:, 0]}, {"found": FOUND[:1]}, {"found": FOUND.expand(2, 3)[..., None]}, {"found": FOUND[None, None]},
    {"found": FOUND, "valid": FOUND > 0}, {"lengths": ints(1, 1)}, {"exclude_future": False}, {"exclude_future": True},
    {"found": FOUND, "lenghts": ints(1, 1)}, {"lenghts": None}, {"found": FOUND, "keys": FOUND},
    {"found": FOUND, "lengths": ints(1, 4)}, {"found": FOUND, "lengths": ints(1, 6)}, {"found": FOUND, "lengths": ints(5)},
    {"found": FOUND, "lengths": torch.ones(S)}, {"found": FOUND, "lengths": [5, 5]},
    {"found": FOUND, "mask": torch.ones(S, M)}, {"found": FOUND, "mask": torch.ones(S, 4, dtype=torch.bool)},
    {"found": FOUND, "z": torch.randn(S, 4, D)}, {"found": FOUND, "z": torch.randn(10, D)}, {"found": FOUND, "z": None},
    {"found": FOUND, "z_time": torch.zeros(S, 4, dtype=INT)}, {"found": FOUND, "z_time": torch.zeros(S, M)},
    {"found": FOUND, "query_time": ints(0)}, {"found": FOUND, "query_time": torch.zeros(S)},
    {"found": FOUND, "z": lc.Lookup(torch.randn(9, D), torch.full((S, M), 9))},
    {"found": FOUND, "z": lc.Lookup(torch.randn(9, D), torch.zeros(S, 4, dtype=INT))},
    {"found": FOUND, "z": lc.Lookup(torch.randn(9, D), torch.zeros(S, M))},
    {"found": FOUND, "query_offsets": ints(0, 1, 2)}, {"found": FOUND, "offsets": ints(0, 5, 10)},
    FLAT_FOUND, FLAT_FOUND | {"starts": ints(0, 5)}, FLAT_FOUND | {"ends": ints(0, 5)},
    FLAT_FOUND | {"starts": ints(0, 5), "ends": ints(5, 11)}, FLAT_FOUND | {"starts": ints(0, 5), "ends": ints(5, 9)},
    FLAT_FOUND | {"offsets": ints(0, 5, 11)}, FLAT_FOUND | {"offsets": ints(0, 6, 10)}, FLAT_FOUND | {"offsets": ints(0, 10)},
    FLAT_FOUND | {"offsets": ints(0, 5, 10), "starts": ints(0, 5), "ends": ints(5, 10)},
    FLAT_FOUND | {"offsets": ints(0, 5, 10), "lengths": ints(5, 5)},
    FLAT_FOUND | {"offsets": ints(0, 5, 10), "query_offsets": ints(0, 1, 3)},
    FLAT_FOUND | {"offsets": ints(0, 5, 10), "found": FOUND[None]},
    FLAT_FOUND | {"offsets": ints(0, 5, 10), "query_offsets": ints(0, 1, 2), "found": FOUND.repeat(2, 1)},
]  # fmt: skip


def message(function: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    with pytest.raises((TypeError, ValueError)) as caught:
        function(*args, **kwargs)
    return f"{caught.type.__name__}: {caught.value}"


@pytest.mark.parametrize("changes", SEARCHES, ids=lambda changes: " ".join(changes))
@pytest.mark.parametrize("name", ["gsu_score", "clock_gsu"])
def test_searches(name: str, changes: dict[str, Any], checks_data: bool) -> None:
    found = message(getattr(lc.reference, name), **search(**changes))
    assert f": {name}: " in found
    assert found == message(getattr(lc, name), **search(**changes))


@pytest.mark.parametrize("changes", ATTENTIONS, ids=lambda changes: " ".join(changes))
def test_attention_to_what_was_found(changes: dict[str, Any], checks_data: bool) -> None:
    found = message(lc.reference.esu_attention, **ATTENTION | changes)
    assert ": esu_attention: " in found
    assert found == message(lc.esu_attention, **ATTENTION | changes)


@pytest.mark.parametrize("wide", [False, True])
def test_float64_is_no_reason_for_other_words(wide: bool) -> None:
    arguments = search(keys=torch.randn(S, M - 1, D))
    if wide:
        arguments["query"], arguments["keys"] = (
            arguments["query"].double(),
            arguments["keys"].double(),
        )
        arguments["mlp"] = arguments["mlp"].double()
    expected = "gsu_score: key_time must have shape [S, M] = [2, 4] to match keys, got [2, 5]"
    assert message(lc.reference.gsu_score, **arguments) == f"ValueError: {expected}"


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("hamming_gsu", {"query": HASHES[:, 0], "keys": HASHES, "key_time": None, "query_time": ints(0, 0)}),
        ("hamming_gsu", {"query": HASHES[:, 0], "keys": HASHES, "key_time": HASHES[..., 0],
                         "query_time": ints(0, 0), "scale": 1.0}),
        ("esu_attention", ATTENTION | {"u": None}), ("esu_attention", ATTENTION | {"z": [1.0]}),
        ("esu_attention", ATTENTION | {"z": torch.randn(S, M, D - 1)}),
        ("esu_attention", ATTENTION | {"valid": torch.ones(S, M - 1, dtype=torch.bool)}),
        ("esu_attention", ATTENTION | {"z": lc.Lookup(torch.nn.Embedding(9, D), HASHES[..., 0])}),
        ("esu_attention", ATTENTION | {"z": lc.Lookup(torch.randn(9, D), HASHES[..., 0] + 9)}),
        ("esu_attention", ATTENTION | {"vaild": None}),
        ("block_topk", {"scores": [1.0], "k": 1}), ("block_topk", {"scores": None, "k": 1}),
        ("block_topk", {"scores": torch.randn(2, 3), "k": 1, "lengths": [1, 2]}),
        ("pack_signs", {"x": np.zeros(3)}), ("pack_signs", {"x": torch.tensor(1.0)}),
        ("time_features", {"delta": None}), ("time_features", {"delta": ints(1), "unit": "x"}),
        ("time_similarity", {"delta": ints(1), "w1": None, "b1": 1, "w2": 2, "b2": 3}),
        ("circular_delta", {"a": None, "b": ints(1)}), ("clock_time", {"timestamps": [1]}),
        ("circular_delta", {"a": torch.zeros(2, dtype=INT), "b": torch.zeros(3, dtype=INT)}),
    ],
)  # fmt: skip
def test_the_others(name: str, arguments: dict[str, Any], checks_data: bool) -> None:
    found = message(getattr(lc.reference, name), **arguments)
    assert f": {name}: " in found
    assert found == message(getattr(lc, name), **arguments)
