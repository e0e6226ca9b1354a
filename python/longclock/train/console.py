# SPDX-License-Identifier: Apache-2.0
"""What the programs print: a terminal, a log or a pipe that cannot take it never ends a run."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from typing import Any


class Console:
    """The output of one program.

    Args:
        program: its name, which opens every line on stderr.
    """

    def __init__(self, program: str) -> None:
        self._program = program
        self._stderr = _Stderr()

    def open(self) -> None:
        """To be called before anything is printed.

        Names may hold what the terminal cannot show: it is written as an escape, in place of an error after all work.
        """
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        atexit.register(_give_up_what_cannot_be_written)

    def say(self, message: str) -> None:
        """A line on stderr."""
        self._stderr.write(f"{self._program}: {message}\n")
        self._stderr.flush()

    def put(self, text: str) -> bool:
        """``text`` and a line's end on stdout; False, and a word on stderr, where it cannot be written."""
        try:
            print(text, flush=True)
        except OSError as error:
            self.say(f"the figures could not be printed: {error.strerror}")
            return False
        return True

    def put_report(self, report: object, printed: bool) -> bool:
        """Where the report is, on stderr if stdout did not take the figures; whether stdout took everything."""
        line = f"report: {report}"
        if printed and self.put(line):
            return True
        self.say(line)
        return False


class _Stderr:
    """What ``sys.stderr`` is at the moment of writing; text that it cannot take is lost, and nothing else."""

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


def _give_up_what_cannot_be_written() -> None:
    """What is still in a stream's buffer would be tried again at the end, and become the exit status (120)."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
