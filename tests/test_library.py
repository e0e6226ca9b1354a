# SPDX-License-Identifier: Apache-2.0
"""How the compiled library is found, and what an import says when it is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import longclock as lc
from longclock import _library
from longclock.ops._call import call


def imported(library: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", "import longclock"],
        env=os.environ | {"LONGCLOCK_LIBRARY": library},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    return done.stderr.strip().splitlines()[-1]


def test_a_missing_library_is_named(tmp_path: Path) -> None:
    missing = str(tmp_path / "nothing.so")
    assert imported(missing) == (
        f"ImportError: longclock: the compiled library {missing} does not exist; "
        "LONGCLOCK_LIBRARY names it: correct or unset that variable"
    )


def test_a_broken_library_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"not a library")
    message = imported(str(broken))
    assert f"{broken} does not load under PyTorch {torch.__version__}" in message


def test_a_missing_build_names_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LONGCLOCK_LIBRARY", raising=False)
    monkeypatch.setattr(_library, "PACKAGED", tmp_path / "liblongclock.so")
    with pytest.raises(ImportError, match="build and install the package with `make build` or"):
        _library.load()


def test_everything_public_is_exported() -> None:
    assert all(hasattr(lc, name) for name in lc.__all__)
    assert set(lc.ops.__all__) <= set(lc.__all__) & set(lc.reference.__all__)
    assert lc.__version__.count(".") == 2


class Failing:
    """Raw block_topk, with an error of its own."""

    _schema = torch.ops.longclock.block_topk.default._schema

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __call__(self, *arguments: object) -> None:
        raise self.error


def test_other_errors_are_left_alone() -> None:
    for error in (RuntimeError("out of memory"), NotImplementedError("block_topk: not there")):
        with pytest.raises(type(error), match=str(error)):
            call(Failing(error), scores=torch.zeros(1, 1), k=1, lengths=None)


@pytest.mark.parametrize("kind", [ValueError, RuntimeError])  # up to PyTorch 2.14, and from 2.15 on
def test_a_refusal_is_a_value_error(kind: type[Exception]) -> None:
    op = Failing(kind("block_topk: k must be more"))
    with pytest.raises(ValueError, match=r"^block_topk: k must be more$"):
        call(op, scores=torch.zeros(1, 1), k=1, lengths=None)


@pytest.mark.parametrize("rows", [2**40, 2**52])
def test_what_does_not_fit_into_memory_is_told_by_its_shape(device: str, rows: int) -> None:
    scores = torch.zeros(1, 1, device=device).expand(rows, 1)
    fits = (
        rf"block_topk: the arguments must be of a size .* of shape \[{rows}, 2048\]; where memory"
    )
    with pytest.raises(ValueError, match=fits):
        lc.block_topk(scores, 2048)
