# SPDX-License-Identifier: Apache-2.0
"""What a search made elsewhere found, and whole sequences: no other user's behaviours, no wait for the values."""

from __future__ import annotations

import contextlib
import copy
import importlib
from typing import Any

import pytest
import torch
from test_long_term_interest_clock import COUNTS, Batch, H, L, build, close, flat, make_batch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import longclock as lc
from longclock.baselines import TWIN, ClockAttention, ClockSearch
from longclock.history import windows as implementation

# Modules, whose functions have their names in the packages.
attention = importlib.import_module("longclock.ops.esu_attention")
reference_attention = importlib.import_module("longclock.reference.esu_attention")
FLAT = ("windows", "windows_many", "ragged", "ragged_many")
LAYOUTS = ("dense", "padded", "candidates", "lookup", *FLAT)
both = pytest.mark.parametrize("backend", ["compiled", "reference"])


def call_of(layout: str, batch: Batch) -> tuple[tuple[Tensor, lc.History, Tensor], Tensor]:
    """Arguments of a call, and how many behaviours each of its queries sees: [S], [S, C] or [Q]."""
    s = len(COUNTS)
    rows, times, offsets = flat(batch)
    counts = torch.tensor(COUNTS, device=offsets.device)
    if layout in FLAT:
        candidate, many = batch.candidate[:, 0], None
        if layout.endswith("_many"):
            candidate, counts = batch.candidate[:, :2].flatten(0, 1), counts.repeat_interleave(2)
            many = torch.arange(0, 2 * s + 1, 2, device=offsets.device)
        if layout.startswith("windows"):
            history = lc.History.windows(rows, times, offsets[:-1], offsets[1:], many)
        else:
            history = lc.History.ragged(rows, times, offsets, many)
        return (candidate, history, batch.query_time), counts
    candidate, history = batch.candidate[:, 0], batch.history()
    if layout == "padded":  # no lengths: all of the row counts
        history = lc.History.dense(batch.behaviours.nan_to_num(), batch.behaviour_time)
        counts = torch.full_like(counts, max(COUNTS))
    if layout == "candidates":
        candidate, counts = batch.candidate, counts[:, None].expand(-1, 3)
    if layout == "lookup":
        ids = torch.arange(s * max(COUNTS), device=counts.device).view(s, -1)
        history = history._replace(rows=lc.Lookup(batch.behaviours.flatten(0, 1), ids))
    return (candidate, history, batch.query_time), counts


def some_found(counts: Tensor) -> Tensor:
    """The first, the last and no behaviour of each query: [..., 3]."""
    return torch.stack([counts.clamp(max=1) - 1, counts - 1, torch.full_like(counts, -1)], -1)


@both
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_place_past_the_end_is_named(layout: str, backend: str) -> None:
    arguments, counts = call_of(layout, make_batch("cpu"))
    module, found = build("cpu", backend=backend), some_found(counts)
    assert module(*arguments, found=found).isfinite().all()
    for past in (0, 1000):
        wrong = found.clone()
        wrong.flatten(0, -2)[1, 2] = counts.flatten()[1] + past
        at = [*torch.unravel_index(torch.tensor(1), counts.shape), torch.tensor(2)]
        with pytest.raises(ValueError) as caught:
            module(*arguments, found=wrong)
        assert str(caught.value) == (
            "LongTermInterestClock: found must hold indices of each query's own history, counted from its start, or -1, "
            f"got {counts.flatten()[1] + past} at {[int(i) for i in at]}; what other behaviours gave may be stale"
        )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_where_values_are_not_read_it_counts_as_nothing(
    layout: str, device: str, checks_data: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = "compiled"
    if checks_data:  # the reference as it is on a GPU; the CPU's op reads values wherever it runs
        backend = "reference"
        monkeypatch.setattr(reference_attention, "reads_values", lambda tensor: False)
    arguments, counts = call_of(layout, make_batch(device))
    module, found = build(device, backend=backend), some_found(counts)
    expected = module(*arguments, found=found)
    for outside in (counts, torch.full_like(counts, 2**40), torch.full_like(counts, -2)):
        wrong = found.clone()
        wrong[..., 2] = outside
        assert torch.equal(module(*arguments, found=wrong), expected)


@pytest.mark.parametrize("layout", ["dense", "candidates", "lookup", *FLAT])
def test_a_compiled_module_takes_it_and_says_the_same(
    layout: str, device: str, checks_data: bool
) -> None:
    torch._dynamo.reset()
    arguments, counts = call_of(layout, make_batch(device))
    module, found = build(device), some_found(counts)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    expected = module(*arguments, found=found)
    close(compiled(*arguments, found=found), expected)
    wrong = found.clone()
    wrong[..., 2] = counts
    if not checks_data:
        close(compiled(*arguments, found=wrong), expected)
        return
    with pytest.raises(ValueError, match="found must hold indices of each query's own history"):
        compiled(*arguments, found=wrong)


@both
@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([[0]] * 4, "found must be a tensor, got list; make one with torch.tensor"),
        (torch.zeros(4, 1), "found must be int64, got float32; pass the indices of a search"),
        (torch.zeros(4, 1).int(), "found must be int64, got int32; pass the indices of a search"),
        (
            torch.zeros(4, 1, dtype=torch.int64, device="meta"),
            "found must be on the device of history.time, cpu, got meta; move it there with .to()",
        ),
        (torch.zeros(4).long(), "found must have shape [S, K] or [S, C, K], got [4]"),
        (
            torch.zeros(3, 1).long(),
            "found must have S = 4 in its first dimension to match history.rows, got [3, 1]",
        ),
        (
            torch.zeros(4, 2, 1).long(),
            "found must have a row of K for each of Q = 4 queries, got [4, 2, 1]",
        ),
    ],
)
def test_what_is_no_place_at_all(found: Any, message: str, backend: str) -> None:
    arguments, _ = call_of("dense", make_batch("cpu"))
    with pytest.raises(ValueError) as caught:
        build("cpu", backend=backend)(*arguments, found=found)
    assert str(caught.value) == f"LongTermInterestClock: {message}"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mode", ["searched", "found", "whole", "bounded"])
