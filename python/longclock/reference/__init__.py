# SPDX-License-Identifier: Apache-2.0
"""Every op in plain PyTorch: the executable definition, for any float dtype. Modules run it with ``backend="reference"``."""

from longclock.reference.block_topk import block_topk
from longclock.reference.circular_delta import circular_delta, clock_time
from longclock.reference.clock_gsu import clock_gsu
from longclock.reference.esu_attention import esu_attention
from longclock.reference.gsu_score import gsu_score
from longclock.reference.hamming_gsu import hamming_gsu
from longclock.reference.merge_topk import merge_topk
from longclock.reference.pack_signs import pack_signs
from longclock.reference.time_similarity import time_features, time_similarity

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
