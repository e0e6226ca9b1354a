# SPDX-License-Identifier: Apache-2.0
"""The ranking model as a package that runs without Python: torch.export and AOTInductor."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from longclock.serve.ranking_model import Served

MOST = {"requests": 2**20, "candidates": 2**31 - 1, "behaviours": 2**31 - 1}  # of one call


def example_of(served: Served, requests: int, candidates: int, behaviours: int) -> tuple[Any, ...]:
    """Arguments of the model for requests of so many candidates and behaviours each."""
    model, device = served.model, served.model.items.device

    def numbers(count: int, below: int) -> Tensor:
        return torch.arange(count, device=device) % max(below, 1)

    each = torch.arange(requests + 1, device=device)
    return (
        numbers(requests, len(model.users)),
        numbers(requests * candidates, len(model.items)),
        numbers(requests * behaviours, len(model.behaviours)),
        numbers(requests * behaviours, 1),
        each[1:] * behaviours,
        each * candidates,
        torch.zeros(requests, dtype=torch.int64, device=device),
    )


@torch.no_grad()
def exported_program(served: Served) -> ExportedProgram:
    """The model for any number of requests, of candidates and of behaviours, 0 included."""
    sizes = {name: Dim(name, min=0, max=most) for name, most in MOST.items()}
    requests, candidates, behaviours = sizes.values()
    shapes = (
        {0: requests}, {0: candidates}, {0: behaviours}, {0: behaviours}, {0: requests}, {0: requests + 1}, {0: requests},
    )  # fmt: skip
    return torch.export.export(
        served.model, example_of(served, 3, 7, 50), dynamic_shapes=shapes, strict=False
    )


def compile_package(served: Served, path: str | os.PathLike[str]) -> None:
    """Write the package, which takes half a minute and a C++ compiler.

    A program in C++ loads it, after it has opened liblongclock.so, by PyTorch's ``AOTIModelPackageLoader``: ``examples/cpp_ranker``
    does. Its constants bear the names of the tensors of a version, so that those of a newer one replace them while it runs. Its metadata
    have the numbers of users and items.

    Raises:
        ValueError: a model whose outcomes of earlier events are counted in Python, request by request.
    """
    if served.outcomes is not None:
        raise ValueError(
            "longclock.export: --package takes models that read histories alone, got one whose tower reads how earlier events ended; "
            "train without them: Config(outcomes=False)"
        )
    # Else tensors of up to eight elements become numbers in the code, which new weights would not replace.
    options = {"always_keep_tensor_constants": True}
    known = {"users": str(served.catalogue.users), "items": str(served.catalogue.items)}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch._inductor.aoti_compile_and_package(
        exported_program(served),
        package_path=str(path),
        inductor_configs={"aot_inductor.metadata": known, **options},
    )
