# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

import longclock as lc
from bench import peers
from bench.checks import selection
from bench.harness import Case, Check
from bench.inputs import DTYPES, Search, make_ragged, make_search, make_windows


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
    many = case.query.dim() == 3
    if counts is None:
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
        compiled="torch" if counts is None else None,
        memory=memory,
    )


def cases(quick: bool) -> Iterator[Case]:
    s, m, d, rows, k = (3, 300, 16, 500, 10) if quick else (32, 10_000, 128, 1_000_000, 100)
    candidates, long = (7, 3_000) if quick else (500, 1_000_000)
    for name, dtype in DTYPES.items():
        sizes = {"S": s, "M": m, "D": d, "dtype": name}
        yield search_case(f"dense, {name}", make_search(s, m, d, dtype), k, sizes)
    for name in ("fp32", "bf16"):
        sizes = {"S": s, "M": m, "N": rows, "D": d // 2, "dtype": name}
        case = make_search(s, m, d // 2, DTYPES[name], table=rows)
        yield search_case(f"table, {name}", case, k, sizes, memory=name == "fp32")
    for name in ("fp32", "bf16"):
        sizes = {"S": 1, "C": candidates, "M": m, "D": d, "dtype": name}
        case = make_search(1, m, d, DTYPES[name], candidates=candidates)
        title = f"{candidates} candidates, {name}"
        yield search_case(title, case, k, sizes, memory=name == "fp32")
    sizes = {"S": 1, "M": long, "D": d, "dtype": "fp32"}
    case = make_search(1, long, d, torch.float32)
    yield search_case(f"one history of {long:,}, fp32", case, k, sizes)
    case = make_ragged(2 * s, 10, 2 * m, d)
    sizes = {"S": 2 * s, "M": f"10 to {2 * m}", "D": d, "dtype": "fp32"}
    counts = case.layout["offsets"].diff().tolist()
    yield search_case("ragged, fp32", case, k, sizes, counts)
    windows = 5 if quick else 500
    sizes = {"Q": windows, "M": m, "D": d // 2, "dtype": "fp32"}
    case = make_windows(windows, m, d // 2)
    yield search_case(f"{windows} windows, fp32", case, k, sizes, [m] * windows)
