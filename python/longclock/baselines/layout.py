# SPDX-License-Identifier: Apache-2.0
"""What a call of a baseline hands over, checked, and every layout as windows of the flattened behaviours."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from longclock._mlp import require_integers
from longclock.data.stream import DAY
from longclock.ops._call import in_graph
from longclock.ops._errors import check_size, remedy, wrong_tensor
from longclock.types import Lookup

OUTSIDE = "mask what is not there"
LAYOUT = ("mask", "starts", "ends", "offsets", "query_offsets")


def check_sizes(op: str, **sizes: Any) -> None:
    """Each an int of at least 1."""
    for name, size in sizes.items():
        check_size(op, name, size, 1)


def check_whole_days(op: str, period: int) -> None:
    """What reads the time of day from a time on the clock needs whole days of it."""
    if period % DAY:
        raise ValueError(
            f"{op}: period must be whole days, a multiple of {DAY}, got {period}: times tell the time of day"
        )


def dtype_of(module: nn.Module) -> torch.dtype:
    """Of a network's weights, which its inputs are brought to."""
    return next(module.parameters()).dtype


def kind_of(value: Any) -> str:
    """A value as an error tells it: a tensor by dtype and shape."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return type(value).__name__


def require_dense(op: str, **arguments: Any) -> None:
    """Tensors that hold a number at every place."""
    for name, value in arguments.items():
        if not isinstance(value, Tensor):
            raise ValueError(
                f"{op}: {name} must be a tensor, got {type(value).__name__}{remedy(value)}"
            )
        for wrong in wrong_tensor(name, value):
            raise ValueError(f"{op}: {wrong}")


def check_shape(op: str, name: str, value: Tensor, shape: tuple[int, ...], letters: str) -> None:
    """``letters``: the shape as the documentation writes it, and what it follows from; {} is its numbers."""
    if value.shape != shape:
        raise ValueError(
            f"{op}: {name} must have {letters.format(list(shape))}, got {list(value.shape)}"
        )


def check_floats(op: str, name: str, value: Any, width: int, argument: str) -> None:
    """Rows of ``width`` floating columns, in one dimension or more."""
    require_dense(op, **{name: value})
    if not value.is_floating_point():
        raise ValueError(
            f"{op}: {name} must be floating, got {kind_of(value)}; convert it with .float()"
        )
    if value.dim() < 2 or value.shape[-1] != width:
        raise ValueError(
            f"{op}: {name} must be rows with {argument} = {width} in the last dimension, got "
            f"{list(value.shape)}; build the module with the {argument} of your data"
        )


def check_integers(
    op: str, name: str, ids: Any, shape: tuple[int, ...], letters: str, like: Tensor
) -> None:
    """int32 or int64 of that shape, on the device of ``like``."""
    require_dense(op, **{name: ids})
    require_integers(op, **{name: ids})
    check_shape(op, name, ids, shape, letters)
    check_device(op, like, **{name: ids})


def check_ids(op: str, name: str, ids: Tensor, end: int | None, hint: str) -> None:
    """Ids, those that are read only, are from 0 to ``end`` - 1; None: of any table."""
    if ids.numel() == 0 or not _known(ids):
        return
    least, most = (int(bound) for bound in torch.aminmax(ids))
    if least < 0 or (end is not None and most >= end):
        span = "at least 0" if end is None else f"from 0 to {end - 1}"
        wrong = least if least < 0 else most
        raise ValueError(f"{op}: {name} must be {span}, got {wrong}; {hint}")


def check_behaviours(op: str, behaviours: Any, behaviour_time: Tensor, width: int) -> None:
    """Rows, or a Lookup, with one row a time. The ids of a Lookup are checked where they are read."""
    shape = tuple(behaviour_time.shape)
    if isinstance(behaviours, Lookup):
        check_floats(op, "behaviours.table", behaviours.table, width, "behaviour_dim")
        if behaviours.table.dim() != 2:
            raise ValueError(
                f"{op}: behaviours.table must have shape [N, {width}], got {list(behaviours.table.shape)}"
            )
        check_integers(
            op,
            "behaviours.ids",
            behaviours.ids,
            shape,
            "the shape of behaviour_time = {}",
            behaviour_time,
        )
        check_device(op, behaviour_time, **{"behaviours.table": behaviours.table})
    else:
        if not isinstance(behaviours, Tensor):
            raise ValueError(
                f"{op}: behaviours must be a tensor or a Lookup, got {type(behaviours).__name__}"
            )
        check_floats(op, "behaviours", behaviours, width, "behaviour_dim")
        check_shape(
            op,
            "behaviours",
            behaviours,
            (*shape, width),
            "shape {}, a row for every behaviour_time",
        )
        check_device(op, behaviour_time, behaviours=behaviours)


def check_call(
    op: str,
    candidate: Tensor,
    candidate_dim: int,
    behaviour_time: Tensor,
    query_time: Tensor,
    lengths: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    starts: Tensor | None = None,
    ends: Tensor | None = None,
    offsets: Tensor | None = None,
    query_offsets: Tensor | None = None,
    **unknown: Any,
) -> None:
    """Types, shapes and devices of a call, of any layout; nothing is read of what the tensors hold.

    Behaviours are :func:`check_behaviours`'; values are checked by :func:`sequences_of` and :func:`each_candidate`.
    """
    for name in unknown:
        raise TypeError(
            f"{op}: a call takes no keyword {name!r}; those of a layout are lengths, {', '.join(LAYOUT)}"
        )
    check_floats(op, "candidate", candidate, candidate_dim, "candidate_dim")
    if candidate.dim() > 3:
        raise ValueError(
            f"{op}: candidate must have shape [S, {candidate_dim}] or [S, C, {candidate_dim}], got {list(candidate.shape)}"
        )
    others = {
        "lengths": lengths, "starts": starts, "ends": ends, "offsets": offsets, "query_offsets": query_offsets,
    }  # fmt: skip
    integers = {"behaviour_time": behaviour_time, "query_time": query_time}
    integers |= {name: value for name, value in others.items() if value is not None}
    require_dense(op, **integers)
    require_integers(op, **integers)
    if (starts is None) != (ends is None):
        given, other = ("starts", "ends") if ends is None else ("ends", "starts")
        raise ValueError(f"{op}: {given} must come with {other} (windows), got {other}=None")
    if starts is not None and offsets is not None:
        raise ValueError(
            f"{op}: starts must not be given with offsets; windows take starts and ends, ragged takes offsets"
        )
    if query_offsets is not None and offsets is None:
        raise ValueError(f"{op}: query_offsets must come with offsets (ragged), got offsets=None")
    flat = starts is not None or offsets is not None
    if flat and lengths is not None:
        raise ValueError(
            f"{op}: lengths must be None for ragged and windows; it belongs to the dense layout"
        )
    if behaviour_time.dim() != (1 if flat else 2):
        expected = "[T] for ragged and windows" if flat else "[S, M]"
        remedy = (
            "flatten the sequences into one" if flat
            else "for flat sequences give offsets, or starts and ends"
        )  # fmt: skip
        raise ValueError(
            f"{op}: behaviour_time must have shape {expected}, got {list(behaviour_time.shape)}; {remedy}"
        )
    if flat and candidate.dim() != 2:
        raise ValueError(
            f"{op}: candidate must have shape [Q, {candidate_dim}] for ragged and windows, got "
            f"{list(candidate.shape)}; give several of a sequence by query_offsets"
        )
    queries, same = len(candidate), "shape [Q] = {}, one a candidate"
    if not flat:
        sequences, same = len(behaviour_time), "shape [S] = {} to match behaviour_time"
        if queries != sequences:
            raise ValueError(
                f"{op}: candidate must have S = {sequences} in its first dimension to match behaviour_time, got "
                f"{list(candidate.shape)}"
            )
    elif query_offsets is not None:
        sequences, same = query_offsets.numel() - 1, "shape [S] = {} to match query_offsets [S + 1]"
        if query_offsets.dim() != 1 or sequences < 0:
            raise ValueError(
                f"{op}: query_offsets must have shape [S + 1], got {list(query_offsets.shape)}"
            )
    else:
        sequences = queries
    check_shape(op, "query_time", query_time, (sequences,), same)
    if offsets is not None:
        check_shape(
            op, "offsets", offsets, (sequences + 1,), "shape [S + 1] = {} to match query_time [S]"
        )
    for name, bound in (("lengths", lengths), ("starts", starts), ("ends", ends)):
        if bound is not None:
            check_shape(op, name, bound, (sequences,), same)
    if mask is not None and (
        not isinstance(mask, Tensor)
        or mask.dtype != torch.bool
        or mask.shape != behaviour_time.shape
    ):
        raise ValueError(
            f"{op}: mask must be bool of behaviour_time's shape {list(behaviour_time.shape)}, got {kind_of(mask)}"
        )
    check_device(
        op, behaviour_time, candidate=candidate, query_time=query_time, lengths=lengths, mask=mask, starts=starts,
        ends=ends, offsets=offsets, query_offsets=query_offsets,
    )  # fmt: skip


def check_device(op: str, like: Tensor, **others: Tensor | None) -> None:
    for name, value in others.items():
        if value is not None and value.device != like.device:
            raise ValueError(
                f"{op}: {name} must be on {like.device} as the other arguments, got {value.device}"
            )


def sequences_of(
    op: str,
    behaviour_time: Tensor,
    lengths: Tensor | None = None,
    starts: Tensor | None = None,
    ends: Tensor | None = None,
    offsets: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Where each sequence, or window, of a checked call begins and ends in the flattened behaviours: int64 [S] twice.

    The values are checked, which on a GPU waits for them.
    """
    places = behaviour_time.numel()
    if offsets is not None:
        _check_offsets(op, "offsets", offsets, f"T = {places}", places)
        return offsets[:-1].long(), offsets[1:].long()
    if starts is not None and ends is not None:
        starts, ends = starts.long(), ends.long()
        wrong = (starts < 0) | (ends < starts) | (ends > places)
        at = _first(wrong)
        if at is not None:
            raise ValueError(
                f"{op}: starts and ends must satisfy 0 <= start <= end <= T = {places}, got {int(starts[at])} and "
                f"{int(ends[at])} at {at}"
            )
        return starts, ends
    sequences, longest = behaviour_time.shape
    starts = torch.arange(sequences, device=behaviour_time.device) * longest
    if lengths is None:
        return starts, starts + longest
    at = _first((lengths < 0) | (lengths > longest))
    if at is not None:
        raise ValueError(
            f"{op}: lengths must be from 0 to M = {longest}, got {int(lengths[at])} at {at}"
        )
    return starts, starts + lengths


