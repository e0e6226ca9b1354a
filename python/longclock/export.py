# SPDX-License-Identifier: Apache-2.0
"""``python -m longclock.export``: from a checkpoint of training to a folder that :class:`longclock.serve.Recommender` serves."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from longclock._extras import SERVE_EXTRA, imported_by_program, imported_for
from longclock.train.console import Console


def export(path: Path, folder: Path, keep: int = 2) -> str:
    """Add the checkpoint's model to the folder as its current version; returns the version's name.

    Args:
        path: a checkpoint of ``python -m longclock.train``, at any place of its stream.
        folder: made where there is none. Whoever serves from it goes on, and switches by itself.
        keep: versions that stay, this one among them; older ones are removed.
    Raises:
        ValueError: a file that is no checkpoint, or of a model that cannot be served.
        OSError: a file that cannot be read or written.
    """
    if keep < 1:
        raise ValueError(f"longclock.export: keep must be at least 1, got {keep}")
    with imported_for("longclock.export", SERVE_EXTRA):
        from longclock.serve import model_folder
        from longclock.serve.ranking_model import exported
        from longclock.train import checkpoint
    about, tensors = exported(checkpoint.read(path))
    return model_folder.write(folder, about, tensors, keep)


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="python -m longclock.export", description="Adds a trained model to a folder that python -m longclock.serve serves, as its current version.")  # fmt: skip
    p.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="of python -m longclock.train: <out>/checkpoints/<model>.safetensors")  # fmt: skip
    p.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="of the model's versions")  # fmt: skip
    p.add_argument("--keep", type=int, default=2, metavar="N", help="versions that stay (2)")
    p.add_argument(
        "--package",
        type=Path,
        metavar="FILE",
        help="also write a package for programs without Python, .pt2: half a minute, with a C++ compiler",
    )
    args = p.parse_args(argv)
    console = Console("longclock.export")
    try:
        if args.package is not None and args.package.suffix != ".pt2":
            raise ValueError(f"--package must be a file that ends with .pt2, got {args.package}")
        console.say(f"loading PyTorch and {args.checkpoint} ...")
        with imported_by_program("longclock.export", SERVE_EXTRA):
            import torch

            from longclock.serve import model_folder
            from longclock.serve.package import compile_package
            from longclock.serve.ranking_model import Served
        print(f"{args.out / export(args.checkpoint, args.out, args.keep)} is the current version")
        if args.package is not None:
            console.say(f"compiling {args.package}, which takes half a minute ...")
            version = model_folder.read(args.out)
            served = Served.of(version, "folded", torch.float32, torch.device("cpu"))
            compile_package(served, args.package)
            print(f"{args.package} runs it without Python")
    except (ValueError, OSError) as error:
        p.exit(2, f"longclock.export: {error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
