# SPDX-License-Identifier: Apache-2.0
"""Data as other libraries hold it. None of them is imported, or needed."""

from longclock.interop import torchrec

__all__ = ["torchrec"]
