# SPDX-License-Identifier: Apache-2.0
"""What the optional parts need, as a command that works wherever the package came from."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator

TRAIN_EXTRA = "pip install scikit-learn scipy safetensors tqdm matplotlib pandas pyarrow"
STREAM_EXTRA = "pip install confluent-kafka redis orjson pandas pyarrow"
SERVE_EXTRA = (
    "pip install redis safetensors starlette uvicorn httptools uvloop orjson prometheus-client"
)
FUXICTR_EXTRA = "pip install fuxictr pyarrow"
RECHUB_EXTRA = "pip install torch-rechub"
EXTRAS = {
    "train": TRAIN_EXTRA, "serve": SERVE_EXTRA, "stream": STREAM_EXTRA, "fuxictr": FUXICTR_EXTRA, "torch-rechub": RECHUB_EXTRA,
}  # fmt: skip
IMPORTED_AS = {
    "confluent-kafka": "confluent_kafka", "prometheus-client": "prometheus_client", "scikit-learn": "sklearn",
    "torch-rechub": "torch_rechub",
}  # fmt: skip


def modules_of(command: str) -> dict[str, str]:
    """What a command installs: packages, and what they are imported as.

    Example::

        >>> from longclock._extras import modules_of
        >>> modules_of("pip install scikit-learn scipy")
        {'scikit-learn': 'sklearn', 'scipy': 'scipy'}
    """
    return {package: IMPORTED_AS.get(package, package) for package in command.split()[2:]}


@contextlib.contextmanager
def imported_for(user: str, command: str) -> Iterator[None]:
    """Around imports that a part of the package needs: what is missing is named, with the command that installs it."""
    try:
        yield
    except ImportError as error:
        if error.name is None or error.name.startswith("longclock"):
            raise
        raise type(error)(f"{user} needs {error.name}: {command}", name=error.name) from error


@contextlib.contextmanager
def imported_by_program(program: str, command: str) -> Iterator[None]:
    """Around the imports of a program, once it has read its arguments: what is missing, or Ctrl-C, is one line.

    What ``import longclock`` gives elsewhere is imported first.
    """
    try:
        with imported_for(program, command):
            importlib.import_module("longclock._everything")
            yield
    except ImportError as error:
        if (error.name or "").startswith("longclock"):
            raise
        sys.exit(str(error))
    except KeyboardInterrupt:  # before there is anything to go on with
        print(f"\n{program}: interrupted", file=sys.stderr)
        sys.exit(130)
