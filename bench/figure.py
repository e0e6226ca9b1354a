# SPDX-License-Identifier: Apache-2.0
"""The curves of ``bench.scaling`` as an SVG: a panel an axis, behaviours a second, both axes logarithmic."""

from __future__ import annotations

import math
from typing import Any

LINES = {"longclock": "#0b62a4", "torch": "#c8500a", "reference": "#777777"}
COLUMNS, WIDTH, HEIGHT = 3, 270, 190  # of a panel, with its margins
LEFT, RIGHT, TOP, BOTTOM = 52, 20, 34, 30  # margins of a panel
LEGEND = 30
SUFFIXES = ("", "k", "M", "G", "T")


def short(value: float) -> str:
    """15,000 as 15k; up to four digits as they are."""
    if value < 10_000:
        return f"{value:,g}"
    power = min(max(int(math.log10(value) / 3 + 1e-9), 0), len(SUFFIXES) - 1)
    return f"{value / 1000**power:g}{SUFFIXES[power]}"


def per_second(curve: dict[str, Any], rival: str) -> list[tuple[int, float]]:
    """Value of the axis and behaviours a second of each point that has the rival."""
    found = []
    for point in curve["points"]:
        ours = 1e9 / point["ns_per_behaviour"]
        if rival == "longclock":
            found.append((point["value"], ours))
        elif rival in point["ratio"]:
            found.append((point["value"], ours / point["ratio"][rival]["median"]))
    return found


def text(x: float, y: float, content: str, anchor: str = "middle", style: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{content}</text>'


def rule(x1: float, y1: float, x2: float, y2: float) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="#dddddd"/>'


def panel(curve: dict[str, Any], left: float, top: float, low: int, high: int) -> list[str]:
    """At left, top; from 10^low to 10^high behaviours a second."""
    x0, x1 = left + LEFT, left + WIDTH - RIGHT
    y0, y1 = top + HEIGHT - BOTTOM, top + TOP
    values = [point["value"] for point in curve["points"]]
    span = math.log(values[-1] / values[0]) or 1.0

    def across(value: float) -> float:
        return x0 + (x1 - x0) * math.log(value / values[0]) / span

    def up(rate: float) -> float:
        return y0 + (y1 - y0) * (math.log10(rate) - low) / (high - low)

    fixed = ", ".join(f"{name} = {size:,}" for name, size in curve["sizes"].items())
    found = [
        text(x0, top + 14, curve["axis"], "start", ' font-weight="bold"'),
        text(x0, top + 27, fixed, "start", ' font-size="9" fill="#555555"'),
    ]
    for power in range(low, high + 1):
        y = up(10**power)
        found += [rule(x0, y, x1, y), text(x0 - 5, y + 3.5, short(10**power), "end")]
    found += [text(across(value), y0 + 15, short(value)) for value in values]
    for rival, colour in LINES.items():
        at = [(across(value), up(rate)) for value, rate in per_second(curve, rival)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
        found.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        found += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in at]
    return found


def figure(results: dict[str, Any]) -> str:
    """All panels share the scale of the rate."""
    curves = results["curves"]
    rates = [rate for curve in curves for rival in LINES for _, rate in per_second(curve, rival)]
    low, high = math.floor(math.log10(min(rates))), math.ceil(math.log10(max(rates)))
    rows = -(-len(curves) // COLUMNS)
    width, height = COLUMNS * WIDTH, LEGEND + rows * HEIGHT
    found = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" font-size="10" fill="#222222">',
        "<title>clock_gsu: behaviours a second as one size changes</title>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
        text(LEFT, 19, "clock_gsu, behaviours a second", "start", ' font-size="12"'),
    ]
    x = float(WIDTH + LEFT)
    for rival, colour in LINES.items():
        found.append(f'<rect x="{x:.1f}" y="11" width="18" height="4" fill="{colour}"/>')
        found.append(text(x + 24, 19, rival, "start"))
        x += 95
    for number, curve in enumerate(curves):
        row, column = divmod(number, COLUMNS)
        found += panel(curve, column * WIDTH, LEGEND + row * HEIGHT, low, max(high, low + 1))
    return "\n".join([*found, "</svg>"]) + "\n"
