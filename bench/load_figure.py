# SPDX-License-Identifier: Apache-2.0
"""What ``bench.serve_load`` found as an SVG: latency against rate, a row a data set, both axes logarithmic."""

from __future__ import annotations

import math
from typing import Any

from bench.figure import rule, short, text

COLOURS = {
    "longclock, bf16": "#0b62a4",
    "longclock, fp32": "#5aa5dc",
    "endpoint, bf16": "#2e8b57",
    "plain PyTorch, fp32": "#777777",
    "torch.compile, fp32": "#c8500a",
    "ONNX Runtime, fp32": "#9b59b6",
}
QUANTILES = ("p50", "p99")  # a column each
WIDTH, HEIGHT = 405, 230  # of a panel, with its margins
LEFT, RIGHT, TOP, BOTTOM = 52, 20, 34, 34  # margins of a panel
LEGEND = 30
KEPT_UP = 0.95  # of the rate: with less, requests pile up


def curve(points: list[dict[str, Any]], quantile: str) -> list[tuple[float, float]]:
    """Rate and latency of the points that kept up with it."""
    return [
        (point["rate"], point["latency_ms"][quantile])
        for point in points
        if point["a_second"] >= KEPT_UP * point["rate"]
        and point["latency_ms"][quantile] is not None
    ]


class Panel:
    """One quantile of one data set."""

    def __init__(
        self, found: dict[str, Any], quantile: str, left: float, top: float, powers: tuple[int, int], rates: tuple[float, float]
    ) -> None:  # fmt: skip
        self.found, self.quantile, self.powers, self.rates = found, quantile, powers, rates
        self.x0, self.x1 = left + LEFT, left + WIDTH - RIGHT
        self.y0, self.y1 = top + HEIGHT - BOTTOM, top + TOP

    def across(self, rate: float) -> float:
        low, high = self.rates
        return self.x0 + (self.x1 - self.x0) * math.log(rate / low) / math.log(high / low)

    def up(self, ms: float) -> float:
        low, high = self.powers
        share = (math.log10(ms) - low) / (high - low)
        return self.y0 + (self.y1 - self.y0) * share

    def drawn(self, name: str) -> list[str]:
        found = [
            text(self.x0, self.y1 - 10, f"{name}: {self.quantile}, ms", "start", ' font-weight="bold"'),
            text((self.x0 + self.x1) / 2, self.y0 + 28, "requests a second"),
        ]  # fmt: skip
        for power in range(self.powers[0], self.powers[1] + 1):
            y = self.up(10**power)
            found += [rule(self.x0, y, self.x1, y), text(self.x0 - 5, y + 3.5, short(10**power), "end")]  # fmt: skip
        offered = {point["rate"] for points in self.found["points"].values() for point in points}
        found += [text(self.across(rate), self.y0 + 15, short(rate)) for rate in sorted(offered)]
        for system, points in self.found["points"].items():
            found += self.line(COLOURS[system], points)
        return found

    def line(self, colour: str, points: list[dict[str, Any]]) -> list[str]:
        """A dashed line upwards where more cannot be answered."""
        at = [(self.across(rate), self.up(ms)) for rate, ms in curve(points, self.quantile)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
        found = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>']
        found += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in at]
        last = points[-1]
        if last["a_second"] < KEPT_UP * last["rate"]:
            x = self.across(min(max(last["a_second"], self.rates[0]), self.rates[1]))
            found.append(
                f'<line x1="{x:.1f}" y1="{self.y0:.1f}" x2="{x:.1f}" y2="{self.y1:.1f}" stroke="{colour}" stroke-dasharray="3 3"/>'
            )
        return found


def figure(results: dict[str, Any]) -> str:
    """All panels share their scales."""
    found_of = results["results"]
    every = [points for found in found_of.values() for points in found["points"].values()]
    taken = [ms for points in every for q in QUANTILES for _, ms in curve(points, q)] or [1.0]
    low, high = math.floor(math.log10(min(taken))), math.ceil(math.log10(max(taken)))
    offered = [point["rate"] for points in every for point in points]
    rates = min(offered), max(*offered, min(offered) * 2)
    width, height = len(QUANTILES) * WIDTH, LEGEND + len(found_of) * HEIGHT
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" font-size="10" fill="#222222">',
        "<title>Latency of a request against the rate of requests</title>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for number, (system, colour) in enumerate(COLOURS.items()):
        x = 16 + number * (width - 16) / len(COLOURS)
        drawn.append(f'<rect x="{x:.1f}" y="11" width="14" height="4" fill="{colour}"/>')
        drawn.append(text(x + 19, 17, system, "start"))
    for row, (name, found) in enumerate(found_of.items()):
        for column, quantile in enumerate(QUANTILES):
            panel = Panel(found, quantile, column * WIDTH, LEGEND + row * HEIGHT, (low, max(high, low + 1)), rates)  # fmt: skip
            drawn += panel.drawn(name)
    return "\n".join([*drawn, "</svg>"]) + "\n"
