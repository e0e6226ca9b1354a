# SPDX-License-Identifier: Apache-2.0
"""What the arguments of the trainer and the study name: devices and models."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

import torch

from longclock import _native
from longclock.train.config import MODELS, Config


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
    """Build every model once, small: what it does not take it says before anything is trained.

    Raises:
        ValueError: names the model, and the argument in the model's words.
    """
    for name in names:
        settings = MODELS[name].settings(config)
        try:
            MODELS[name].build(settings, 16, 16, categories=0, users=1)
        except ValueError as error:
            raise ValueError(f"--models {name}: {error}") from error