def each_candidate(
    op: str, candidate: Tensor, query_offsets: Tensor | None, *of_sequences: Tensor
) -> tuple[Tensor, ...]:
    """Rows of the sequences or windows of a checked call, [S, ...] each, as one row a candidate: [Q, ...] each."""
    if query_offsets is not None:
        _check_offsets(op, "query_offsets", query_offsets, f"Q = {len(candidate)}", len(candidate))
        counts = query_offsets.diff()
        return tuple(row.repeat_interleave(counts, 0) for row in of_sequences)
    if candidate.dim() == 3:  # [S, C, H]: one history, C candidates
        return tuple(row.repeat_interleave(candidate.shape[1], 0) for row in of_sequences)
    return of_sequences


def _check_offsets(op: str, name: str, offsets: Tensor, end: str, last: int) -> None:
    if not _known(offsets):
        return
    for what, at, expected, told in (("start", 0, 0, "0"), ("end", -1, last, end)):
        if int(offsets[at]) != expected:
            raise ValueError(f"{op}: {name} must {what} at {told}, got {int(offsets[at])}")
    falls = _first(offsets[1:] < offsets[:-1])
    if falls is not None:
        before, after = offsets[falls : falls + 2].tolist()
        raise ValueError(
            f"{op}: {name} must not decrease, got {before} then {after} at {falls + 1}"
        )


def _known(values: Tensor) -> bool:
    """Whether there are values to check: a graph that is traced and the meta device have none."""
    return not (values.is_meta or in_graph())


def _first(wrong: Tensor) -> int | None:
    """Where the first True is."""
    if not _known(wrong) or not wrong.any():
        return None
    return int(wrong.to(torch.uint8).argmax())


def windows_of(
    op: str,
    candidate: Tensor,
    candidate_dim: int,
    behaviour_time: Tensor,
    query_time: Tensor,
    lengths: Tensor | None,
    *of_sequences: Tensor,
    **layout: Any,
) -> tuple[Tensor, ...]:
    """A call, checked, as windows of the flattened behaviours, one for each of the Q candidates.

    Args:
        candidate .. layout: of a call. of_sequences: a row a sequence or window, [S, ...].
    Returns:
        starts and ends, int64 [Q], then ``of_sequences``, a row a candidate.
    """
    check_call(op, candidate, candidate_dim, behaviour_time, query_time, lengths, **layout)
    bounds = {name: layout.get(name) for name in ("starts", "ends", "offsets")}
    windows = sequences_of(op, behaviour_time, lengths, **bounds)
    return each_candidate(op, candidate, layout.get("query_offsets"), *windows, *of_sequences)
