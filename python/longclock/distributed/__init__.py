# SPDX-License-Identifier: Apache-2.0
"""Searches of what lies on several ranks of ``torch.distributed``, with the bits of one rank.

Every rank of a process group calls the same function. Where ``torch.distributed`` is not initialised there is one rank.
"""

from longclock.distributed.parts import clock_gsu
from longclock.distributed.rows import clock_gsu_at_rows

__all__ = ["clock_gsu", "clock_gsu_at_rows"]
