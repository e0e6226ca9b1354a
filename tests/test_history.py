# SPDX-License-Identifier: Apache-2.0
"""The type of a history: what its constructors refuse, where it goes, and that PyTorch's tools take it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tolerance import assert_bitwise
from torch import Tensor
from torch.utils._pytree import tree_leaves

import longclock as lc

S, M, T, N, L, H = 2, 5, 7, 9, 4, 3
LAYOUTS = (
    "dense",
    "lengths",
    "masked",
    "lookup",
    "ragged",
    "ragged_many",
    "windows",
    "windows_many",
    "flat_lookup",
)


def ints(*values: int) -> Tensor:
    return torch.tensor(values)


def arguments_of(layout: str) -> dict[str, Any]:
    """Of a constructor."""
    if layout in ("dense", "lengths", "masked", "lookup"):
        given: dict[str, Any] = {
            "rows": torch.randn(S, M, L),
            "time": torch.randint(0, 10**6, (S, M)),
        }
        if layout == "lookup":
            given["rows"] = lc.Lookup(torch.randn(N, L), torch.randint(0, N, (S, M)))
        if layout == "lengths":
            given["lengths"] = ints(5, 2)
        if layout == "masked":
            given["mask"] = torch.rand(S, M) < 0.7
        return given
    given = {"rows": torch.randn(T, L), "time": torch.randint(0, 10**6, (T,))}
    if layout == "flat_lookup":
        given |= {
            "rows": lc.Lookup(torch.randn(N, L), torch.randint(0, N, (T,))),
            "mask": torch.rand(T) < 0.7,
        }
    if layout.startswith("windows"):
        given |= {"starts": ints(0, 2), "ends": ints(7, 4)}
    else:
        given["offsets"] = ints(0, 3, 7)
    if layout.endswith("_many"):
        given["query_offsets"] = ints(0, 2, 3)
    return given


def constructor(layout: str) -> Any:
    if layout in ("dense", "lengths", "masked", "lookup"):
        return lc.History.dense
    return lc.History.windows if layout.startswith("windows") else lc.History.ragged


def make(layout: str) -> lc.History:
    history: lc.History = constructor(layout)(**arguments_of(layout))
    return history


def queries_of(layout: str) -> int:
    return 3 if layout.endswith("_many") else S


every_layout = pytest.mark.parametrize("layout", LAYOUTS)


def test_parts_that_were_not_given_are_none() -> None:
    for layout in LAYOUTS:
        given, history = arguments_of(layout), make(layout)
        for name in history._fields:
            assert (getattr(history, name) is None) == (name not in given), (layout, name)
        assert history.is_dense == (constructor(layout) == lc.History.dense)
        looked_up = isinstance(history.rows, lc.Lookup)
        assert history.table is (history.rows.table if looked_up else history.rows)


LONG = torch.int64
DEVICE = "must be on the device of time, cpu, got meta; move it there with .to()"
MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("dense", {"rows": [[1.0]]}, "rows must be a tensor, QuantizedRows or a Lookup, got list"),
    ("dense", {"rows": None}, "rows must be a tensor, QuantizedRows or a Lookup, got NoneType"),
    ("dense", {"time": [[1]]}, "time must be a tensor, got list"),
    ("dense", {"time": None}, "time must be a tensor, got NoneType"),
    ("dense", {"lengths": [5, 5]}, "lengths must be a tensor, got list"),
    ("dense", {"mask": True}, "mask must be a tensor, got bool"),
    ("lookup", {"rows": lc.Lookup(torch.nn.Embedding(N, L), torch.zeros(S, M, dtype=LONG))},  # type: ignore[arg-type]
     "rows' table must be a tensor, got Embedding"),
    ("lookup", {"rows": lc.Lookup(torch.zeros(N, L), None)}, "ids must be a tensor, got NoneType"),  # type: ignore[arg-type]
    ("ragged", {"offsets": [0, 7]}, "offsets must be a tensor, got list"),
    ("ragged_many", {"query_offsets": 3}, "query_offsets must be a tensor, got int"),
    ("windows", {"starts": [0, 0]}, "starts must be a tensor, got list"),
    ("windows", {"ends": [7, 7]}, "ends must be a tensor, got list"),
    ("dense", {"time": torch.zeros(S, M)}, "time must be int32 or int64, got float32; convert with time.to(torch.int64)"),
    ("windows", {"time": torch.zeros(T)}, "time must be int32 or int64, got float32; convert with time.to(torch.int64)"),
    ("dense", {"time": torch.zeros(S, 4, dtype=LONG)}, "time must have shape [S, M] = [2, 5] to match rows, got [2, 4]"),
    ("dense", {"time": torch.zeros(T, dtype=LONG)},
     "time must have shape [S, M], got [7]; for flat sequences give offsets, or starts and ends"),
    ("dense", {"rows": torch.zeros(T, L)},
     "rows must have shape [S, M, L] for dense histories, got [7, 4]; for [T, L] pass offsets, or starts and ends"),
    ("lookup", {"rows": lc.Lookup(torch.zeros(S, M, L), torch.zeros(S, M, dtype=LONG))},
     "rows must have shape [N, L] with ids, got [2, 5, 4]; for [T, L] pass offsets, or starts and ends"),
    ("lookup", {"rows": lc.Lookup(torch.zeros(N, L), torch.zeros(S, 4, dtype=LONG))},
     "ids must have time's shape [2, 5], got [2, 4]"),
    ("lookup", {"rows": lc.Lookup(torch.zeros(N, L), torch.zeros(S, M))},
     "ids must be int32 or int64, got float32; convert with ids.to(torch.int64)"),
    ("lengths", {"lengths": ints(1)}, "lengths must have shape [S] = [2] to match rows, got [1]"),
    ("lengths", {"lengths": ints(1, 2)[None]}, "lengths must have shape [S] = [2] to match rows, got [1, 2]"),
    ("lengths", {"lengths": torch.ones(S)}, "lengths must be int32 or int64, got float32; convert with lengths.to(torch.int64)"),
    ("masked", {"mask": torch.ones(S, 4).bool()}, "mask must be bool of time's shape [2, 5], got bool [2, 4]"),
    ("masked", {"mask": torch.ones(S, M)}, "mask must be bool of time's shape [2, 5], got float32 [2, 5]"),
    ("ragged", {"time": torch.zeros(S, M, dtype=LONG)},
     "time must have shape [T] for ragged and windows, got [2, 5]; flatten the sequences into one"),
    ("ragged", {"time": torch.zeros(6, dtype=LONG)}, "time must have shape [T] = [7] to match rows, got [6]"),
    ("ragged", {"rows": torch.zeros(S, M, L)}, "rows must have shape [T, L] with offsets, or starts and ends, got [2, 5, 4]"),
    ("ragged", {"offsets": torch.zeros(3)}, "offsets must be int32 or int64, got float32; convert with offsets.to(torch.int64)"),
    ("ragged", {"offsets": torch.zeros(1, 3, dtype=LONG)},
     "offsets must have shape [S + 1], got [1, 3]"),
    ("ragged", {"mask": torch.ones(6).bool()}, "mask must be bool of time's shape [7], got bool [6]"),
    ("ragged_many", {"query_offsets": ints(0, 3)}, "query_offsets must have shape [S + 1] = [3] as the other bounds, got [2]"),
    ("ragged_many", {"query_offsets": torch.zeros(3)},
     "query_offsets must be int32 or int64, got float32; convert with query_offsets.to(torch.int64)"),
    ("windows", {"starts": ints(0)}, "ends must have shape [S] = [1] as the other bounds, got [2]"),
    ("windows", {"ends": ints(7)}, "ends must have shape [S] = [2] as the other bounds, got [1]"),
    ("windows", {"starts": torch.zeros(2)}, "starts must be int32 or int64, got float32; convert with starts.to(torch.int64)"),
    ("windows", {"ends": torch.zeros(2)}, "ends must be int32 or int64, got float32; convert with ends.to(torch.int64)"),
    ("windows", {"starts": None}, "ends must come with starts (windows), got starts=None"),
    ("windows", {"ends": None}, "starts must come with ends (windows), got ends=None"),
    ("windows_many", {"query_offsets": ints(0, 1, 2, 3)},
     "query_offsets must have shape [S + 1] = [3] as the other bounds, got [4]"),
    ("windows_many", {"starts": None, "ends": None},
     "query_offsets must come with offsets (ragged), or starts and ends (windows), got neither"),
    ("ragged_many", {"offsets": None}, "query_offsets must come with offsets (ragged), or starts and ends (windows), got neither"),
    ("flat_lookup", {"rows": lc.Lookup(torch.zeros(N, L), torch.zeros(6, dtype=LONG))}, "ids must have time's shape [7], got [6]"),
    ("dense", {"rows": torch.zeros(S, M, L, device="meta")}, f"rows {DEVICE}"),
    ("lookup", {"rows": lc.Lookup(torch.zeros(N, L, device="meta"), torch.zeros(S, M, dtype=LONG))}, f"rows' table {DEVICE}"),
    ("lookup", {"rows": lc.Lookup(torch.zeros(N, L), torch.zeros(S, M, dtype=LONG, device="meta"))}, f"ids {DEVICE}"),
    ("lengths", {"lengths": torch.zeros(S, dtype=LONG, device="meta")}, f"lengths {DEVICE}"),
    ("masked", {"mask": torch.zeros(S, M, device="meta").bool()}, f"mask {DEVICE}"),
    ("ragged", {"offsets": torch.zeros(3, dtype=LONG, device="meta")}, f"offsets {DEVICE}"),
    ("ragged_many", {"query_offsets": torch.zeros(3, dtype=LONG, device="meta")}, f"query_offsets {DEVICE}"),
    ("windows", {"starts": torch.zeros(2, dtype=LONG, device="meta")}, f"starts {DEVICE}"),
    ("windows", {"ends": torch.zeros(2, dtype=LONG, device="meta")}, f"ends {DEVICE}"),
]  # fmt: skip


@pytest.mark.parametrize(("layout", "changes", "message"), MISTAKES)
def test_a_mistake_has_a_sentence(layout: str, changes: dict[str, Any], message: str) -> None:
    made = constructor(layout)
    with pytest.raises(ValueError) as caught:
        made(**arguments_of(layout) | changes)
    assert str(caught.value) == f"History.{made.__name__}: {message}"


def test_a_layout_has_no_arguments_of_another() -> None:
    for layout, name in (
        ("dense", "offsets"),
        ("dense", "query_offsets"),
        ("ragged", "starts"),
        ("windows", "offsets"),
    ):
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
            constructor(layout)(**arguments_of(layout), **{name: ints(0, 1, 2)})


@every_layout
def test_it_goes_to_another_device_and_dtype(layout: str) -> None:
    history = make(layout)
    floats = history.to(dtype=torch.bfloat16)
    assert floats.table.dtype == torch.bfloat16
    for mine, other in zip(tree_leaves(floats), tree_leaves(history), strict=True):
        if isinstance(mine, Tensor) and not mine.is_floating_point():
            assert mine is other  # only rows have another dtype; nothing else is copied
    for there in (
        history.to("meta"),
        history.to(torch.device("meta")),
        history.to(device="meta", non_blocking=True),
    ):
        assert type(there) is lc.History
        for mine, other in zip(tree_leaves(there), tree_leaves(history), strict=True):
            if not isinstance(mine, Tensor):
                assert mine is other
                continue
            assert mine.is_meta
            assert (mine.dtype, mine.shape) == (other.dtype, other.shape)
    assert all(
        mine is other
        for mine, other in zip(tree_leaves(history.to()), tree_leaves(history), strict=True)
    )
    both = history.to("meta", torch.float16)
    assert (both.table.dtype, both.table.device.type) == (torch.float16, "meta")


def test_a_lookup_stays_as_sparse_as_it_was() -> None:
    for sparse in (False, True):
        history = make("lookup")
        history = history._replace(rows=history.rows._replace(sparse=sparse))  # type: ignore[union-attr]
        moved = history.to(dtype=torch.float16)
        assert isinstance(moved.rows, lc.Lookup)
        assert moved.rows.sparse is sparse
        assert moved.rows.ids.dtype == torch.int64


@every_layout
def test_it_gives_the_keywords_of_the_ops(layout: str, device: str) -> None:
    history = make(layout).to(device)
    given, mlp = arguments_of(layout), lc.TimeSimilarity().to(device)
    query = torch.randn(queries_of(layout), L, device=device)
    now = torch.full((S,), 10**6, device=device)
    names = {"lengths", "offsets", "query_offsets", "starts", "ends", "mask"}
    assert set(history.layout()) == names
    assert set(history.arguments()) == names | {"keys", "key_time", "ids"}
    by_hand = {name: getattr(history, name) for name in names & set(given)}
    if isinstance(history.rows, lc.Lookup):
        by_hand |= {"keys": history.rows.table, "ids": history.rows.ids}
    else:
        by_hand["keys"] = history.rows
    found = lc.clock_gsu(query, query_time=now, mlp=mlp, k=3, **history.arguments())
    assert_bitwise(
        found, lc.clock_gsu(query, key_time=history.time, query_time=now, mlp=mlp, k=3, **by_hand)
    )
    assert found.indices.shape == (queries_of(layout), 3)
    u = torch.randn(queries_of(layout), 2, L, device=device)
    attended = [
        op(u, history.rows, history.time, now, mlp, found=found.indices, **history.layout())
        for op in (lc.esu_attention, lc.reference.esu_attention)
    ]
    torch.testing.assert_close(*attended, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", ["compiled", "reference"])
@pytest.mark.parametrize("k", [3, None])
def test_empty_histories(device: str, backend: Any, k: int | None) -> None:
    module = lc.LongTermInterestClock(L, H, k=k, out_dim=2, backend=backend).to(device)

    def run(history: lc.History, queries: int, sequences: int) -> None:
        history = history.to(device)
        history.table.requires_grad_()
        now = torch.zeros(sequences, dtype=torch.int64, device=device)
        options = {"longest": 0} if k is None and not history.is_dense else {}
        v = module(torch.randn(queries, H, device=device), history, now, **options)
        assert v.shape == (queries, 2)
        assert v.isfinite().all()
        v.sum().backward()
        assert history.table.grad is None or (history.table.grad == 0).all()

    for s, m in ((0, 0), (0, M), (S, 0)):
        times = torch.zeros(s, m, dtype=torch.int64)
        run(lc.History.dense(torch.randn(s, m, L), times), s, s)
        run(lc.History.dense(lc.Lookup(torch.randn(N, L), times), times), s, s)
        run(lc.History.dense(lc.Lookup(torch.randn(0, L), times), times, times[:, :0].sum(1)), s, s)
    nothing = torch.zeros(0, dtype=torch.int64)
    for s in (0, S):
        edges, bounds = torch.zeros(s + 1, dtype=torch.int64), torch.zeros(s, dtype=torch.int64)
        for rows in (torch.randn(0, L), lc.Lookup(torch.randn(N, L), nothing)):
            run(lc.History.ragged(rows, nothing, edges), s, s)
            run(
                lc.History.ragged(rows, nothing, edges, query_offsets=2 * torch.arange(s + 1)),
                2 * s,
                s,
            )
            run(lc.History.ragged(rows, nothing, edges, query_offsets=edges), 0, s)
            run(lc.History.windows(rows, nothing, bounds, bounds), s, s)
            run(
                lc.History.windows(
                    rows, nothing, bounds, bounds, query_offsets=2 * torch.arange(s + 1)
                ),
                2 * s,
                s,
            )
        run(
            lc.History.windows(
                torch.randn(T, L), torch.zeros(T, dtype=torch.int64), bounds, bounds
            ),
            s,
            s,
        )


def test_no_offsets_at_all_are_too_few() -> None:
    with pytest.raises(
        ValueError, match=r"^History.ragged: offsets must have shape \[S \+ 1\], got \[0\]$"
    ):
        lc.History.ragged(torch.randn(3, 4), torch.zeros(3, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))  # fmt: skip


def test_a_dtype_is_no_device() -> None:
    history = lc.History.dense(torch.randn(1, 2, 4), torch.zeros(1, 2, dtype=torch.int64))
    with pytest.raises(
        ValueError, match=r"^History.to: device must be a device, got torch.float16"
    ):
        history.to(torch.float16)  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", ["compiled", "reference"])
def test_attention_to_everything_checks_before_it_counts(backend: Any) -> None:
    """Bounds that are wrong make no tensor of their size, and candidates are told by their name."""
    model = lc.LongTermInterestClock(4, 4, k=None, backend=backend)
    rows, time, now = torch.randn(5, 4), torch.zeros(5, dtype=torch.int64), torch.tensor([60])

    def refused(history: lc.History, text: str, *shape: int) -> None:
        with pytest.raises(ValueError, match=f"^LongTermInterestClock: {text}"):
            model(torch.ones(shape or (1, 4)), history, now)

    def window(start: int, end: int) -> lc.History:
        return lc.History.windows(rows, time, torch.tensor([start]), torch.tensor([end]))

    refused(
        window(3, 1), "starts and ends must satisfy 0 <= start <= end <= T = 5, got 3 and 1 at 0"
    )
    refused(window(0, 10**11), "starts and ends must satisfy 0 <= start <= end <= T = 5")
    refused(lc.History.ragged(rows, time, torch.tensor([5, 2])), "offsets must start at 0, got 5")
    refused(window(0, 5), r"candidate must have shape \[Q, 4\], got \[1, 2, 4\]", 1, 2, 4)  # fmt: skip
    dense = lc.History.dense(rows[None], time[None])
    refused(dense, r"candidate must have S = 1 in its first dimension .*, got \[2, 4\]", 2, 4)  # fmt: skip
    every = model(torch.ones(1, 4), window(0, 5), now, longest=10**12)
    torch.testing.assert_close(every, model(torch.ones(1, 4), window(0, 5), now))
