# SPDX-License-Identifier: Apache-2.0
"""The blocks of docs/replacing-twin.md run in their order, and do what the page says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pages import blocks, names_of


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    return names_of("replacing-twin.md")


def test_both_models_answer(names: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert names["control"].shape == names["content_alone"].shape == (8,)
    assert not torch.equal(names["control"], names["content_alone"])


@pytest.mark.parametrize("place", ["behind", "in front"])
def test_the_control_shuffles_real_behaviours_alone(place: str) -> None:
    """Where padding has times of its own, none of these comes into a history."""
    names = names_of("replacing-twin.md")
    when, lengths, size = names["when"].clone(), names["lengths"], names["when"].shape[1]
    position = torch.arange(size)
    (block,) = [text for _, text in blocks("replacing-twin.md", "python") if "shuffled =" in text]
    if place == "behind":
        inside = position < lengths[:, None]
    else:
        inside = position >= size - lengths[:, None]
        block = "\n".join(line for line in block.splitlines() if not line.startswith("inside ="))
    when[~inside] = -1
    names |= {"when": when, "inside": inside}
    exec(block, names)
    shuffled = names["shuffled"]
    for before, after, own in zip(when, shuffled, inside, strict=True):
        assert torch.equal(before[own].sort().values, after[own].sort().values)
        assert not torch.equal(before[own], after[own])
    assert (shuffled[~inside] == -1).all()


def test_gradients_reach_the_rows_that_were_found(names: dict[str, Any]) -> None:
    given = [names[x] for x in ("item", "category", "played", "played_category", "when", "now", "lengths")]  # fmt: skip
    model = names["After"](1_000, 20)
    model(*given).sum().backward()
    touched = model.item.weight.grad.any(1).nonzero().flatten().tolist()
    known = {*names["item"].tolist(), *names["played"].flatten().tolist()}
    assert set(touched) <= known
    assert len(touched) > 8  # more than the candidates themselves
    assert model.category.weight.grad.any()


def test_padding_in_front_or_behind_is_the_same(names: dict[str, Any]) -> None:
    """Ids of padding are no rows."""
    import longclock as lc

    model, lengths, size = names["After"](1_000, 20), names["lengths"], 500
    place = torch.arange(size)
    inside = place < lengths[:, None]
    behind = [names[x].masked_fill(~inside, -1) for x in ("played", "played_category", "when")]
    front = [x.gather(1, (place - (size - lengths[:, None])) % size) for x in behind]
    in_front = place >= size - lengths[:, None]
    candidate = torch.cat([model.item(names["item"]), model.category(names["category"])], -1)
    tables = (model.item.weight, model.category.weight)
    found = [
        model.interest(candidate, lc.History.dense(lc.Lookup(tables, (a, b)), when, **how), names["now"])
        for (a, b, when), how in ((behind, {"lengths": lengths}), (front, {"mask": in_front}))
    ]  # fmt: skip
    torch.testing.assert_close(*found)
