# SPDX-License-Identifier: Apache-2.0
"""The walk-through of docs/adding-an-op.md: its files compile, its op works, its names are the code's."""

from __future__ import annotations

import ast
import inspect
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from torch.utils.cpp_extension import include_paths

from longclock.ops import _call

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "adding-an-op.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(?:cpp|python)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_op_of_the_walk_through_compiles(tmp_path):
    """Every file that docs/adding-an-op.md shows, put beside the real ones."""
    for folder in ("kernels", "csrc"):
        (tmp_path / folder).mkdir()
        for child in (ROOT / folder).iterdir():
            (tmp_path / folder / child.name).symlink_to(child)
    files = {}
    for block in BLOCKS:
        name = re.match(r"(?://|#) (\S+)\n", block)
        assert name is not None
        files[name.group(1)] = block
        path = tmp_path / name.group(1)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block)
    own = re.findall(r"^\d+\. `(.*?)`", PAGE, re.MULTILINE)
    assert len(own) == 12
    assert [name for name in own if name in files] == list(files)
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "longclock").symlink_to(tmp_path / "kernels")
    for level, entries in (("scalar", "#define LONGCLOCK_CPU_ENTRIES\n"), ("avx2", "")):
        source = tmp_path / f"recency_decay_{level}.cpp"  # as CMake writes it
        source.write_text(
            f"{entries}#define LONGCLOCK_SIMD_NAMESPACE {level}\n"
            '#include "longclock/recency_decay/recency_decay_simd-inl.h"\n'
        )
        files[source.name] = source.read_text()
    flags = [
        "-std=c++20",
        "-fvisibility=hidden",
        "-Wall",
        "-Wextra",
        "-Wno-psabi",
        "-Werror",
        "-fsyntax-only",
    ]
    flags += [f"-isystem{path}" for path in include_paths()]
    flags += [
        "-DTORCH_TARGET_VERSION=0x020a000000000000",
        "-DLONGCLOCK_X86",
        f"-I{tmp_path / 'csrc'}",
        f"-I{tmp_path / 'include'}",
    ]
    for name in files:
        source = tmp_path / name
        if name.endswith(".cpp"):
            level_flags = ["-mavx2", "-mfma", "-mf16c"] if "_avx2" in name else []
            compiler = os.environ.get("CXX", "c++")
            subprocess.run([compiler, *flags, *level_flags, str(source)], check=True)
        elif name.endswith(".cu") and (nvcc := shutil.which("nvcc")):
            ptx = ["-std=c++20", f"-I{tmp_path / 'include'}", "-ptx", "-o", str(tmp_path / "ptx")]
            subprocess.run([nvcc, *ptx, str(source)], check=True)
        elif name.endswith(".py"):
            compile(source.read_text(), name, "exec")
    module = runpy.run_path(str(tmp_path / "python/longclock/reference/recency_decay.py"))
    decayed = module["recency_decay"](torch.ones(3), torch.tensor([0, 60, 120]), 60.0)
    assert decayed.tolist() == [1.0, 0.5, 0.25]


def test_its_python_runs(tmp_path, monkeypatch):
    """The op's file as it stands, above an op of that schema which the reference computes."""
    for name in ("python/longclock/ops", "python/longclock/reference", "tests/ops"):
        head = f"# {name}/recency_decay.py\n"
        (tmp_path / f"{name.replace('/', '_')}.py").write_text(
            next(b for b in BLOCKS if b.startswith(head))
        )
    schema = re.search(r'm\.def\("(recency_decay\(.*?)"\);', PAGE)
    assert schema is not None
    program = f"""
import doctest
import runpy
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
import longclock

library = torch.library.Library("longclock", "FRAGMENT")
library.define("{schema.group(1)}")
library.impl("recency_decay", runpy.run_path("python_longclock_reference.py")["recency_decay"], "CPU")
longclock.recency_decay = recency_decay = runpy.run_path("python_longclock_ops.py")["recency_decay"]
(example,) = doctest.DocTestFinder().find(recency_decay, "recency_decay", module=False, globs={{}})
assert doctest.DocTestRunner().run(example).failed == 0
x, delta = torch.randn(3, requires_grad=True), torch.tensor([0, 60, 120])
recency_decay(x, delta, 60).sum().backward()
assert x.grad.tolist() == [1.0, 0.5, 0.25]
with FakeTensorMode() as mode:
    made = recency_decay(mode.from_tensor(x), mode.from_tensor(delta), 60.0)
    assert (made.shape, made.dtype) == ((3,), torch.float32)
torch.library.opcheck(torch.ops.longclock.recency_decay.default, (x, delta, 60.0))
from fuzz.draw import Draw
from fuzz.run import OPS, generate, outcome
(OPS["recency_decay"],) = runpy.run_path("tests_ops.py")["SPECS"]
for index in range(100):
    call = generate("recency_decay", Draw(0, index, False))
    assert outcome(call, False) == ("right", ""), call
for arguments in ((x, None, 60.0), (x, delta, "a minute"), (None, delta, 60.0)):
    try:
        recency_decay(*arguments)
    except ValueError as error:
        print(error)
for x, delta, half_life in ((x, delta[1:], 60.0), (x, delta, 0.0), (x, delta.float(), 60.0)):
    with FakeTensorMode() as mode:
        try:
            recency_decay(mode.from_tensor(x), mode.from_tensor(delta), half_life)
        except ValueError as error:
            print(error)
"""
    command = [sys.executable, "-c", program]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # the tests' folder among them
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    messages = done.stdout.splitlines()
    assert [message.split(" must")[0] for message in messages] == [
        f"recency_decay: {name}" for name in ("delta", "half_life", "x", "x", "half_life", "delta")
    ]


def test_calls_in_its_text_fit():
    """`helper("<op>", ...)` of the text: a helper of that name takes that many arguments."""
    fitted = set()
    for name, arguments in re.findall(r'`(\w+)\(("<op>.*?)\)`', PAGE):
        parsed = ast.parse(f"f({arguments})", mode="eval").body
        assert isinstance(parsed, ast.Call)
        inspect.signature(getattr(_call, name)).bind(*parsed.args)
        fitted.add(name)
    assert fitted == {"differentiable", "forbid_double_backward", "not_differentiable"}
