# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch

import longclock as lc
from bench.cuda_report.cubins import ARCHITECTURES
from bench.cuda_report.entries import RELU, Call, D, Gate, HotLoop, K, M, Workload, gates_of
from bench.cuda_report.sass import Work
from bench.harness import Case
from bench.inputs import (
    DTYPES,
    make_ragged,
    make_search,
    make_windows,
    stacked_mlp,
)
from bench.search_cases import few_candidates, search_case, two_tables


def cases(quick: bool) -> Iterator[Case]:
    s, m, d, rows, k = (3, 300, 16, 500, 10) if quick else (32, 10_000, 128, 1_000_000, 100)
    candidates, long = (7, 3_000) if quick else (500, 1_000_000)
    for name, dtype in DTYPES.items():
        sizes = {"S": s, "M": m, "D": d, "dtype": name}
        yield search_case(f"dense, {name}", make_search(s, m, d, dtype), k, sizes)
    for title, clocks in (
        ("a day and a week, fp32", (86400, 604800)),
        ("a day and the time elapsed, fp32", (86400, lc.ELAPSED)),
    ):
        case = make_search(s, m, d // 2, torch.float32)
        case = dataclasses.replace(case, mlp=stacked_mlp(2), layout={"clocks": clocks})
        sizes = {"S": s, "M": m, "D": d // 2, "dtype": "fp32"}
        yield search_case(title, case, k, sizes)
    for name in ("fp32", "bf16"):
        sizes = {"S": s, "M": m, "N": rows, "D": d // 2, "dtype": name}
        case = make_search(s, m, d // 2, DTYPES[name], table=rows)
        yield search_case(f"table, {name}", case, k, sizes, memory=name == "fp32")
    for name in ("fp32", "bf16"):
        for of_feature in (rows, rows // 100):
            yield two_tables(s, m, (d // 4, d // 4), (rows, of_feature), name, k)
    for name in DTYPES:
        for c in (2, 5, 8):
            yield few_candidates(c, "dense", s, m, d // 2, rows, name, k)
    for layout in ("table", "windows"):
        for name in DTYPES:
            yield few_candidates(5, layout, s, m, d // 2, rows, name, k)
    for name in ("fp32", "bf16"):
        sizes = {"S": 1, "C": candidates, "M": m, "D": d, "dtype": name}
        case = make_search(1, m, d, DTYPES[name], candidates=candidates)
        title = f"{candidates} candidates, {name}"
        yield search_case(title, case, k, sizes, memory=name == "fp32")
    for name in ("fp32", "bf16"):
        few = 20 if quick else 200  # values of the feature
        yield two_tables(1, m, (d - d // 8, d // 8), (rows, few), name, k, candidates=candidates)
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


def cuda_call(
    dtype: str,
    s: int = 4,
    m: int = M,
    candidates: int | None = None,
    table: int = 0,
    d: int = D,
    k: int = K,
) -> Callable[[bool], Call]:
    def make(equal: bool) -> Call:
        case = make_search(s, m, d, DTYPES[dtype], candidates=candidates, table=table)
        if equal:
            case.keys.zero_()
            case.key_time.fill_(1_700_000_000)
        rows = case.gathered().keys
        ids = (case.layout["ids"],) if table else ()
        inputs = (case.query, rows, *ids, case.key_time, case.query_time, *case.mlp)
        return Call(lambda: case.run(lc.clock_gsu, k), inputs, rows)

    return make


def cuda_tables(equal: bool) -> Call:
    """Rows of two tables, as wide together as those of the other calls."""
    case = make_search(4, M, D, DTYPES["fp16"])
    halves: Any = tuple(half.flatten(0, 1) for half in case.keys.split(D // 2, -1))
    ids = tuple(torch.randperm(4 * M).view(4, M) for _ in halves)
    inputs = (case.query, *halves, *ids, case.key_time, case.query_time, *case.mlp)
    several = dataclasses.replace(case, keys=halves, layout={**case.layout, "ids": ids})
    return Call(lambda: several.run(lc.clock_gsu, K), inputs, case.keys)


def cuda_bytes(
    query_dtype: str, s: int = 4, candidates: int | None = None, m: int = M, dtype: torch.dtype = torch.int8
) -> Callable[[bool], Call]:  # fmt: skip
    """Of rows in bytes."""

    def make(equal: bool) -> Call:
        case = make_search(s, m, D, torch.float32, candidates=candidates)
        if equal:
            case.keys.zero_()
            case.key_time.fill_(1_700_000_000)
        rows: Any = lc.quantize_rows(case.keys, dtype)
        inputs = (case.query, *rows, case.key_time, case.query_time, *case.mlp)
        in_bytes = dataclasses.replace(case, keys=rows, layout={"query_dtype": query_dtype})
        return Call(lambda: in_bytes.run(lc.clock_gsu, K), inputs, rows.values)

    return make


F8 = torch.float8_e4m3fn
CARDS = (58, 82, 108, 132, 142, 148, 188)  # multiprocessors
CUDA_CALLS = (
    *(Workload(f"clock_gsu {each}", 4 * M, cuda_call(each), True) for each in DTYPES),
    # As many sequences as in training: none is cut into parts for several blocks.
    *(
        Workload(f"clock_gsu {each} S=512 M=1000", 512_000, cuda_call(each, 512, 1000))
        for each in DTYPES
    ),
    # A small batch: all of its blocks are resident at once, and what they read is copied ahead.
    *(Workload(f"clock_gsu {each} S=32", 32 * M, cuda_call(each, 32)) for each in DTYPES),
    Workload("clock_gsu fp16 table S=32", 32 * M, cuda_call("fp16", 32, table=100_000)),
    *(
        Workload(f"clock_gsu {each} S=32 C=5", 32 * M, cuda_call(each, 32, M, 5), True)
        for each in ("fp32", "fp16")
    ),
    Workload("clock_gsu fp16 S=16 C=5 K=1000", 16 * M, cuda_call("fp16", 16, M, 5, k=1000)),
    # A tile of candidates, which shows that each sweep reads the keys once, and a whole request.
    Workload("clock_gsu fp16 128 candidates", 128 * M, cuda_call("fp16", 1, M, 128), True),
    Workload("clock_gsu of two tables", 4 * M, cuda_tables),
    # Rows in panels, in whole pieces and in words.
    Workload("clock_gsu fp16 128 candidates D=512", 128 * M, cuda_call("fp16", 1, M, 128, d=512)),
    Workload("clock_gsu fp32 64 candidates D=256", 64 * M, cuda_call("fp32", 1, M, 64, d=256)),
    Workload("clock_gsu fp16 128 candidates D=50", 128 * M, cuda_call("fp16", 1, M, 128, d=50)),
    Workload("clock_gsu fp16 1000 candidates", 1000 * M, cuda_call("fp16", 1, M, 1000), True),
    Workload("clock_gsu fp32 500 candidates", 500 * M, cuda_call("fp32", 1, M, 500), True),
    # Rows in bytes: loaded, copied ahead, for few candidates and by sweeps.
    Workload("clock_gsu of bytes, float32 query", 4 * M, cuda_bytes("float32"), True),
    Workload("clock_gsu of bytes, int8 query", 4 * M, cuda_bytes("int8"), True),
    *(
        Workload(f"clock_gsu of bytes, {each} query S=512", 512_000, cuda_bytes(each, 512, m=1000))
        for each in ("float32", "int8")
    ),
    *(
        Workload(f"clock_gsu of bytes, {each} query S=32 C=5", 32 * M, cuda_bytes(each, 32, 5))
        for each in ("float32", "int8")
    ),
    *(
        Workload(
            f"clock_gsu of bytes, {each} query, 128 candidates", 128 * M, cuda_bytes(each, 1, 128)
        )
        for each in ("float32", "bfloat16", "int8")
    ),
    Workload("clock_gsu of float8", 4 * M, cuda_bytes("float32", dtype=F8)),
    Workload("clock_gsu of float8 S=32 C=5", 32 * M, cuda_bytes("float32", 32, 5, M, F8)),
    Workload("clock_gsu of float8, 128 candidates", 128 * M, cuda_bytes("bfloat16", 1, 128, M, F8)),
    # What the multiprocessors of real cards have to do; narrow rows are cut as wide ones are.
    *(
        Workload(f"clock_gsu {c} candidates on {n}", 0, cuda_call("fp16", 1, M, c, d=8), False, n)
        for c in (500, 1000)
        for n in CARDS
    ),
)

KEYS = r"LDG\.E\b.*\b128\b"
WIDE_16, WIDE_32 = "clock_gsu fp16 128 candidates D=512", "clock_gsu fp32 64 candidates D=256"
WORDS = "clock_gsu fp16 128 candidates D=50"
REQUEST, OF_REQUEST = "clock_gsu fp16 1000 candidates", Work(64, {"HMMA": 128})
OF_DTYPES = (("Float16", "fp16", 16), ("BFloat16", "bf16", 16), ("float", "fp32", 32))
CUDA_LOOPS = (
    # A tile: 32 keys of 128 elements in loads of 16 bytes, then s by 8 hidden units.
    *(
        HotLoop(
            f"clock_gsu_kernel<{name}, (RowForm)2, false>",
            f"clock_gsu {dtype} S=512 M=1000",
            Work(32, {KEYS: loads, RELU: 8}),
        )
        for name, dtype, loads in OF_DTYPES
    ),
    # A tile of 64 keys of 128 elements, by one of the four warps: 32 keys, 64 candidates.
    HotLoop("sweep_kernel<Float16, 256, (Sweep)0>", REQUEST, OF_REQUEST),
    HotLoop("sweep_kernel<Float16, 256, (Sweep)1>", REQUEST, OF_REQUEST),
    # A panel of a tile: 32 keys, 64 candidates (32 in fp32), 128 bytes of columns.
    *(
        HotLoop(f"sweep_panels_kernel<Float16, (Sweep){sweep}>", WIDE_16, Work(64, {"HMMA": 64}))
        for sweep in (0, 1)
    ),
    HotLoop("sweep_panels_kernel<float, (Sweep)3>", WIDE_32, Work(64, {"HMMA": 96})),
)

NEWER = ARCHITECTURES[1:]
FEW, OF_FEW = r"clock_gsu \w+ S=32 C=5", r"few_candidates_kernel<\w+, \(RowForm\)[012]>"
LONG = r"clock_gsu fp16 S=16 C=5 K=1000"
ONE, KERNEL = r"clock_gsu \w+", r"clock_gsu_kernel<\w+, \(RowForm\)[12], false>"
MANY, SWEEPS = r"clock_gsu .* candidates", r"sweep_kernel<Float16, 256, \(Sweep\)[01]>"
OF_SMALL = {
    "launches": 2, "share_of_a_tile_in_flight": 1 / 3, "times_rows_are_copied": 1.0, "sectors_of_copies": 1.0,
    "rows_in_narrow_loads": 0, "bytes_over_minimum": 1.02, "bank_replays_stream": 1.0, "bank_replays_select": 1.25,
}  # fmt: skip
# Rows are read once, in whole pieces.
OF_ONE = {
    "rows_in_narrow_loads": 0, "sectors_of_wide_accesses": 1.0, "bank_replays_stream": 1.0, "bank_replays_select": 1.25,
}  # fmt: skip
OF_FEW_CALLS = {
    "launches": 2, "rows_in_narrow_loads": 0, "sectors_of_wide_accesses": 1.0, "bank_replays_stream": 1.02, "global_atomics": 0,
}  # fmt: skip
WIDE, PANELS = rf"{WIDE_16}|{WIDE_32}|{WORDS}", r"sweep_panels_kernel<Float16, \(Sweep\)[01]>"
OF_MANY = {
    "rows_in_narrow_loads": 0, "sectors_of_copies": 1.0, "bank_replays_stream": 1.0, "bank_replays_select": 1.25,
    "global_atomics": 0,
}  # fmt: skip
OF_WIDE_16 = {
    "launches": 4, "times_rows_are_copied": 6.05, "distinct_bytes_over_minimum": 2.3, "tensor_instructions_a_unit": 0.51,
    "ptx_instructions_a_unit": 3.9, "survivors_a_result": 8, "evaluations_of_s_a_key_by_second_sweep": 0,
}  # fmt: skip
OF_WIDE_32 = {
    "launches": 3, "times_rows_are_copied": 2.02, "distinct_bytes_over_minimum": 1.35, "tensor_instructions_a_unit": 0.76,
    "ptx_instructions_a_unit": 7.4,
}  # fmt: skip
# One launch packs the candidates.
OF_WORDS = {"launches": 5, "ptx_instructions_a_unit": 2.0, "survivors_a_result": 8}
BUSIEST = "busiest_multiprocessor_over_mean"
LINES = r"clock_gsu_kernel<Float16, \(RowForm\)2, false>"  # rows that eight lanes read
SMALL, AHEAD = r"clock_gsu \w+( table)? S=32", r"clock_gsu_ahead_kernel<\w+, \(RowForm\)[12]>"
TABLES, OF_TABLES = r"clock_gsu of two tables", r"clock_gsu_kernel<\w+, \(RowForm\)[12], true>"
# Rows in bytes, for queries of both kinds that are multiplied.
BYTES, OF_BYTES = (
    r"clock_gsu of (bytes, \w+ query( S=512)?|float8)",
    r"(Int8By<(float|signed char)>|Float8By<float>), \(RowForm\)",
)
FEW_BYTES, MANY_BYTES = r"clock_gsu of bytes, \w+ query S=32 C=5", r"clock_gsu of bytes, .* candidates"  # fmt: skip
# The sweep of all int8 queries with rows of 256 columns.
ONE_WORD = r"sweep_kernel<Int8By<signed char>, 256, \(Sweep\)1>"
WIDEST = r"clock_gsu_kernel<float, \(RowForm\)2, false>"
CUDA_GATES = (
    Gate(WIDEST, "spills", 0, tuple(sm for sm in ARCHITECTURES if sm != 90)),
    Gate(
        WIDEST,
        "spills",
        0,
        (90,),
        reason="one word, outside the hot loop; what was tried moves it to another architecture",
    ),
    Gate(KERNEL, "registers", 80, NEWER),
    Gate(KERNEL, "registers", 112, (75,)),
    Gate(OF_TABLES, "registers", 128, ARCHITECTURES),
    Gate(
        LINES,
        "instructions_a_unit",
        12,
        ARCHITECTURES,
        reason="whole lines take two passes of 16 rows a tile and one more exchange. The 12 of half "
        "lines kept an H200 at 62% of the rate of reading; these keep it at 90%, in 30% of the issue "
        "slots; the loop over clocks and the forms of rows cost 3 to 5 more since",
    ),
    Gate(LINES, "barriers_in_hot_loop", 0, ARCHITECTURES),
    Gate(KERNEL, "shared_bytes", 48 * 1024, ARCHITECTURES),
    Gate(
        ONE,
        "bytes_over_minimum",
        1.01,
        reason="1.0103: a merge of parts reads what is near its bound again, in sectors of 32 bytes",
    ),
    *gates_of(ONE, **OF_ONE, data_dependence=0.05),
    Gate(r"clock_gsu fp16 S=512 .*", "launches", 1),
    # Small batches: three tiles of 16 KB are on their way to a block, and each row is copied once.
    Gate(AHEAD, "registers", 128, ARCHITECTURES),
    *gates_of(SMALL, **OF_SMALL),
    # 21.6 and 30.5 where rows are loaded to registers.
    Gate(r"clock_gsu (fp|bf)16 S=32", "ptx_instructions_a_unit", 23.5),
    Gate(r"clock_gsu fp32 S=32", "ptx_instructions_a_unit", 32.5),
    # Five candidates of a request: each key once, and half of the instructions that five calls take.
    Gate(OF_FEW, "registers", 128, ARCHITECTURES),
    *gates_of(FEW, distinct_bytes_over_minimum=1.02, bytes_over_minimum=1.1, **OF_FEW_CALLS),
    *gates_of(FEW, bank_replays_select=1.25),
    # Of lists that a warp's registers do not hold: half again of what 100 take.
    *gates_of(LONG, distinct_bytes_over_minimum=1.06, bytes_over_minimum=1.15, **OF_FEW_CALLS),
    *gates_of(LONG, bank_replays_select=1.3, ptx_instructions_a_unit=90),
    Gate(r"clock_gsu fp16 S=32 C=5", "ptx_instructions_a_unit", 60),
    Gate(r"clock_gsu fp32 S=32 C=5", "ptx_instructions_a_unit", 115),
    Gate(
        TABLES,
        "bytes_over_minimum",
        1.05,
        reason="ids are read twice: with their behaviour, and where rows are found",
    ),
    Gate(TABLES, "rows_in_narrow_loads", 0),
    Gate(TABLES, "sectors_of_wide_accesses", 1.0),
    Gate(ONE, "launches", 2),
    Gate(SWEEPS, "instructions_a_product", 1 / 0.28, NEWER[:-1]),
    Gate(
        SWEEPS,
        "instructions_a_product",
        1 / 0.28,
        NEWER[-1:],
        reason="ptxas puts a NOP behind most mma of sm_120, 100 of 128; without them it is 3.5",
    ),
    Gate(
        r"clock_gsu fp16 128 candidates",
        "times_rows_are_copied",
        2,
        reason="2 are the sweeps'; the rest are the candidates, which each block copies as well",
    ),
    # A first sweep evaluates s once for each tile of candidates, and for whole pairs of tiles of keys.
    Gate(r"clock_gsu fp16 128 candidates", "evaluations_of_s_a_key", 1.3),
    *gates_of(MANY, **OF_MANY, survivors_a_result=8, evaluations_of_s_a_key_by_second_sweep=0),
    Gate(r"clock_gsu fp16 .* candidates", "launches", 4),
    # One sweep, which stores its scores: 0.77 of tensor cores and 5.93 in all where two computed each product.
    *gates_of(
        r"clock_gsu fp32 500 candidates",
        launches=3,
        tensor_instructions_a_unit=0.4,
        ptx_instructions_a_unit=3.5,
        sectors_of_wide_accesses=1.0,
    ),
    # In panels a stage has those of 128 candidates as well, 16 KB beside 8 KB of keys: so a sweep copies three times what it
    # reads of memory, and of fp32, with 64 candidates, twice.
    *gates_of(WIDE, **OF_MANY),
    *gates_of(WIDE_16, **OF_WIDE_16),
    *gates_of(WIDE_32, **OF_WIDE_32),
    *gates_of(WORDS, **OF_WORDS),
    # Tensor cores take 8 clocks for a product of sm_80, in which a scheduler issues 8.
    Gate(PANELS, "instructions_a_product", 5.5, NEWER[:-1]),
    Gate(PANELS, "instructions_a_product", 5.9, NEWER[-1:]),  # of them 0.8 are NOPs
    Gate(PANELS, "matrix_loads_a_product", 3 / 8, NEWER),
    Gate(PANELS, "barriers_in_hot_loop", 1, NEWER),
    # The longest path of the first sweep, on cards of any size.
    Gate(r"clock_gsu (1000 .*|500 .*(?<! 188))", BUSIEST, 1.15),
    Gate(
        r"clock_gsu 500 candidates on 188",
        BUSIEST,
        1.15,
        reason="4 tiles of candidates times 157 of keys are 3.34 for each, and with whole tiles one has 4 however they are dealt: "
        "1.197. Half a tile of keys takes a block as long as a whole one, for two of its four warps have no keys then",
    ),
    Gate(rf"clock_gsu_kernel<{OF_BYTES}[12], false>", "registers", 80, NEWER),
    *(
        Gate(ONE_WORD, figure, bound, (100,), reason="one word, with one store and one load")
        for figure, bound in (("spills", 0), ("stack", 0))
    ),
    *(
        Gate(ONE_WORD, figure, 0, tuple(sm for sm in ARCHITECTURES if sm != 100))
        for figure in ("spills", "stack")
    ),
    # Ten instructions a key more than int8: to decode it.
    Gate(r"clock_gsu of float8", "ptx_instructions_a_unit", 58),
    Gate(r"clock_gsu of float8 S=32 C=5", "ptx_instructions_a_unit", 132),
    Gate(r"clock_gsu of float8, 128 candidates", "tensor_instructions_a_unit", 0.126),
    Gate(r"clock_gsu of float8.*", "rows_in_narrow_loads", 0),
    Gate(rf"(clock_gsu_ahead|few_candidates)_kernel<{OF_BYTES}[12]>", "registers", 128, NEWER),
    # The merge of four sequences' parts weighs more where rows are a quarter as long.
    *gates_of(BYTES, **OF_ONE, bytes_over_minimum=1.04),
    Gate(r"clock_gsu of bytes, int8 query.*(?<!C=5)(?<!candidates)", "ptx_instructions_a_unit", 27),
    Gate(
        r"clock_gsu of bytes, float32 query.*(?<!C=5)(?<!candidates)", "ptx_instructions_a_unit", 47
    ),
    *gates_of(
        FEW_BYTES,
        launches=2,
        distinct_bytes_over_minimum=1.04,
        bytes_over_minimum=1.15,
        rows_in_narrow_loads=0,
        bank_replays_stream=1.05,
        bank_replays_select=1.25,
    ),
    Gate(MANY_BYTES, "launches", 4),
    # Half of fp16's for bytes by bytes; two of fp16 for an element of fp32.
    Gate(r"clock_gsu of bytes, int8 .* candidates", "tensor_instructions_a_unit", 0.063),
    Gate(r"clock_gsu of bytes, bfloat16 .* candidates", "tensor_instructions_a_unit", 0.126),
    Gate(r"clock_gsu of bytes, float32 .* candidates", "tensor_instructions_a_unit", 0.251),
    *gates_of(
        MANY,
        ptx_instructions_of_selections_a_query=4_500,
        ptx_instructions_of_selections_a_query_of_equals=9_000,
        barriers_a_warp_of_selections=4,
    ),
)
