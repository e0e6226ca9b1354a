# SPDX-License-Identifier: Apache-2.0
"""Progress bars."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm

from longclock.train.console import Console


class Bars(Console):
    """The output of a program that shows how far it is."""

    def say(self, message: str) -> None:
        """A line on stderr, above the progress bar."""
        tqdm.write(f"{self._program}: {message}", file=self._stderr)

    def progress(self, **options: Any) -> tqdm[Any]:
        """A progress bar on stderr, with tqdm's options."""
        return tqdm(file=self._stderr, dynamic_ncols=True, **options)
