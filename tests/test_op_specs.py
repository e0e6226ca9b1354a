# SPDX-License-Identifier: Apache-2.0
"""Whether tests/ops/<op>.py tells of every op what the tests that know every op take from there."""

from __future__ import annotations

import pytest
import torch
from ops import FILES, OPS, raw_calls
from torch import Tensor
from torch.utils._pytree import tree_map_only

import longclock as lc

RAW = raw_calls()
SCHEMAS = [schema.name.split("::") for schema in torch._C._jit_get_all_schemas()]
REGISTERED = {name for library, name in SCHEMAS if library == "longclock"}


def test_every_op_is_here() -> None:
    missing = ({*lc.ops.__all__} | REGISTERED) - set(OPS)
    assert not missing, f"write a Spec in tests/ops of {sorted(missing)}"
    assert [file for file in FILES if not file.startswith(tuple(lc.ops.__all__))] == []


@pytest.mark.parametrize("op", lc.ops.__all__)
def test_the_public_function_takes_its_good_calls(op: str) -> None:
    for given in OPS[op].public().values():
        getattr(lc, op)(**given)


@pytest.mark.parametrize("op", sorted(REGISTERED))
def test_a_raw_op_has_good_calls_with_every_argument(op: str) -> None:
    calls = OPS[op].raw()
    assert calls
    for call in calls.values():
        assert list(call) == list(OPS[op].kinds)
    given = {name for call in calls.values() for name in call if call[name] is not None}
    assert {name for name, kind in OPS[op].kinds.items() if "Tensor" in kind} <= given


# Registration knows no layouts: of each op its first and last call, a dense one and those of tables.
LAST = {op: call for call, (op, _) in RAW.items()}
KINDS = ("dense", "table", "features")
CHECKED = [call for call, (op, _) in RAW.items() if call in (op, LAST[op]) or call.endswith(KINDS)]


@pytest.mark.parametrize("call", CHECKED)
def test_a_raw_op_is_what_pytorch_expects(call: str, device: str) -> None:
    """Its schema, its fake, and where a gradient is asked for, its autograd."""
    op, given = RAW[call]
    asked = "public" in OPS[op].ways

    def leaf(x: Tensor) -> Tensor:
        return x.to(device, copy=True).requires_grad_(asked and x.is_floating_point())

    arguments = tuple(tree_map_only(Tensor, leaf, given).values())
    torch.library.opcheck(getattr(torch.ops.longclock, op).default, arguments)
