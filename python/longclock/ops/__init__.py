# SPDX-License-Identifier: Apache-2.0
"""The public ops, one file each; importing it loads the compiled library."""

from longclock.ops.block_topk import block_topk
from longclock.ops.circular_delta import circular_delta, clock_time
from longclock.ops.clock_gsu import clock_gsu
from longclock.ops.esu_attention import esu_attention
from longclock.ops.gsu_score import gsu_score
from longclock.ops.hamming_gsu import hamming_gsu
from longclock.ops.merge_topk import merge_topk
from longclock.ops.pack_signs import pack_signs
from longclock.ops.time_similarity import time_features, time_similarity

__all__ = [
    "block_topk",
    "circular_delta",
    "clock_gsu",
    "clock_time",
    "esu_attention",
    "gsu_score",
    "hamming_gsu",
    "merge_topk",
    "pack_signs",
    "time_features",
    "time_similarity",
]