def test_no_value_is_read_on_the_host(layout: str, mode: str) -> None:
    """Tensors without values have none to read: such a call can be captured in a CUDA graph."""
    arguments, counts = call_of(layout, make_batch("cpu"))
    module, options = build("cpu"), {}
    if mode == "found":
        options["found"] = some_found(counts)
    if mode in ("whole", "bounded"):
        module.k = None
    fakes, expected = copy.deepcopy(module), module(*arguments, **options)
    if mode == "bounded":
        options["longest"] = max(COUNTS)

    counted = mode == "whole" and layout in FLAT  # how much room to make must then be told
    refused = pytest.raises(
        ValueError,
        match=r"^LongTermInterestClock: longest must be given on CUDA and in graphs for windows and ragged histories",
    )

    def changed(change: Any) -> tuple[Any, dict[str, Any]]:
        leaves, spec = torch.utils._pytree.tree_flatten((arguments, options))
        leaves = [change(x) if isinstance(x, Tensor) else x for x in leaves]
        new: tuple[Any, dict[str, Any]] = torch.utils._pytree.tree_unflatten(leaves, spec)
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
    layout: str, longest: int | None, backend: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, _ = call_of(layout, make_batch(device))
    module = build(device, backend=backend)
    module.k = None
    if device != "cpu":
        longest = longest or 50
    expected = module(*arguments, longest=None if device == "cpu" else 50)
    close(module(*arguments, longest=longest), expected)
    if longest is None:
        return
    monkeypatch.setattr(implementation, "reads_values", lambda tensor: False)
    close(module(*arguments, longest=longest), expected)


def test_a_bound_that_is_too_small_is_named(checks_data: bool) -> None:
    for layout in FLAT:
        arguments, _ = call_of(layout, make_batch("cpu"))
        module = build("cpu")
        module.k = None
        if checks_data:
            with pytest.raises(ValueError) as caught:
                module(*arguments, longest=49)
            assert str(caught.value) == (
                "LongTermInterestClock: longest must be at least the most behaviours of a query = 50, got 49"
            )
        for wrong in (-1, 2.0, "many"):
            with pytest.raises(ValueError, match="LongTermInterestClock: longest must be"):
                module(*arguments, longest=wrong)


@both
@pytest.mark.parametrize("mode", ["searched", "found", "whole"])
@pytest.mark.parametrize("layout", ["dense", "lookup", *FLAT])
def test_no_sequences_and_no_behaviours(layout: str, mode: str, device: str, backend: str) -> None:
    for s in (0, 2):
        module = build(device, backend=backend)
        times = torch.zeros((0,) if layout in FLAT else (s, 0), dtype=torch.int64, device=device)
        bounds = torch.zeros(s + 1, dtype=torch.int64, device=device)
        many = torch.arange(s + 1, device=device) if layout.endswith("_many") else None
        rows: Any = torch.randn(*times.shape, L, device=device, requires_grad=True)
        if layout == "lookup":
            rows = lc.Lookup(torch.randn(3, L, device=device), times, True)
        if layout.startswith("windows"):
            history = lc.History.windows(rows, times, bounds[1:], bounds[1:], many)
        elif layout in FLAT:
            history = lc.History.ragged(rows, times, bounds, many)
        else:
            history = lc.History.dense(rows, times)
        options = {"found": bounds[1:, None] - 1} if mode == "found" else {}
        if mode == "whole":
            module.k = None
            options = {} if device == "cpu" else {"longest": 0}
        v = module(torch.randn(s, H, device=device), history, bounds[1:], **options)
        assert v.shape == (s, 9)
        assert v.isfinite().all()
        v.sum().backward()


