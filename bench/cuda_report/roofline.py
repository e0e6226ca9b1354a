# SPDX-License-Identifier: Apache-2.0
"""Predictions, not measurements: the larger of bytes over bandwidth and instructions over issue rate.

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

    @property
    def ghz(self) -> float:
        """Boost clock: what the peak says."""
        return self.tflops * 1e3 / (2 * self.multiprocessors * self.lanes)


# Bandwidth and peak: data sheets. Multiprocessors and lanes: architecture white papers.
GPUS = (
    Gpu("T4", 75, 320, 40, 8.1, 64),  # NVIDIA T4 data sheet; Turing white paper
    Gpu("A100 80GB SXM", 80, 2039, 108, 19.5, 64),  # A100 data sheet; Ampere white paper
    Gpu("L4", 89, 300, 58, 30.3, 128),  # L4 data sheet; Ada white paper
    Gpu("H100 SXM", 90, 3350, 132, 67, 128),  # H100 data sheet; Hopper white paper
    Gpu("H200 SXM", 90, 4800, 132, 67, 128),  # H200 data sheet
    Gpu("B200", 100, 8000, 148, 75, 128),  # DGX and HGX B200 data sheets, an eighth of each
)


@dataclasses.dataclass(frozen=True)
class Prediction:
    """A workload of the report, ``scale`` times as large."""

    workload: str
    sizes: str
    scale: float
    hot: str = ""  # the kernel whose hot loop replaces the PTX of the stream phase


PREDICTIONS = (
    Prediction("clock_gsu fp16", "B = 1,024, M = 10,000, D = 128, K = 100", 1024 / 4,
               "clock_gsu_kernel<Float16, true>"),
    Prediction("esu_attention fp16", "Q = 1,024, K = 100, L = 128, 4 heads", 1024 / 8),
    Prediction("esu_attention fp16 backward", "Q = 1,024, K = 100, L = 128, 4 heads", 1024 / 8),
    Prediction("block_topk fp32 700 rows", "1,024 rows of 10,000, K = 100", 1024 / 700),
)  # fmt: skip


def time_us(gpu: Gpu, size: float, instructions: float) -> tuple[float, str]:
    """Microseconds, and what bounds them."""
    memory = size / gpu.gb_per_s / 1e3
    issue = instructions / (ISSUE * gpu.multiprocessors * gpu.ghz) / 1e3
    return max((memory, "memory"), (issue, "issue"))


def predict(report: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    for each in PREDICTIONS:
        workload = report["workloads"].get(each.workload, {})
        if "figures" not in workload:
            continue
        figures = workload["figures"]
        size = figures["bytes_over_minimum"] * workload["minimum_bytes"] * each.scale
        for gpu in GPUS:
            a_unit = figures["ptx_instructions_a_unit"]
            loop = report["kernels"].get(each.hot, {}).get(str(gpu.sm), {})
            if "instructions_a_unit" in loop:
                stream = figures["ptx_instructions_a_unit_stream"]
                a_unit += loop["instructions_a_unit"] - stream
            us, bound = time_us(gpu, size, a_unit * workload["units"] * each.scale)
            found.append(
                {
                    "workload": each.workload,
                    "sizes": each.sizes,
                    "gpu": gpu.name,
                    "us": round(us, 2),
                    "bound": bound,
                    "note": NOTE,
                }
            )
    return found
