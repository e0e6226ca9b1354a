# SPDX-License-Identifier: Apache-2.0
"""Every baseline refuses by name what does not fit, in every layout, and reads nothing of it."""

from __future__ import annotations

import re
import warnings

import pytest
import torch
from rival_calls import BUILD, LAYOUTS
from rivals import H, L, M, S

from longclock import History, Lookup

I64 = torch.int64
MANY = torch.tensor


def changed(**changes):
    """Arguments of a call, or parts of its history, in place of what was there."""
    of_history = {name: value for name, value in changes.items() if name in History._fields}
    others = {name: value for name, value in changes.items() if name not in of_history}
    return lambda call: call | {"history": call["history"]._replace(**of_history)} | others


def of(name, change):
    def apply(call):
        value = getattr(call["history"], name) if name in History._fields else call[name]
        return changed(**{name: change(value)})(call)

    return apply


def lookup(change_ids=lambda ids: ids, change_table=lambda table: table):
    def change(rows):
        return Lookup(change_table(rows.table), change_ids(rows.ids))

    return of("rows", change)


def nested(rows):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a prototype
        return torch.nested.nested_tensor(list(rows))


def jagged(rows):
    return torch.nested.nested_tensor(list(rows), layout=torch.jagged)


def quantized(rows):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about its end
        return torch.quantize_per_tensor(rows, 0.1, 0, torch.quint8)


def far(ids):
    ids = ids.clone()
    ids[0, 8] = 11  # of 11 rows; the last behaviour of the longest history
    return ids


