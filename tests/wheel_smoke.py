# SPDX-License-Identifier: Apache-2.0
"""Runs every op once, forward and backward, in whatever environment longclock is installed.

``python tests/wheel_smoke.py [--device cuda]``: a few seconds, needs PyTorch and longclock alone.
Checks that a wheel loads and works under another PyTorch than it was built with; what the ops
compute is the test suite's business, so the comparison with the reference here is coarse.
"""

from __future__ import annotations

import argparse

import torch

import longclock as lc
from longclock import info


def close(name: str, ours: torch.Tensor, reference: torch.Tensor) -> None:
    torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-4, equal_nan=True)
    print(f"{name:<42} {list(ours.shape)}")


def smoke(device: str, everything: bool) -> None:
    torch.manual_seed(0)
    s, m, k, d, heads, hidden = 3, 200, 10, 16, 2, 8
    day = 86400
    key_time = torch.randint(0, 20 * day, (s, m), device=device)
    query_time = torch.randint(0, 20 * day, (s,), device=device)
    unit = (
        day / 2
    )  # in hours, squares up to 144 would make the sines of an output a matter of rounding
    mlp = lc.TimeSimilarity(hidden, unit).to(device)

    delta = lc.circular_delta(key_time, query_time[:, None])
    close("circular_delta", delta, lc.reference.circular_delta(key_time, query_time[:, None]))
    close("time_features", lc.time_features(delta), lc.reference.time_features(delta))

    def gradient(output: torch.Tensor, *inputs: torch.Tensor) -> list[torch.Tensor]:
        parameters = list(mlp.parameters())
        finite = torch.where(output.isfinite(), output, torch.zeros_like(output))
        return list(torch.autograd.grad(finite.sin().sum(), [*inputs, *parameters]))

    arguments = (mlp.w1, mlp.b1, mlp.w2, mlp.b2)
    ours, theirs = (
        f(delta, *arguments, unit) for f in (lc.time_similarity, lc.reference.time_similarity)
    )
    close("time_similarity", ours, theirs)
    for a, b in zip(gradient(ours), gradient(theirs), strict=True):
        close("time_similarity backward", a, b)
    if not everything:
        return

    query = torch.randn(s, d, device=device, requires_grad=True)
    keys = torch.randn(s, m, d, device=device, requires_grad=True)
    ours, theirs = (
        f(query, keys, key_time, query_time, mlp) for f in (lc.gsu_score, lc.reference.gsu_score)
    )
    close("gsu_score", ours, theirs)
    for a, b in zip(gradient(ours, query, keys), gradient(theirs, query, keys), strict=True):
        close("gsu_score backward", a, b)

    scores = torch.randn(s, m, device=device, requires_grad=True)
    best = lc.block_topk(scores, k)
    close("block_topk", best.scores, torch.topk(scores, k).values)
    (grad,) = torch.autograd.grad(best.scores.sum(), scores)
    close("block_topk backward", grad.sum(-1), torch.full((s,), float(k), device=device))
    try:
        lc.block_topk(scores.double(), k)
    except ValueError as error:
        print(error)
    else:
        raise AssertionError("block_topk took float64")

    found = lc.clock_gsu(query, keys, key_time, query_time, mlp, k=k)
    close("clock_gsu", found.scores, lc.block_topk(theirs, k).scores.detach())

    u = torch.randn(s, heads, d, device=device, requires_grad=True)
    z = torch.randn(s, k, d, device=device, requires_grad=True)
    ours, theirs = (
        f(u, z, key_time[:, :k], query_time, mlp)
        for f in (lc.esu_attention, lc.reference.esu_attention)
    )
    close("esu_attention", ours, theirs)
    for a, b in zip(gradient(ours, u, z), gradient(theirs, u, z), strict=True):
        close("esu_attention backward", a, b)

    ours, theirs = (
        f(u, keys, key_time, query_time, mlp, found=found.indices)
        for f in (lc.esu_attention, lc.reference.esu_attention)
    )
    close("esu_attention of what was found", ours, theirs)
    for a, b in zip(gradient(ours, u, keys), gradient(theirs, u, keys), strict=True):
        close("esu_attention of what was found backward", a, b)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    info.main()
    everything = has_kernel("clock_gsu", options.device.split(":")[0].upper())
    smoke(options.device, everything)
    print("the wheel works")


def has_kernel(op: str, key: str) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"longclock::{op}", key)


if __name__ == "__main__":
    main()
