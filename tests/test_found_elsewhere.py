# SPDX-License-Identifier: Apache-2.0
"""What a search made elsewhere found, and whole sequences: no other user's behaviours, no wait for the values."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import pytest
import torch
from test_long_term_interest_clock import COUNTS, Batch, H, L, build, close, flat, make_batch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import longclock as lc
from longclock.nn import long_term_interest_clock as implementation

LAYOUTS = ("dense", "padded", "candidates", "lookup", "windows", "ragged", "ragged_many")
FLAT = ("windows", "ragged", "ragged_many")
both = pytest.mark.parametrize(
    "kind", [lc.LongTermInterestClock, lc.reference.LongTermInterestClock]
)


def call_of(layout: str, batch: Batch) -> tuple[list[Any], dict[str, Any], Tensor]:
    """Arguments of a call, and how many behaviours each of its queries sees: [S], [S, C] or [Q]."""
    s = len(COUNTS)
    rows, times, offsets = flat(batch)
    counts = torch.tensor(COUNTS, device=offsets.device)
    if layout in FLAT:
        candidate, now, options = batch.candidate[:, 0], batch.query_time, {"offsets": offsets}
        if layout == "windows":
            options = {"starts": offsets[:-1], "ends": offsets[1:]}
        if layout == "ragged_many":
            candidate, counts = batch.candidate[:, :2].flatten(0, 1), counts.repeat_interleave(2)
            options["query_offsets"] = torch.arange(0, 2 * s + 1, 2, device=offsets.device)
        return [candidate, rows, times, now], options, counts
    arguments = [batch.candidate[:, 0], batch.behaviours, batch.behaviour_time, batch.query_time]
    options = {"lengths": batch.lengths}
    if layout == "padded":  # no lengths: all of the row counts
        arguments[1], options = arguments[1].nan_to_num(), {}
        counts = torch.full_like(counts, max(COUNTS))
    if layout == "candidates":
        arguments[0], counts = batch.candidate, counts[:, None].expand(-1, 3)
    if layout == "lookup":
        ids = torch.arange(s * max(COUNTS), device=counts.device).view(s, -1)
        arguments[1] = lc.Lookup(batch.behaviours.flatten(0, 1), ids)
    return arguments, options, counts


def some_found(counts: Tensor) -> Tensor:
    """The first, the last and no behaviour of each query: [..., 3]."""
    return torch.stack([counts.clamp(max=1) - 1, counts - 1, torch.full_like(counts, -1)], -1)


@both
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_place_past_the_end_is_named(layout: str, kind: type) -> None:
    arguments, options, counts = call_of(layout, make_batch("cpu"))
    module, found = build("cpu", kind), some_found(counts)
    assert module(*arguments, **options, found=found).isfinite().all()
    for past in (0, 1000):
        wrong = found.clone()
        wrong.flatten(0, -2)[1, 2] = counts.flatten()[1] + past
        at = [*torch.unravel_index(torch.tensor(1), counts.shape), torch.tensor(2)]
        message = (
            r"LongTermInterestClock: found must hold places in each query's own history, .* got "
            rf"{counts.flatten()[1] + past} at \[{', '.join(str(int(i)) for i in at)}\]; an"
        )
        with pytest.raises(ValueError, match=message):
            module(*arguments, **options, found=wrong)


@both
@pytest.mark.parametrize("layout", LAYOUTS)
def test_where_values_are_not_read_it_counts_as_nothing(
    layout: str, kind: type, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(implementation, "reads_values", lambda tensor: False)
    arguments, options, counts = call_of(layout, make_batch(device))
    module, found = build(device, kind), some_found(counts)
    wrong = found.clone()
    wrong[..., 2] = counts
    far = found.clone()
    far[..., 2] = 2**40
    expected = module(*arguments, **options, found=found)
    for other in (wrong, far):
        assert torch.equal(module(*arguments, **options, found=other), expected)


@pytest.mark.parametrize("layout", ["dense", "windows"])
def test_a_compiled_module_takes_it_for_nothing(layout: str) -> None:
    torch._dynamo.reset()
    arguments, options, counts = call_of(layout, make_batch("cpu"))
    module, found = build("cpu"), some_found(counts)
    wrong = found.clone()
    wrong[..., 2] = counts
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    expected = module(*arguments, **options, found=found)
    close(compiled(*arguments, **options, found=wrong), expected)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([[0]] * 4, "found must be a tensor, got list"),
        (torch.zeros(4, 1), r"found must be int64 \[4, 'K'\].*got float32 \[4, 1\]"),
        (
            torch.zeros(4, 1, dtype=torch.int64, device="meta"),
            "found must be on the device of behaviour_time, cpu, got meta",
        ),
    ],
)
def test_what_is_no_place_at_all(found: Any, message: str) -> None:
    arguments, options, _ = call_of("dense", make_batch("cpu"))
    with pytest.raises(ValueError, match=f"LongTermInterestClock: {message}"):
        build("cpu")(*arguments, **options, found=found)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mode", ["searched", "found", "whole", "bounded"])
def test_no_value_is_read_on_the_host(layout: str, mode: str) -> None:
    """Tensors without values have none to read: such a call can be captured in a CUDA graph."""
    arguments, options, counts = call_of(layout, make_batch("cpu"))
    module, options = build("cpu"), dict(options)
    if mode == "found":
        options["found"] = some_found(counts)
    if mode in ("whole", "bounded"):
        module.k = None
    fakes, expected = copy.deepcopy(module), module(*arguments, **options)
    if mode == "bounded":
        options["longest"] = max(COUNTS)

    counted = mode == "whole" and layout in FLAT  # how much room to make must then be told
    refused = pytest.raises(
        ValueError, match="LongTermInterestClock: longest must be given on CUDA"
    )

    def changed(change: Any) -> tuple[list[Any], dict[str, Any]]:
        leaves, spec = torch.utils._pytree.tree_flatten((arguments, options))
        leaves = [change(x) if isinstance(x, Tensor) else x for x in leaves]
        new: tuple[list[Any], dict[str, Any]] = torch.utils._pytree.tree_unflatten(leaves, spec)
        return new

    some, more = changed(lambda x: x.to("meta"))
    module.to("meta")
    with refused if counted else contextlib.nullcontext():
        assert module(*some, **more).shape == expected.shape
    with FakeTensorMode(allow_non_fake_inputs=True) as mode_of_fakes:
        some, more = changed(mode_of_fakes.from_tensor)
        with refused if counted else contextlib.nullcontext():
            assert fakes(*some, **more).shape == expected.shape


@both
@pytest.mark.parametrize("layout", FLAT)
@pytest.mark.parametrize("longest", [None, 50, 60])
def test_whole_sequences_need_no_count(
    layout: str, longest: int | None, kind: type, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, options, _ = call_of(layout, make_batch(device))
    module = build(device, kind)
    module.k = None
    expected = module(*arguments, **options)
    close(module(*arguments, **options, longest=longest), expected)
    if longest is None:
        return
    monkeypatch.setattr(implementation, "reads_values", lambda tensor: False)
    close(module(*arguments, **options, longest=longest), expected)


def test_a_bound_that_is_too_small_is_named(checks_data: bool) -> None:
    arguments, options, _ = call_of("windows", make_batch("cpu"))
    module = build("cpu")
    module.k = None
    if checks_data:
        with pytest.raises(
            ValueError, match=r"longest must be at least the most behaviours of a query = 50, got"
        ):
            module(*arguments, **options, longest=49)
    for wrong in (-1, 2.0, "many"):
        with pytest.raises(ValueError, match="LongTermInterestClock: longest must be"):
            module(*arguments, **options, longest=wrong)


@pytest.mark.parametrize("mode", ["searched", "found", "whole"])
@pytest.mark.parametrize("layout", ["dense", "lookup", *FLAT])
def test_no_sequences_and_no_behaviours(layout: str, mode: str, device: str) -> None:
    for s in (0, 2):
        module = build(device)
        times = torch.zeros((0,) if layout in FLAT else (s, 0), dtype=torch.int64, device=device)
        bounds = torch.zeros(s + 1, dtype=torch.int64, device=device)
        options: dict[str, Any] = {}
        if layout == "windows":
            options = {"starts": bounds[1:], "ends": bounds[1:]}
        elif layout in FLAT:
            options = {"offsets": bounds}
        if layout == "ragged_many":
            options["query_offsets"] = torch.arange(s + 1, device=device)
        behaviours: Any = torch.randn(*times.shape, L, device=device, requires_grad=True)
        if layout == "lookup":
            behaviours = lc.Lookup(torch.randn(3, L, device=device), times, True)
        if mode == "whole":
            module.k = None
        if mode == "found":
            options["found"] = bounds[1:, None] - 1
        v = module(torch.randn(s, H, device=device), behaviours, times, bounds[1:], **options)
        assert v.shape == (s, 9)
        assert v.isfinite().all()
        v.sum().backward()


@pytest.mark.parametrize("layout", FLAT)
def test_bounds_that_are_not_read_lead_nowhere_else(
    layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU nobody checks them: a place past the end would end the process's use of it."""
    arguments, options, _ = call_of(layout, make_batch("cpu"))
    expected = build("cpu")(*arguments, **options)
    monkeypatch.setattr(implementation, "reads_values", lambda tensor: False)
    module = build("cpu")
    module.ops = Unchecked()
    far = {name: bounds + 10**6 for name, bounds in options.items()}
    found = torch.zeros(len(arguments[0]), 2, dtype=torch.int64)
    for each in (far, {name: bounds - 10**6 for name, bounds in options.items()}):
        assert module(*arguments, **each, found=found).shape == expected.shape


class Unchecked:
    """longclock.ops without the checks of a search, as on a GPU."""

    def clock_gsu(self, query: Tensor, *args: Any, **options: Any) -> lc.TopK:
        nothing = query.new_zeros((*query.shape[:-1], 0))
        return lc.TopK(nothing, nothing.long())

    def __getattr__(self, name: str) -> Any:
        return getattr(lc.ops, name)
