# SPDX-License-Identifier: Apache-2.0
"""Blocks a multiprocessor, by the rules of cuda_occupancy.h of the CUDA toolkit 13.0.

Limits: CUDA C++ programming guide, "Compute Capabilities", table of technical specifications.
"""

from __future__ import annotations

import dataclasses

WARP = 32
REGISTERS = 65536  # a multiprocessor, in four partitions
PARTITIONS = 4
REGISTER_UNIT = 256  # registers are given to warps in pieces of it


@dataclasses.dataclass(frozen=True)
class Limits:
    threads: int  # of a multiprocessor, as all that follows
    blocks: int
    shared: int  # bytes
    reserved: int  # bytes of shared memory that every block loses to the system
    unit: int  # shared memory is given out in pieces of it

    @property
    def warps(self) -> int:
        return self.threads // WARP


K = 1024
LIMITS = {
    75: Limits(1024, 16, 64 * K, 0, 256),
    80: Limits(2048, 32, 164 * K, K, 128),
    86: Limits(1536, 16, 100 * K, K, 128),
    89: Limits(1536, 24, 100 * K, K, 128),
    90: Limits(2048, 32, 228 * K, K, 128),
    100: Limits(2048, 32, 228 * K, K, 128),
    120: Limits(1536, 24, 100 * K, K, 128),
}


@dataclasses.dataclass(frozen=True)
class Occupancy:
    blocks: int
    warps: int
    share: float  # of the warps that fit a multiprocessor
    limit: str  # registers, shared memory, warps or blocks: what is used up first


def occupancy(sm: int, threads: int, registers: int, shared: int) -> Occupancy:
    """For blocks of ``threads`` with ``shared`` bytes, static and dynamic."""
    limits = LIMITS[sm]
    warps = -(-threads // WARP)
    of_warp = -(-max(registers, 1) * WARP // REGISTER_UNIT) * REGISTER_UNIT
    of_block = -(-(shared + limits.reserved) // limits.unit) * limits.unit
    fit = {
        "registers": REGISTERS // PARTITIONS // of_warp * PARTITIONS // warps,
        "shared memory": limits.shared // of_block if of_block else limits.blocks,
        "warps": limits.warps // warps,
        "blocks": limits.blocks,
    }
    limit = min(fit, key=lambda name: fit[name])
    blocks = fit[limit]
    return Occupancy(blocks, blocks * warps, blocks * warps / limits.warps, limit)
