# SPDX-License-Identifier: Apache-2.0
"""Names of a package that are imported when they are first used, so that its command line need not wait for them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from longclock._extras import imported_for


def lazily(
    package: str, homes: Mapping[str, str], command: str | None = None
) -> Callable[[str], Any]:
    """A package's ``__getattr__``.

    Args:
        homes: the modules that names are defined in, by name.
        command: what installs all that these import; None: they need nothing else.
    """

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if command is None:
            return getattr(importlib.import_module(homes[name]), name)
        with imported_for(package, command):
            return getattr(importlib.import_module(homes[name]), name)

    return find
