# SPDX-License-Identifier: Apache-2.0
"""Registration and errors of esu_attention."""

from __future__ import annotations

import pytest
import torch
from esu_cases import make_esu
from raw_error import RAW_ERROR

import longclock as lc

OP = torch.ops.longclock.esu_attention


def test_meta() -> None:
    assert make_esu(table=True).to("meta").run(lc.esu_attention).shape == (5, 4, 11)


def test_softmax_statistics_are_not_differentiable(device: str) -> None:
    context, softmax = OP(*make_esu().to(device).trained().raw())
    assert context.requires_grad
    assert not softmax.requires_grad
    assert softmax.shape == (5, 4, 2)
    assert softmax.dtype == torch.float32


def test_softmax_statistics_give_the_logarithm_of_the_sum(level: str, device: str) -> None:
    case = make_esu(some_invalid=False)
    _, softmax = OP(*case.to(device).raw())
    delta = lc.reference.circular_delta(case.z_time, case.query_time[:, None])
    s = lc.reference.time_similarity(delta, *case.mlp)
    alpha = torch.einsum("qnl,qkl->qnk", case.u, case.z) + s[:, None]
    torch.testing.assert_close(softmax.cpu().sum(-1), alpha.logsumexp(-1))


def test_only_what_is_asked_for_gets_a_gradient(device: str) -> None:
    for name in ("u", "z", "w2"):
        case = make_esu(table=True).to(device)
        case.leaves()[name].requires_grad_()
        case.run(lc.esu_attention).sum().backward()
        got = {other for other, leaf in case.leaves().items() if leaf.grad is not None}
        assert got == {name}


def test_double_backward_explains_itself(device: str) -> None:
    case = make_esu().to(device).trained()
    context = case.run(lc.esu_attention)
    (first,) = torch.autograd.grad(context.square().sum(), case.u, create_graph=True)
    with pytest.raises(RuntimeError, match=r"esu_attention_backward: a double backward.*reference"):
        first.sum().backward()


@pytest.mark.parametrize("sparse", [False, True])
def test_double_backward_through_a_table_explains_itself(device: str, sparse: bool) -> None:
    case = make_esu(table=True).to(device).trained()
    case.sparse = sparse
    context = case.run(lc.esu_attention)
    (first,) = torch.autograd.grad(context.square().sum(), case.z, create_graph=True)
    name = "esu_attention_backward" if sparse else "esu_attention_table_grad"
    with pytest.raises(
        RuntimeError, match=rf"{name}: a double .* longclock.reference.esu_attention "
    ):
        first.to_dense().square().sum().backward()


def test_a_table_behaves_as_an_embedding(level: str, device: str) -> None:
    case = make_esu(table=True, some_invalid=False, k=200, queries=8).to(device).trained()
    rows = case.trained()
    case.run(lc.esu_attention).sum().backward()
    assert rows.ids is not None
    gathered = torch.nn.functional.embedding(rows.ids, rows.z)
    lc.esu_attention(rows.u, gathered, rows.z_time, rows.query_time, rows.mlp).sum().backward()
    torch.testing.assert_close(case.z.grad, rows.z.grad)
    torch.testing.assert_close(case.u.grad, rows.u.grad)


def test_errors_of_shapes(device: str) -> None:
    case = make_esu().to(device)
    for name, change in (
        ("z", {"z": case.z[:, :, :3]}), ("z", {"z": case.z[0]}), ("u", {"u": case.u[0]}),
        ("z_time", {"z_time": case.z_time[:, :3]}), ("query_time", {"query_time": case.z_time}),
        ("valid", {"valid": torch.ones(5, 3, dtype=torch.bool, device=device)}),
        ("valid", {"valid": torch.ones(5, 37, device=device)}),
        ("mlp w2", {"mlp": (*case.mlp[:2], case.mlp[2][:3], case.mlp[3])}),
    ):  # fmt: skip
        args = {
            "u": case.u, "z": case.z, "z_time": case.z_time, "query_time": case.query_time,
            "mlp": case.mlp,
        } | change  # fmt: skip
        with pytest.raises(ValueError, match=f"^esu_attention: ({name}|u|z) must "):
            lc.esu_attention(**args)


def test_errors_of_dtypes(device: str) -> None:
    case = make_esu().to(device)
    with pytest.raises(ValueError, match=r"got float64; longclock.reference.esu_attention takes"):
        case.double().run(lc.esu_attention)
    with pytest.raises(RAW_ERROR, match="esu_attention: "):
        OP(*case.double().raw())
    case.z_time = case.z_time.float()
    with pytest.raises(
        ValueError, match="z_time must be int32 or int64, got float32; convert with"
    ):
        case.run(lc.esu_attention)
    case = make_esu(table=True).to(device)
    lookup = lc.Lookup(case.z, case.ids > 0)  # type: ignore[operator]
    with pytest.raises(ValueError, match="esu_attention: ids must be int32 or int64, got bool"):
        lc.esu_attention(case.u, lookup, case.z_time, case.query_time, case.mlp)


def test_errors_of_data(device: str, checks_data: bool) -> None:
    if not checks_data:
        return  # these depend on the data, which a CUDA op does not read on the host
    case = make_esu(table=True, some_invalid=False)
    assert case.ids is not None
    for bad in (-1, len(case.z)):
        case.ids[2, 3] = bad
        with pytest.raises(ValueError, match=r"^esu_attention: ids must "):
            case.run(lc.esu_attention)
