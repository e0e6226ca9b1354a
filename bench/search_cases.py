# SPDX-License-Identifier: Apache-2.0
"""Searches beside what else they could be: other layouts, tables, numbers of candidates, and other libraries."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

import longclock as lc
from bench import peers
from bench.checks import selection
from bench.harness import Case, Check
from bench.inputs import (
    DTYPES,
    Search,
    make_mlp,
    make_search,
    shared_windows,
    wide,
)


def rows_of(scores: torch.Tensor, counts: list[int]) -> torch.Tensor:
    """Flat scores, query after query, as [Q, longest] padded with -inf."""
    return pad_sequence(list(scores.split(counts)), batch_first=True, padding_value=-torch.inf)


def product_alone(case: Search) -> Callable[[], Any]:
    """The matrix product of all candidates and keys, into memory that is there."""
    query, keys = case.query, case.keys.transpose(1, 2)
    out = query.new_empty(*query.shape[:-1], keys.shape[-1])
    if len(query) > 1:
        return lambda: torch.bmm(query, keys, out=out)
    return lambda: torch.mm(query[0], keys[0], out=out[0])


def nearest_by_faiss(case: Search, k: int) -> dict[str, Callable[[], Any]]:
    """Exact search by inner product alone, without the time term, for one request in fp32."""
    if case.query.dtype != torch.float32:
        return {}
    module = peers.faiss_of(case.query, "faiss.knn")
    if module is None:
        return {}
    query, keys = case.query[0].numpy(), case.keys[0].numpy()
    return {"faiss.knn": lambda: module.knn(query, keys, k, metric=module.METRIC_INNER_PRODUCT)}


def search_case(
    name: str,
    case: Search,
    k: int,
    sizes: dict[str, Any],
    counts: list[int] | None = None,
    memory: bool = False,
) -> Case:
    """counts: behaviours of each query, for ragged and windows."""
    rivals: dict[str, Callable[[], Any]] = {
        "longclock": lambda: case.run(lc.clock_gsu, k),
        "reference": lambda: case.run(lc.reference.clock_gsu, k),
    }
    many, clocks = case.query.dim() == 3, case.layout.get("clocks")
    if clocks is not None:  # beside one clock alone
        layout = {name: value for name, value in case.layout.items() if name != "clocks"}
        alone = dataclasses.replace(case, mlp=make_mlp(), layout=layout)
        rivals["a day alone"] = lambda: alone.run(lc.clock_gsu, k)
    elif counts is None:
        rivals["torch"] = lambda: case.plain_scores().topk(k)
    if many:
        rivals["matmul alone"] = product_alone(case)
        rivals |= nearest_by_faiss(case, k)

    def check() -> Check:
        exact, eager = case.exact(), case.run(lc.reference.gsu_score)
        if counts is not None:
            exact, eager = rows_of(exact, counts), rows_of(eager, counts)
        return selection(case.run(lc.clock_gsu, k), exact, eager)

    windows = "starts" in case.layout
    evaluations = sum(counts) if counts else case.query[..., 0].numel() * case.key_time.shape[-1]
    return Case(
        name,
        sizes | {"K": k},
        rivals,
        check,
        read=None if many or windows else case.gathered().keys,
        flops=2 * evaluations * case.query.shape[-1] if many or windows else 0,
        behaviours=evaluations,
        compiled="torch" if counts is None and clocks is None else None,
        memory=memory,
    )


def two_tables(
    s: int, m: int, widths: tuple[int, int], rows: tuple[int, int], dtype: str, k: int, **given: int
) -> Case:
    """An item and a feature, beside rows of one table that are as wide as both. given: candidates."""
    case = make_search(s, m, sum(widths), DTYPES[dtype], table=rows[0], **given)
    item, feature = (part.contiguous() for part in case.keys.split(widths, 1))
    tables: Any = (item, feature[: rows[1]])
    layout = {**case.layout, "ids": (case.layout["ids"], torch.randint(0, rows[1], (s, m)))}
    several = dataclasses.replace(case, keys=tables, layout=layout)
    doubles: Any = tuple(table.double() for table in tables)
    exact = dataclasses.replace(
        several, keys=doubles, query=case.query.double(), mlp=wide(case.mlp)
    )

    def check() -> Check:
        found = several.run(lc.clock_gsu, k)
        return selection(
            found, exact.run(lc.reference.gsu_score), several.run(lc.reference.gsu_score)
        )

    rivals: dict[str, Callable[[], Any]] = {
        "longclock": lambda: several.run(lc.clock_gsu, k),
        "reference": lambda: several.run(lc.reference.clock_gsu, k),
        "joined into one table": lambda: case.run(lc.clock_gsu, k),
    }
    if not given:  # what reading the rows alone takes: a sum over each history's
        rivals["reading both tables"] = lambda: summed(tables, layout["ids"])
        rivals["reading the joined one"] = lambda: summed((case.keys,), (case.layout["ids"],))
    n, d = (f"{one:,} + {two:,}" for one, two in (rows, widths))
    sizes = {"S": s, "M": m, "N": n, "D": d, "K": k, "dtype": dtype}
    title = f"two tables, {dtype}"
    if rows[1] < rows[0] and not given:
        title = f"two tables, of which one small, {dtype}"
    if given:
        sizes["C"] = given["candidates"]
        title = f"{sizes['C']} candidates, {title}"
    return Case(title, sizes, rivals, check, read=case.gathered().keys, behaviours=s * m)


def summed(tables: Sequence[Tensor], ids: Sequence[Tensor]) -> list[Tensor]:
    return [
        functional.embedding_bag(each.long(), table, mode="sum")
        for table, each in zip(tables, ids, strict=True)
    ]


def few_candidates(
    c: int, layout: str, s: int, m: int, d: int, rows: int, dtype: str, k: int
) -> Case:
    """S requests of C candidates, beside one of the candidates, and beside the product and topk without the time term."""
    table = rows if layout == "table" else 0
    case = make_search(s, m, d, DTYPES[dtype], candidates=c, table=table)
    one = dataclasses.replace(case, query=case.query[:, 0].contiguous())
    ours = shared_windows(case) if layout == "windows" else case

    def plain() -> Any:
        return torch.bmm(case.query, case.gathered().keys.transpose(1, 2)).topk(k)

    def check() -> Check:
        exact, eager = case.exact(), case.run(lc.reference.gsu_score)
        found = (part.view(s, c, k) for part in ours.run(lc.clock_gsu, k))
        return selection(lc.TopK(*found), exact, eager)

    rivals: dict[str, Callable[[], Any]] = {
        "longclock": lambda: ours.run(lc.clock_gsu, k),
        "reference": lambda: ours.run(lc.reference.clock_gsu, k),
        "bmm and topk": plain,
        "one candidate": lambda: one.run(lc.clock_gsu, k),
    }
    sizes = {"S": s, "C": c, "M": m, "D": d, "dtype": dtype, "K": k}
    where = "" if layout == "dense" else f"{layout}, "
    return Case(
        f"{c} candidates, {where}{dtype}", sizes, rivals, check, read=case.gathered().keys,
        behaviours=s * c * m,
    )  # fmt: skip
