# SPDX-License-Identifier: Apache-2.0
"""Optimizers of embeddings against their plain definition, row by row."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

import longclock as lc
from longclock.optim import LazyAdam, RowWiseAdagrad

ROWS, WIDTH, STEPS = 11, 5, 12
LR, EPS, BETAS = 0.07, 1e-3, (0.8, 0.95)
MAKERS = {
    "rowwise-adagrad": lambda weights: RowWiseAdagrad(weights, LR, EPS),
    "lazy-adam": lambda weights: LazyAdam(weights, LR, BETAS, EPS),
}
every_optimizer = pytest.mark.parametrize("name", MAKERS)


def gradients(rows: int = ROWS, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Dense gradients that leave most rows out; one row gets none at all, and one step none."""
    draw = torch.Generator().manual_seed(3)
    found = []
    for step in range(STEPS):
        grad = torch.randn(rows, WIDTH, generator=draw, dtype=torch.float64)
        kept = torch.rand(rows, generator=draw) < (0 if step == 4 else 0.4)
        kept[rows - 1] = False
        found.append((grad * kept[:, None]).to(dtype))
    return found


def sparse(grad: Tensor) -> Tensor:
    """Rows in any order, each in two summands, one without any gradient."""
    rows = (grad != 0).any(1).nonzero().flatten().flip(0)
    share = grad[rows] / 4
    index = torch.cat([rows, rows, torch.tensor([0])])
    values = torch.cat([share, 3 * share, torch.zeros(1, grad.shape[1], dtype=grad.dtype)])
    return torch.sparse_coo_tensor(index[None], values, grad.shape)


def rowwise_adagrad(weight: list[list[float]], grads: list[Tensor]) -> list[list[float]]:
    sums = [0.0] * len(weight)
    for grad in grads:
        for r, row in enumerate(grad.tolist()):
            sums[r] += sum(g * g for g in row) / len(row)
            for c, g in enumerate(row):
                weight[r][c] -= LR * g / (math.sqrt(sums[r]) + EPS)
    return weight


def lazy_adam(weight: list[list[float]], grads: list[Tensor]) -> list[list[float]]:
    m = [[0.0] * WIDTH for _ in weight]
    v = [[0.0] * WIDTH for _ in weight]
    for step, grad in enumerate(grads, 1):
        size = LR * math.sqrt(1 - BETAS[1] ** step) / (1 - BETAS[0] ** step)
        for r, row in enumerate(grad.tolist()):
            if not any(row):
                continue
            for c, g in enumerate(row):
                m[r][c] += (1 - BETAS[0]) * (g - m[r][c])
                v[r][c] += (1 - BETAS[1]) * (g * g - v[r][c])
                weight[r][c] -= size * m[r][c] / (math.sqrt(v[r][c]) + EPS)
    return weight


def stepped(
    name: str, weight: nn.Parameter, grads: list[Tensor], kind: str
) -> torch.optim.Optimizer:
    optimizer = MAKERS[name]([weight])
    for grad in grads:
        weight.grad = sparse(grad) if kind == "sparse" else grad.clone()
        optimizer.step()
    return optimizer


@pytest.mark.parametrize("maximize", [False, True])
def test_lazy_adam_is_sparse_adam_to_the_bit(maximize: bool) -> None:
    start = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(1))
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    lazy = LazyAdam([ours], LR, BETAS, EPS, maximize=maximize)
    plain = torch.optim.SparseAdam([theirs], LR, BETAS, EPS, maximize=maximize)
    for grad in gradients():
        rows = (grad != 0).any(1).nonzero().flatten()
        ours.grad = theirs.grad = torch.sparse_coo_tensor(rows[None], grad[rows], grad.shape)
        lazy.step()
        plain.step()
        assert torch.equal(ours, theirs)
    assert lazy.state_dict()["state"].keys() == plain.state_dict()["state"].keys()
    for name, value in plain.state[theirs].items():
        assert torch.equal(torch.as_tensor(lazy.state[ours][name]), torch.as_tensor(value)), name


@every_optimizer
@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize("rows", [ROWS, 1])
def test_weights_are_those_of_the_definition(name: str, kind: str, rows: int) -> None:
    start = torch.randn(
        rows, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    grads = gradients(rows, torch.float64)
    plain = {"rowwise-adagrad": rowwise_adagrad, "lazy-adam": lazy_adam}[name]
    expected = torch.tensor(plain(start.tolist(), grads), dtype=torch.float64)
    weight = nn.Parameter(start.clone())
    stepped(name, weight, grads, kind)
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-9, atol=1e-12)
    weight = nn.Parameter(start.float())
    stepped(name, weight, [grad.float() for grad in grads], kind)
    torch.testing.assert_close(weight.detach(), expected.float(), rtol=1e-4, atol=1e-5)


@every_optimizer
@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_a_row_without_a_gradient_is_not_touched(name: str, kind: str) -> None:
    weight = nn.Parameter(torch.randn(ROWS, WIDTH))
    weight.data[0, 0] = math.nan  # what is touched would be read
    grads = gradients()
    optimizer = stepped(name, weight, grads[:3], kind)
    for grad in grads[3:]:
        before, state = weight.detach().clone(), copy.deepcopy(optimizer.state[weight])
        weight.grad = sparse(grad) if kind == "sparse" else grad.clone()
        optimizer.step()
        still = ~(grad != 0).any(1)
        assert torch.equal(weight[still].nan_to_num(), before[still].nan_to_num())
        assert (weight[~still] != before[~still]).any(1).all()
        for key, value in state.items():
            if isinstance(value, Tensor):
                assert torch.equal(optimizer.state[weight][key][still], value[still])
        if kind == "dense":
            assert torch.equal(weight.grad, grad)


