# SPDX-License-Identifier: Apache-2.0
"""How ``python -m longclock.train`` and the like begin: they read their arguments before PyTorch is imported."""

from __future__ import annotations

import sys


def is_starting() -> bool:
    """Whether the package is imported because Python was told to run a module of it by ``-m``.

    While Python looks for that module, which takes the import of its package, ``sys.argv`` begins with "-m".
    """
    if sys.argv[:1] != ["-m"]:
        return False
    return any(word.removeprefix("-m").startswith("longclock.") for word in sys.orig_argv[1:])
