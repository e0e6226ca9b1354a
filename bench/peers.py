# SPDX-License-Identifier: Apache-2.0
"""Other libraries as rivals, each optional: where one is missing, a line says so and how to get it."""

from __future__ import annotations

import ast
import functools
import importlib
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

PACKAGES = ("faiss-cpu", "fuxictr")


def versions() -> dict[str, str]:
    """Of the packages that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def without(rival: str, reason: str, remedy: str = "") -> None:
    """One line in the first case that would have had the rival."""
    print(f"without the rival {rival}: {reason}{remedy and '; ' + remedy}")


def faiss_of(query: Tensor, rival: str) -> Any:
    """faiss on as many threads as PyTorch, for the queries [S, ..] of one history on the CPU; None, with the reason
    printed, where it is missing or has no code for their device."""
    if len(query) != 1:
        return None
    if query.is_cuda:
        without(rival, "faiss-cpu has no code for a GPU")
        return None
    module = faiss()
    if module is not None:
        module.omp_set_num_threads(torch.get_num_threads())
    return module


def faiss() -> Any:
    """The module; None, with the reason printed, where it is missing."""
    try:
        return importlib.import_module("faiss")
    except ImportError as error:
        without("faiss.knn", str(error), "`pip install faiss-cpu`, or make bench")
        return None


def fuxictr(model: str, name: str) -> type | None:
    """A class of one of FuxiCTR's models for long sequences; None, with the reason printed, where it is missing.

    It is compiled from the installed file on its own and sees PyTorch only: importing its module would import
    all of FuxiCTR, whose dependencies are large. Of a whole model only the methods that need nothing else run.
    """
    file = Path("model_zoo", "LongCTR", model, f"{model}.py")  # in FuxiCTR's wheel
    try:
        path = Path(str(metadata.distribution("fuxictr").locate_file(file)))
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (metadata.PackageNotFoundError, OSError) as error:
        without(f"FuxiCTR {model}", str(error), "`pip install --no-deps fuxictr`, or make bench")
        return None
    tree.body = [part for part in tree.body if isinstance(part, ast.ClassDef) and part.name == name]
    names: dict[str, Any] = {
        "torch": torch, "nn": nn, "F": nn.functional, "BaseModel": nn.Module, "__name__": file.stem
    }  # fmt: skip
    exec(compile(tree, str(path), "exec"), names)
    found: type = names[name]
    return found