@every_optimizer
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_state_that_was_saved_goes_on_bit_for_bit(
    name: str, dtype: torch.dtype, tmp_path
) -> None:
    grads = gradients(dtype=dtype)
    first = nn.Parameter(torch.randn(ROWS, WIDTH, dtype=dtype))
    optimizer = stepped(name, first, grads[:6], "dense")
    second = nn.Parameter(first.detach().clone())
    torch.save(optimizer.state_dict(), tmp_path / "state")
    other = MAKERS[name]([second])
    other.load_state_dict(torch.load(tmp_path / "state"))
    for grad in grads[6:]:
        first.grad, second.grad = grad.clone(), grad.clone()
        optimizer.step()
        other.step()
    assert torch.equal(first, second)
    assert other.param_groups[0]["lr"] == LR
    for key, value in optimizer.state[first].items():
        mine = other.state[second][key]
        assert torch.equal(torch.as_tensor(mine), torch.as_tensor(value))
        assert torch.as_tensor(mine).dtype == torch.as_tensor(value).dtype


def test_a_loaded_state_is_no_view_of_what_was_given() -> None:
    weight = nn.Parameter(torch.randn(ROWS, WIDTH))
    optimizer = stepped("rowwise-adagrad", weight, gradients()[:2], "dense")
    saved = optimizer.state_dict()
    before = saved["state"][0]["sum"].clone()
    other = RowWiseAdagrad([nn.Parameter(torch.randn(ROWS, WIDTH))])
    other.load_state_dict(saved)
    weight_of_other = other.param_groups[0]["params"][0]
    weight_of_other.grad = torch.ones(ROWS, WIDTH)
    other.step()
    assert torch.equal(saved["state"][0]["sum"], before)


@every_optimizer
def test_sparse_lookups_and_embeddings_train_with_it(name: str) -> None:
    """A clock over a table with sparse gradients moves the rows that were found or asked for, and only these."""
    torch.manual_seed(0)
    items = nn.Embedding(50, 8, sparse=True)
    clock = lc.LongTermInterestClock(8, 8, 4, 2, 3, 8)
    optimizer, before = MAKERS[name](items.parameters()), items.weight.detach().clone()
    played = torch.tensor([[4, 9, 4, 30]])
    when = 3600 * torch.arange(4)[None]
    history = lc.History.dense(lc.Lookup(items.weight, played, sparse=True), when)
    clock(items(torch.tensor([17])), history, torch.tensor([0])).square().sum().backward()
    assert items.weight.grad.is_sparse
    touched = set(items.weight.grad.coalesce().indices()[0].tolist())
    optimizer.step()
    moved = set((items.weight != before).any(1).nonzero().flatten().tolist())
    assert 17 in moved
    assert moved <= touched <= {4, 9, 17, 30}


@every_optimizer
def test_a_closure_is_called_once(name: str) -> None:
    weight, calls = nn.Parameter(torch.ones(3, 2)), []

    def closure() -> Tensor:
        calls.append(weight.grad)
        weight.grad = None
        loss = weight.square().sum()
        loss.backward()
        return loss

    assert MAKERS[name]([weight]).step(closure) == 6
    assert len(calls) == 1
    assert (weight < 1).all()


@every_optimizer
@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (3,), (3, 2, 2)])
def test_any_number_of_dimensions(name: str, shape: tuple[int, ...]) -> None:
    weight = nn.Parameter(torch.ones(shape))
    weight.grad = torch.ones(shape)
    MAKERS[name]([weight]).step()
    assert (weight < 1).all()
    assert weight.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0}, "RowWiseAdagrad: lr must be positive, got 0"),
        ({"lr": math.inf}, "RowWiseAdagrad: lr must be positive, got inf"),
        ({"eps": 0.0}, "RowWiseAdagrad: eps must be positive, got 0.0"),
        ({"lr": "fast"}, "RowWiseAdagrad: lr must be a number, got 'fast'"),
    ],
)
def test_what_it_refuses(options: dict, message: str) -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    with pytest.raises(ValueError, match=message):
        RowWiseAdagrad([weight], **options)
    with pytest.raises(ValueError, match=message):
        RowWiseAdagrad([{"params": [weight], **options}])


def test_what_has_no_rows_is_refused() -> None:
    with pytest.raises(
        ValueError, match="RowWiseAdagrad: params must have rows, got a weight of shape \\[\\]"
    ):
        RowWiseAdagrad([nn.Parameter(torch.tensor(1.0))])


@every_optimizer
def test_what_is_sparse_in_more_than_rows_is_refused(name: str) -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    weight.grad = torch.ones(2, 2).to_sparse()
    with pytest.raises(
        ValueError, match="must be sparse in its rows alone, got 2 sparse dimensions"
    ):
        MAKERS[name]([weight]).step()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1}, "lr must be positive, got -1"),
        ({"lr": "fast"}, "lr must be a number, got 'fast'"),
        ({"eps": 0.0}, "eps must be positive, got 0.0"),
        ({"betas": (0.9, 1.0)}, "betas must be two numbers of at least 0 and below 1"),
        ({"params": [torch.zeros(2, 2).to_sparse()]}, "Sparse params at indices .*: LazyAdam requires dense parameter tensors"),
    ],
)  # fmt: skip
def test_lazy_adam_names_itself(options, message):
    """And not the class that it is made of."""
    with pytest.raises(ValueError, match=f"^LazyAdam: {message}") as error:
        LazyAdam(**{"params": [torch.zeros(2, 2)], **options})
    assert "SparseAdam" not in str(error.value)
