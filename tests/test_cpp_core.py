# SPDX-License-Identifier: Apache-2.0
"""Without PyTorch: the core as an installed CMake package, and the C++ program that searches with it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import longclock as lc

ROOT = Path(__file__).parents[1]
NOW = 1_335_000_000


def run(*command, **options):
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, **options
    )


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """Built against the installed package, which is all that it sees of the source."""
    folder = tmp_path_factory.mktemp("core")
    tools = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for command in (
        ["cmake", "--install", ROOT / "build" / "cmake", "--component", "cpp", "--prefix", folder / "prefix"],
        ["cmake", "-S", ROOT / "examples" / "cpp_core", "-B", folder / "build", "-G", "Ninja",
         f"-DCMAKE_PREFIX_PATH={folder / 'prefix'}", "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror"],
        ["cmake", "--build", folder / "build"],
    ):  # fmt: skip
        done = run(*command, env=tools)
        assert done.returncode == 0, done.stdout + done.stderr
    assert not list((folder / "prefix").rglob("*-inl.h"))
    return folder / "build" / "search"


def arrays_of(behaviours, candidates, dtype, seed=0):
    random = torch.Generator().manual_seed(seed)
    w1, b1, w2, b2 = (x.detach() for x in lc.TimeSimilarity().mlp())
    return {
        "items": torch.randn(300, 24, generator=random).to(dtype),
        "ids": torch.randint(300, (behaviours,), generator=random),
        "key_time": NOW - torch.randint(90 * 86400, (behaviours,), generator=random).sort(0).values,
        "query": torch.randn(candidates, 24, generator=random),
        "w1": w1, "b1": b1, "w2": w2, "b2": b2,
    }  # fmt: skip


def save(folder, arrays):
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array.numpy())


def answer_of(arrays, k):
    mlp = tuple(arrays[name] for name in ("w1", "b1", "w2", "b2"))
    found = lc.clock_gsu(
        arrays["query"][None], arrays["items"], arrays["key_time"][None], torch.tensor([NOW]), mlp, k=k,
        ids=arrays["ids"][None],
    )  # fmt: skip
    lines = []
    for scores, indices in zip(found.scores[0], found.indices[0], strict=True):
        pairs = zip(indices.tolist(), scores.tolist(), strict=True)
        lines.append(" ".join(f"{index}:{score:.9g}" for index, score in pairs if index >= 0))
    return lines


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    ("behaviours", "candidates", "k"), [(9000, 500, 100), (9000, 1, 20), (50, 3, 100), (0, 2, 5)]
)
def test_the_program_finds_what_the_op_finds(program, tmp_path, behaviours, candidates, k, dtype):
    """Bit for bit, on one thread and on several."""
    arrays = arrays_of(behaviours, candidates, dtype)
    save(tmp_path, arrays)
    for threads in (1, 3):
        done = run(program, tmp_path, k, NOW, threads, env={})
        assert done.returncode == 0, done.stderr
        assert done.stdout.split("\n")[:-1] == answer_of(arrays, k)


def test_neither_python_nor_pytorch_is_in_the_program(program):
    linked = run("ldd", program)
    assert linked.returncode == 0
    assert not re.search("python|torch", linked.stdout)


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("ids", torch.tensor([5, 300]), "ids must be from 0 to N - 1 = 299, got 300 at position 1"),
        ("key_time", torch.tensor([NOW * 1000, NOW]), "key_time must be seconds, from -10^11 to 10^11"),
        ("query", torch.zeros(2, 23), "query must have D = 24 in its last dimension to match keys"),
        ("w2", torch.zeros(1), "mlp w2 must have"),
        ("ids", torch.tensor([5, 6], dtype=torch.int32), "ids.npy must be <i8, got <i4"),
    ],
)  # fmt: skip
def test_mistakes_are_named(program, tmp_path, name, array, words):
    save(tmp_path, {**arrays_of(2, 2, torch.float32), name: array})
    done = run(program, tmp_path, 5, NOW)
    assert done.returncode == 1
    assert words in done.stderr


def test_files_that_are_none_are_named(program, tmp_path):
    done = run(program, tmp_path, 5, NOW)
    assert "items.npy is no file of numpy.save()" in done.stderr
    assert run(program).stderr.startswith("usage: search FOLDER K NOW")
