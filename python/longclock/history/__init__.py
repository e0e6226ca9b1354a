# SPDX-License-Identifier: Apache-2.0
"""What is searched. Layouts are decoded in this folder, and nowhere else in Python."""

from longclock.history.history import History

__all__ = ["History"]
