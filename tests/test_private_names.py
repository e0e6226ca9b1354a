# SPDX-License-Identifier: Apache-2.0
"""PyTorch may drop or change its private names: everything works without them, if slower."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FENCE = ROOT / "python" / "longclock" / "_torch_state.py"
NAMES = sorted(set(re.findall(r'_private\("(\w+)"', FENCE.read_text(encoding="utf-8"))))
PRIVATE = re.compile(r"torch\._C\._\w+|forward_ad\._\w+")

# Run in a new interpreter: torch._C has lost names, or has them with another meaning, while longclock is imported.
PROGRAM = """
import sys, types, warnings
import torch
from torch.autograd import forward_ad
from torch.func import grad, jacrev, vmap

warnings.simplefilter("ignore")
how, *lost = sys.argv[1:]
real, level = torch._C, forward_ad._current_level
class Without(types.ModuleType):
    def __getattr__(self, name):
        if name in lost:
            if how == "gone":
                raise AttributeError(name)
            return lambda *arguments: "something else"
        return getattr(real, name)
torch._C = Without("torch._C")
if how == "gone":
    del forward_ad._current_level
import longclock as lc
torch._C = real
forward_ad._current_level = level  # which PyTorch's own functions need

torch.manual_seed(0)
query, keys = torch.randn(3, 8), torch.randn(3, 20, 8)
key_time, query_time = torch.randint(0, 10**6, (3, 20)), torch.randint(0, 10**6, (3,))
mlp = tuple(w.detach() for w in lc.TimeSimilarity(4).mlp())
u = torch.randn(3, 2, 8)

def score(query, package=lc):
    return package.gsu_score(query, keys, key_time, query_time, mlp)

def attend(u, package=lc):
    return package.esu_attention(u, keys, key_time, query_time, mlp)

def loss(function, package=lc):
    return lambda x: function(x, package).sigmoid().sum()

def same(a, b):
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)

import longclock.reference as reference
for function, x in ((score, query), (attend, u)):
    with torch.no_grad():
        same(function(x), function(x, reference))
    leaf, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    loss(function)(leaf).backward()
    loss(function, reference)(other).backward()
    same(leaf.grad, other.grad)
    same(grad(loss(function))(x), other.grad)
    same(jacrev(loss(function))(x), other.grad)
    two = vmap(function)(torch.stack([x, -x]))
    same(two, torch.stack([function(x), function(-x)]))
    same(vmap(grad(loss(function)))(torch.stack([x, x]))[1], other.grad)
    same(torch.compile(function, backend="aot_eager", fullgraph=True)(x), function(x).detach())
    same(torch.jit.trace(function, x, check_trace=False)(x), function(x).detach())
assert not lc.clock_gsu(query.clone().requires_grad_(), keys, key_time, query_time, mlp, 3).scores.requires_grad
with forward_ad.dual_level():
    try:
        score(forward_ad.make_dual(query, query))
    except NotImplementedError as refused:
        assert "forward-mode" in str(refused)
    else:
        raise AssertionError("a tangent was dropped")
print("all works")
"""


def run(how: str, names: list[str]) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how, *names],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "all works"


def test_all_private_names_stand_behind_one_module() -> None:
    assert len(NAMES) == 4
    for path in (ROOT / "python" / "longclock").rglob("*.py"):
        if path != FENCE:
            assert PRIVATE.findall(path.read_text(encoding="utf-8")) == [], path.name


@pytest.mark.parametrize("name", NAMES)
def test_without_one_of_them(name: str) -> None:
    run("gone", [name])


@pytest.mark.parametrize("how", ["gone", "other"])
def test_without_any_of_them(how: str) -> None:
    run(how, NAMES)
