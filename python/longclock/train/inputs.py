# SPDX-License-Identifier: Apache-2.0
"""What the arguments of the trainer and the study name: devices, models, events, sources."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

import torch

from longclock import _native
from longclock.data import EventStream, load, read_events
from longclock.data.sources import EventSource, open_source
from longclock.train.arguments import Where, listed
from longclock.train.config import MODELS, PRESETS, Config


def device_of(args: argparse.Namespace) -> torch.device:
    """Where models run.

    Raises:
        ValueError: a GPU that is not there, or that the library was not built for.
    """
    if args.device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ValueError(
            f"--device cuda: PyTorch {torch.__version__} finds no GPU; leave it out, or see what is missing by python -m longclock.info"
        )
    if not _native.build_info()["cuda"] and not getattr(args, "reference", False):
        raise ValueError(
            "--device cuda: the library was built without CUDA kernels; leave it out, or build it with LONGCLOCK_CUDA=1"
        )
    return torch.device("cuda", torch.cuda.current_device())


def check_models(names: Iterable[str], config: Config) -> None:
    """Build every model once, small: what it does not take it says before anything is read.

    Raises:
        ValueError: names the model, and the argument in the model's words.
    """
    for name in names:
        settings = MODELS[name].settings(config)
        try:
            MODELS[name].build(settings, 16, 16, categories=0, users=1)
        except ValueError as error:
            raise ValueError(f"--models {name}: {error}") from error


def stream_of(where: Where) -> EventStream:
    """All events of an example or a file."""
    if where.data in PRESETS:
        return load(where.data, where.data_dir)
    names = None if where.categories is None else listed("--categories", where.categories)
    columns = {}
    for word in [] if where.columns is None else listed("--columns", where.columns):
        own, equals, theirs = word.partition("=")
        if not equals or not own or not theirs:
            raise ValueError(f"--columns must be pairs such as user=userId with commas between them, got {word!r}")  # fmt: skip
        columns[own] = theirs
    separator = "\t" if where.separator in ("tab", "\\t") else where.separator
    return read_events(where.data, names, columns=columns, separator=separator, header=where.header)


def unused_columns(stream: EventStream) -> str:
    """A sentence on the columns of a file that nothing reads; empty where there are none."""
    names = stream.unused_columns
    if not names:
        return ""
    return f"columns not used: {', '.join(names)} (--categories {','.join(names)})"


def source_of(args: argparse.Namespace) -> EventSource:
    """Where the events come from."""
    columns, categories = (
        [] if names is None else listed(argument, names)
        for argument, names in (
            ("--message-columns", args.message_columns),
            ("--categories", args.categories),
        )
    )
    return open_source(
        args.source, columns=columns, categories=categories, follow=bool(args.follow)
    )
