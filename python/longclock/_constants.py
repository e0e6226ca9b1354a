# SPDX-License-Identifier: Apache-2.0
"""Numbers and names that command lines know as well, which are read before PyTorch is imported."""

from typing import Final

DEFAULT_PERIOD = 86400
DEFAULT_UNIT = 3600.0
DENSE_SHARE = 0.1  # of the embeddings' learning rate, for all other weights
# In place of a period: the time that has passed between two times, which no circle brings back.
ELAPSED: Final = "elapsed"
ELAPSED_UNIT = 60.0
FARTHEST = 10**11  # seconds: beyond lies the year 5138, or a finer unit
MAX_PERIOD = 2**31 - 1
NEGATIVES_FROM = ("both", "own", "popularity")
S_AT_START = 8.0  # s at difference 0 before anything is learned
