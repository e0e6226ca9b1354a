# SPDX-License-Identifier: Apache-2.0
"""Predictions, not measurements: the largest of bytes over bandwidth, instructions over issue rate,
and products of tensor cores over their peak.

Latency, occupancy, caches and launch overhead are not in it: a lower bound for the time.
"""

from __future__ import annotations

import dataclasses
from typing import Any

ISSUE = 4  # warp instructions a clock and multiprocessor, of every architecture since Volta
NOTE = "prediction, not measured"


@dataclasses.dataclass(frozen=True)
class Gpu:
    name: str
    sm: int
    gb_per_s: float
    multiprocessors: int
    tflops: float  # fp32, not on tensor cores
    lanes: int  # of fp32, a multiprocessor
    tensor_tflops: float  # fp16 with fp32 sums, dense

    @property
    def ghz(self) -> float:
        """Boost clock: what the peak says."""
        return self.tflops * 1e3 / (2 * self.multiprocessors * self.lanes)


# An mma of 16 x 8 by 16; one of 8 columns of TF32 takes as long.
FLOPS = 2 * 16 * 8 * 16

# Bandwidth and peaks: data sheets. Multiprocessors and lanes: architecture white papers.
GPUS = (
    Gpu("T4", 75, 320, 40, 8.1, 64, 65),  # NVIDIA T4 data sheet; Turing white paper
    Gpu("A100 80GB SXM", 80, 2039, 108, 19.5, 64, 312),  # A100 data sheet; Ampere white paper
    Gpu("L4", 89, 300, 58, 30.3, 128, 121),  # L4 data sheet; Ada white paper
    Gpu("H100 SXM", 90, 3350, 132, 67, 128, 989),  # H100 data sheet; Hopper white paper
    Gpu("H200 SXM", 90, 4800, 132, 67, 128, 989),  # H200 data sheet
    Gpu("B200", 100, 8000, 148, 75, 128, 2250),  # DGX and HGX B200 data sheets, an eighth of each
)


@dataclasses.dataclass(frozen=True)
class Prediction:
    """A workload of the report, ``scale`` times as large, and its name at that size where it has another."""

    workload: str
    sizes: str
    scale: float
    name: str = ""
    hot: str = ""  # the kernel whose hot loop replaces the PTX of the stream phase
    cached: bool = False  # what a launch reads again comes from the second-level cache
    oldest: int = 75  # architecture that runs these kernels


PREDICTIONS = (
    Prediction("clock_gsu fp16 S=512 M=1000", "B = 1,024, M = 10,000, D = 128, K = 100", 20,
               "clock_gsu fp16", hot="clock_gsu_kernel<Float16, (RowForm)2, false>"),
    Prediction("clock_gsu fp16 1000 candidates", "C = 1,000, M = 10,000, D = 128, K = 100", 1,
               cached=True, oldest=80),
    Prediction("clock_gsu fp32 500 candidates", "C = 500, M = 10,000, D = 128, K = 100", 1,
               cached=True, oldest=80),
    Prediction("esu_attention fp16", "Q = 1,024, K = 100, L = 128, 4 heads", 1024 / 8),
    Prediction("esu_attention fp16 backward", "Q = 1,024, K = 100, L = 128, 4 heads", 1024 / 8),
    Prediction("block_topk fp32 700 rows", "1,024 rows of 10,000, K = 100", 1024 / 700,
               "block_topk fp32 1024 rows"),
)  # fmt: skip


def time_us(gpu: Gpu, size: float, instructions: float, products: float = 0.0) -> tuple[float, str]:
    """Microseconds, and what bounds them."""
    memory = size / gpu.gb_per_s / 1e3
    issue = instructions / (ISSUE * gpu.multiprocessors * gpu.ghz) / 1e3
    tensor = products * FLOPS / gpu.tensor_tflops / 1e6
    return max((memory, "memory"), (issue, "issue"), (tensor, "tensor cores"))


def predict(report: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    for each in PREDICTIONS:
        workload = report["workloads"].get(each.workload, {})
        if "figures" not in workload:
            continue
        figures = workload["figures"]
        over = figures["distinct_bytes_over_minimum" if each.cached else "bytes_over_minimum"]
        size = over * workload["minimum_bytes"] * each.scale
        for gpu in GPUS:
            if gpu.sm < each.oldest:
                continue
            a_unit = figures["ptx_instructions_a_unit"]
            loop = report["kernels"].get(each.hot, {}).get(str(gpu.sm), {})
            if "instructions_a_unit" in loop:
                stream = figures["ptx_instructions_a_unit_stream"]
                a_unit += loop["instructions_a_unit"] - stream
            units = workload["units"] * each.scale
            products = figures.get("tensor_instructions_a_unit", 0.0)
            us, bound = time_us(gpu, size, a_unit * units, products * units)
            found.append(
                {
                    "workload": each.name or each.workload,
                    "sizes": each.sizes,
                    "gpu": gpu.name,
                    "us": round(us, 2),
                    "bound": bound,
                    "note": NOTE,
                }
            )
    return found
