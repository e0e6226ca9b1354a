# SPDX-License-Identifier: Apache-2.0
"""A request in plain PyTorch, as a server would write it without longclock: what eager, compiled and exported rivals run."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from longclock.serve.ranking_model import RankingModel


class PlainRequest(nn.Module):
    """One request of a LIC with one daily clock: gathers, matrix products, topk, softmax. The scores of RankingModel."""

    def __init__(self, model: RankingModel) -> None:
        super().__init__()
        self.model, self.lic = model, model.interest

    def forward(
        self, user: Tensor, candidate: Tensor, behaviour: Tensor, time: Tensor, now: Tensor
    ) -> Tensor:
        """Logits [C] of candidates [C], for behaviours and their times [M], user and now [1]."""
        lic: Any = self.lic
        vectors, rows = self.model.items[candidate], self.model.behaviours[behaviour]
        projected = (vectors @ lic.w_q.flatten(0, 1).T).view(-1, lic.heads, lic.head_dim)
        u = torch.einsum("qnd,ndl->qnl", projected, lic.w_b) / lic.head_dim**0.5
        phi = self._phi(time, now)
        w1, b1, w2, b2 = lic.time.mlp()
        s = torch.relu(phi @ w1.T + b1) @ w2 + b2
        scores = (u.sum(1) @ rows.T) / lic.heads + s
        found = scores.topk(lic.k, -1).indices
        z = rows[found]
        weights = torch.softmax(torch.einsum("qnl,qkl->qnk", u, z) + s[found].unsqueeze(1), -1)
        of_rows = torch.einsum("qnk,qkl->qnl", weights, z)
        context = torch.cat([of_rows, torch.einsum("qnk,qkl->qnl", weights, phi[found])], -1)
        v = lic.head(torch.einsum("qnl,nld->qnd", context, lic.w_v).flatten(1))
        met = context.mean(1)[:, : vectors.shape[1]]
        recent = rows[-self.model.recent :].mean(0)
        of_request = [x.expand(len(vectors), -1) for x in (self.model.users[user[0]], recent)]
        features = [of_request[0], vectors, of_request[1], v, vectors * v, vectors * met]
        logits: Tensor = self.model.tower(torch.cat(features, -1)).squeeze(-1)
        return logits

    def _phi(self, time: Tensor, now: Tensor) -> Tensor:
        lic: Any = self.lic
        x = (time - now).remainder(lic.clocks[0])
        x = torch.minimum(x, lic.clocks[0] - x).float() / lic.time.units[0]
        return torch.stack([x, x.sqrt(), x * x, torch.log1p(x)], -1)


def rivals_of(
    model: RankingModel, example: tuple[Tensor, ...], compiled: bool
) -> dict[str, Callable[..., Tensor]]:
    """The request by plain PyTorch; and compiled, by torch.compile and by ONNX Runtime, where that is installed.

    They take what :class:`PlainRequest` does; those that are compiled, as many candidates and behaviours as the example has.
    """
    plain = PlainRequest(model).eval()
    found: dict[str, Callable[..., Any]] = {"plain PyTorch": plain}
    if compiled:
        found["torch.compile"] = torch.compile(plain)
        if (session := _onnx(plain, example)) is not None:
            found["ONNX Runtime"] = session
    for call in found.values():
        call(*example)
    return found


def _onnx(plain: nn.Module, example: tuple[Tensor, ...]) -> Callable[..., Tensor] | None:
    try:
        import onnxruntime
    except ImportError:
        return None
    names = ["user", "candidate", "behaviour", "time", "now"]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = str(Path(folder) / "plain.onnx")
        torch.onnx.export(plain, example, path, dynamo=True, input_names=names, output_names=["score"], verbose=False)  # fmt: skip
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path, options)

    def run(*given: Tensor) -> Tensor:
        arrays = {name: value.numpy() for name, value in zip(names, given, strict=True)}
        return torch.from_numpy(session.run(None, arrays)[0])

    return run