@pytest.mark.parametrize("layout", FLAT)
@pytest.mark.parametrize("mode", ["searched", "found", "whole"])
def test_bounds_that_are_not_read_lead_nowhere_else(
    layout: str, mode: str, device: str, checks_data: bool
) -> None:
    """On a GPU nobody checks them: a place past the end would end the process's use of it. The CPU does."""
    (candidate, history, now), counts = call_of(layout, make_batch(device))
    module = build(device)
    module.k = None if mode == "whole" else 10
    options: dict[str, Any] = {"longest": 60} if mode == "whole" else {}
    if mode == "found":
        options["found"] = some_found(counts).clamp(max=1)
    expected = module(candidate, history, now, **options)
    for far in (10**6, -(10**6)):
        moved = {name: value + far for name, value in history.layout().items()
                 if value is not None and name != "query_offsets"}  # fmt: skip
        counted = (
            mode == "whole" and now.device.type == "cpu"
        )  # in Python, where values are at hand
        if checks_data or counted:
            with pytest.raises(ValueError, match=r"^LongTermInterestClock: (offsets|starts) "):
                module(candidate, history._replace(**moved), now, **options)
        else:
            found = module(candidate, history._replace(**moved), now, **options)
            assert found.shape == expected.shape


@both
@pytest.mark.parametrize("kind", [TWIN, ClockSearch, ClockAttention, lc.LongTermInterestClock])
@pytest.mark.parametrize("layout", ["dense", "candidates", "lookup", "windows_many", "ragged_many"])
@pytest.mark.parametrize("k", [5, None])
def test_what_is_to_come_is_dropped_by_a_stage_that_sees_no_time(
    kind: Any, layout: str, k: int | None, backend: str, device: str
) -> None:
    """Behaviours at or after the query's time count for neither stage, as if a mask left them out."""
    (candidate, history, _), _ = call_of(layout, make_batch(device))
    when = torch.arange(history.time.numel(), device=device).view(history.time.shape) // 2
    now = torch.full((len(COUNTS),), 20, device=device)
    if history.is_dense:  # a row of its own seconds for each; some begin with what is to come
        when = when % 51 + torch.tensor([0, 19, 30, 3], device=device)[:, None]
    history = history._replace(time=when)
    options: dict[str, Any] = {"k": k, "backend": backend}
    torch.manual_seed(3)
    late, all_of = kind(L, H, exclude_future=True, **options), kind(L, H, **options)
    all_of.load_state_dict(late.state_dict())
    late, all_of = late.to(device), all_of.to(device)
    whole = {"longest": 60} if k is None and not history.is_dense else {}
    past = history._replace(mask=when < 20)
    v, context = late(candidate, history, now, return_context=True, **whole)
    v_past, context_past = all_of(candidate, past, now, return_context=True, **whole)
    assert torch.equal(v, v_past)
    assert torch.equal(context, context_past)
    assert not torch.equal(context, all_of(candidate, history, now, return_context=True, **whole)[1])  # fmt: skip
    nothing = late(candidate, history, now - 10**6, return_context=True, **whole)[1]
    assert (nothing == 0).all()
    poisoned = history.table.detach().clone()
    if not isinstance(history.rows, lc.Lookup):
        poisoned[when >= 20] = torch.nan
        v_poisoned = late(candidate, history._replace(rows=poisoned), now, **whole)
        assert torch.equal(v_poisoned, v)


def test_the_modules_attention_gathers_what_was_found_itself(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No row of a history is copied before its attention, in any layout."""
    seen: list[dict[str, Any]] = []
    call = attention.call

    def recorded(op: Any, **given: Any) -> Any:
        seen.append(given)
        return call(op, **given)

    monkeypatch.setattr(attention, "call", recorded)
    for layout in LAYOUTS:
        (candidate, history, now), _ = call_of(layout, make_batch(device))
        seen.clear()
        build(device)(candidate, history, now)
        given = seen[-1]
        assert given["z"].data_ptr() == history.table.data_ptr()
        assert given["z"].numel() == history.table.numel()
        assert given["positions"] is not None