# Layout, what is changed, and what the message says of it.
FAULTS = {
    "lengths past M": ("dense", changed(lengths=MANY([9, 10, 0])), "lengths must be from 0 to M = 9, got 10 at 1"),
    "negative lengths": ("dense", changed(lengths=MANY([9, 2, -1])), "lengths must be from 0 to M = 9, got -1 at 2"),
    "lengths past M of a request": ("candidates", changed(lengths=MANY([99, 2, 0])), "lengths must be from 0 to M"),
    "lengths of other sequences": ("dense", changed(lengths=MANY([9, 2])), r"lengths must have shape \[S\] = \[3\]"),
    "float lengths": ("dense", of("lengths", torch.Tensor.float), "lengths must be int32 or int64, got float32"),
    "lengths in a list": ("dense", changed(lengths=[9, 2, 0]), r"(history\.)?lengths must be a tensor, got list"),
    "float times": ("dense", of("time", torch.Tensor.float), "history.time must be int32 or int64, got float32"),
    "no times": ("dense", changed(time=None), "history.time must be a tensor, got NoneType"),
    "times of other behaviours": ("dense", of("time", lambda time: time[:, 1:]), "must have|lengths must be"),
    "sparse times": ("dense", of("time", torch.Tensor.to_sparse), "history.time must be a strided tensor"),
    "nested lengths": ("dense", of("lengths", lambda _: nested(torch.ones(3, 1).long())), r"(history\.)?lengths must be a tensor of one shape"),
    "sparse candidates": ("dense", of("candidate", torch.Tensor.to_sparse), "candidate must be a strided tensor"),
    "flat times": ("dense", of("time", torch.Tensor.flatten), "history.time must have shape"),
    "float query times": ("dense", of("query_time", torch.Tensor.double), "query_time must be int32 or int64, got"),
    "no query times": ("dense", changed(query_time=None), "query_time must be a tensor, got NoneType"),
    "query times of others": ("dense", of("query_time", lambda now: now[1:]), r"query_time must have shape \[S\] = \[3\]"),
    "no candidate": ("dense", changed(candidate=None), "candidate must be a tensor, got NoneType"),
    "candidates in NumPy": ("dense", of("candidate", torch.Tensor.numpy), "candidate must be a tensor, got ndarray"),
    "wide candidates": ("dense", changed(candidate=torch.zeros(S, H + 1)), "candidate must .*candidate_dim = 5"),
    "one candidate": ("dense", changed(candidate=torch.zeros(H)), "candidate must"),
    "integer candidates": ("dense", of("candidate", torch.Tensor.long), "candidate must be"),
    "candidates of others": ("dense", of("candidate", lambda rows: rows[1:]), "must have S = 3 in its first dimension"),
    "mask of other behaviours": ("dense", changed(mask=torch.ones(S, M - 1, dtype=torch.bool)), "mask must be bool of"),
    "float mask": ("dense", changed(mask=torch.ones(S, M)), "mask must be bool of"),
    "windows from before": ("windows", changed(starts=MANY([0, -1, 11])), "0 <= start <= end <= T = 11, got -1"),
    "windows that end first": ("windows", changed(starts=MANY([0, 9, 11]), ends=MANY([9, 8, 11])), "got 9 and 8 at 1"),
    "windows past T": ("windows", changed(ends=MANY([9, 12, 11])), "<= T = 11, got 9 and 12 at 1"),
    "windows of others": ("windows", changed(starts=MANY([0]), ends=MANY([9])), r"starts must have shape \[Q\] = \[3\] to match candidate, got \[1\]"),
    "starts of others": ("windows", changed(starts=MANY([0])), r"ends must have shape \[S\] = \[1\] as the other bounds, got \[3\]|starts must have shape \[Q\] = \[3\]"),
    "windows of queries past Q": ("windows_many", changed(query_offsets=MANY([0, 2, 4, 7])), "query_offsets must end at Q = 6, got 7"),
    "windows of queries that fall": ("windows_many", changed(query_offsets=MANY([0, 4, 2, 6])), "query_offsets must not decrease, got 4 then 2 at 2"),
    "windows of other sequences": ("windows_many", changed(starts=MANY([0, 9]), ends=MANY([9, 11])), r"(query_offsets must have shape \[S \+ 1\] = \[3\] as the other bounds, got \[4\]|starts must have shape \[S\] = \[3\])"),
    "starts alone": ("windows", changed(ends=None), "starts must come with ends"),
    "ends alone": ("windows", changed(starts=None), "ends must come with starts"),
    "windows and offsets": ("windows", changed(offsets=MANY([0, 9, 11, 11])), "starts must not be given with offsets"),
    "windows and lengths": ("windows", changed(lengths=MANY([9, 2, 0])), "lengths must be None"),
    "float windows": ("windows", of("starts", torch.Tensor.float), "starts must be int32 or int64"),
    "offsets past T": ("ragged", changed(offsets=MANY([0, 9, 11, 12])), "offsets must end at T = 11, got 12"),
    "offsets short of T": ("ragged", changed(offsets=MANY([0, 9, 10, 10])), "offsets must end at T = 11, got 10"),
    "offsets that fall": ("ragged", changed(offsets=MANY([0, 9, 2, 11])), "offsets must not decrease, got 9 then 2 at 2"),
    "late offsets": ("ragged", changed(offsets=MANY([1, 9, 11, 11])), "offsets must start at 0, got 1"),
    "offsets of others": ("ragged", changed(offsets=MANY([0, 9, 11])), r"offsets must have shape \[S \+ 1\]"),
    "query_offsets past Q": ("ragged_many", changed(query_offsets=MANY([0, 2, 4, 7])), "query_offsets must end at Q = 6, got 7"),
    "query_offsets that fall": ("ragged_many", changed(query_offsets=MANY([0, 4, 2, 6])), "query_offsets must not decrease, got 4 then 2 at 2"),
    "query_offsets alone": ("ragged_many", changed(offsets=None), r"query_offsets must come with offsets \(ragged\), or starts and ends \(windows\), got neither"),
    "no history": ("dense", changed(history=None), "history must be a History, got NoneType; make one with History.dense, .ragged or .windows"),
    "rows for a history": ("dense", changed(history=torch.zeros(S, M, L)), "history must be a History, got Tensor"),
    "a tuple for a history": ("dense", of("history", tuple), "history must be a History, got tuple"),

}  # fmt: skip
OF_BEHAVIOURS = {
    "sparse behaviours": ("dense", of("rows", torch.Tensor.to_sparse), "must be a strided tensor, got one of layout sparse_coo"),
    "nested behaviours": ("dense", of("rows", nested), "must be a tensor of one shape, got a nested"),
    "jagged behaviours": ("dense", of("rows", jagged), "must be a tensor of one shape, got a nested"),
    "quantized behaviours": ("dense", of("rows", quantized), "history.rows must not be quantized, got quint8"),
    "no behaviours": ("dense", changed(rows=None), "history.rows must be a tensor( or a Lookup)?, got NoneType"),
    "wide behaviours": ("dense", changed(rows=torch.zeros(S, M, L + 1)), "history.rows must .*behaviour_dim = 6"),
    "integer behaviours": ("dense", of("rows", torch.Tensor.long), "(history.rows|x) must be (floating|float32, float16 or bfloat16), got int64"),
    "behaviours of others": ("dense", of("rows", lambda rows: rows[1:]), "must have"),
    "ids past the table": ("table", lookup(far), r"(history\.rows\.)?ids must be from 0 to (N - 1 = )?10, got 11"),
    "every id past the table": ("table", lookup(lambda ids: ids + 11), r"(history\.rows\.)?ids must be from 0 to (N - 1 = )?10, got [12]\d"),
    "negative ids": ("table", lookup(lambda ids: -1 - ids), r"(history\.rows\.)?ids must be from 0 to (N - 1 = )?10, got -"),
    "ids of others": ("table", lookup(lambda ids: ids[:, 1:]), "ids must have (history.time|key_time)'s shape"),
    "float ids": ("table", lookup(torch.Tensor.float), "ids must be int32 or int64, got float32"),
    "no ids": ("table", lookup(lambda _: None), r"history\.rows(\.|'s )ids must be a tensor, got NoneType"),
    "no table": ("table", lookup(change_table=lambda _: None), r"history\.rows('s table)? must be a tensor, got NoneType"),
}  # fmt: skip
CASES = [
    pytest.param(name, *fault, id=f"{name}: {what}")
    for name in BUILD
    for what, fault in (FAULTS if "PeriodGraph" in name else FAULTS | OF_BEHAVIOURS).items()
    # SIMHard reads the ids of a category alone.
    if not (what == "ids past the table" and name.startswith("SIMHard"))
]


@pytest.mark.parametrize(("name", "layout", "change", "text"), CASES)
def test_calls_that_do_not_fit_are_refused_by_name(name, layout, change, text):
    model = BUILD[name]()
    call = LAYOUTS[layout](model)
    model(**call)  # right before it is changed
    own = type(model).__name__
    if name.startswith("WithHour"):
        own += f"|{type(model.interest).__name__}"
    with pytest.raises(ValueError, match=f"^({own}): (.* )?({text})"):
        model(**change(call))


@pytest.mark.parametrize("name", BUILD)
def test_unknown_keywords_are_named(name):
    model = BUILD[name]()
    with pytest.raises(TypeError, match=re.compile("lenghts")):
        model(**LAYOUTS["dense"](model), lenghts=None)
