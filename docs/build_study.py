# SPDX-License-Identifier: Apache-2.0
"""Writes the tables of docs/study.md, and its figure, from the committed lines: python docs/build_study.py.

A table follows a comment that names it: ``<!-- rates -->``, ``<!-- own -->``, ``<!-- taught -->``, ``<!-- optimizers -->``, or ``<!-- data protocol kind -->`` with ``rivals`` (LIC among
them), ``variants`` (of LIC), ``short`` or ``cost`` (rivals in a few columns).
"""

from __future__ import annotations

import re
import statistics
from pathlib import Path
from typing import Any

from longclock.study import report
from longclock.study.plan import Line, read_lines
from longclock.study.summary import Mean, by_model, difference, mean_of
from longclock.train.report import png

ROOT = Path(__file__).parents[1]
LINES = ROOT / "examples" / "results" / "study"
PAGE = ROOT / "docs" / "study.md"
TABLE = re.compile(
    r"(<!-- (?:(rates|own|taught|optimizers)|([\w-]+) (\w+) (rivals|variants|short|cost)) -->\n)((?:\|.*\n)*)"
)
STREAMS = {
    "nyc-60-days": "check-ins, 60 days",
    "nyc": "check-ins",
    "nycflights": "departures",
    "bikeshare14-home": "bike trips, home area to station",
    "bikeshare14": "bike trips, station to station",
}
SHORT = ("model", "seen AUC", "LIC's lead", "long histories")
COST = ("model", "seen AUC", "LIC's lead", "seeds needed", "ms / 1,000")


def lines_of(data: str, kind: str) -> list[Line]:
    """The committed runs of rivals, LIC among them, or of LIC and its variants."""
    lines = read_lines(LINES / data / "runs.jsonl")
    is_variant = {x["model"]: x["model"].startswith("lic-") for x in lines} | {
        "lic-shuffled": False,
        "lic-stack": False,
    }
    return [
        x for x in lines if x["model"] == "lic" or is_variant[x["model"]] == (kind == "variants")
    ]


def compared(data: str, protocol: str, kind: str) -> list[list[str]]:
    rows = report.table(lines_of(data, kind), protocol)
    chosen = {"short": SHORT, "cost": COST}.get(kind)
    if chosen is None:
        return rows
    columns = [place for place, name in enumerate(rows[0]) if name in chosen]
    return [[row[place] for place in columns] for row in rows]


def rates() -> list[list[str]]:
    """LIC's seen AUC at half, once and twice the default learning rate, on every stream that has it."""
    rows = []
    for data, title in STREAMS.items():
        more = read_lines(LINES / data / "rates.jsonl")
        if not more:
            continue
        lines = [x for x in lines_of(data, "rivals") + more if x["model"] == "lic"]
        found: dict[float, list[float]] = {}
        for line in sorted(lines, key=lambda line: line["learning_rate"]):
            found.setdefault(line["learning_rate"], []).append(line["seen_auc"])
        means = [statistics.mean(values) for values in found.values()]
        cells = [
            f"{mean:.4f}, {statistics.stdev(values):.4f}"
            for mean, values in zip(means, found.values(), strict=True)
        ]
        rows.append([title, *cells, f"{max(means) - min(means):.4f}"])
    return [["stream", "0.01", "0.02", "0.04", "largest less smallest mean"], *rows]


def own() -> list[list[str]]:
    """Own AUC of what counts and of LIC, on every stream that has it."""
    rows = []
    for data, title in STREAMS.items():
        models = by_model(read_lines(LINES / data / "own.jsonl"), "daily")
        means = [mean_of(models.get(x, []), "own_auc") for x in ("counts", "clock-counts", "lic")]
        if None not in means:
            values = [mean.value for mean in means if mean is not None]
            cells = [mean.text() for mean in means if mean is not None]
            rows.append([title, *cells, f"{values[2] - values[1]:+.4f}"])
    return [
        ["stream", "counts", "counts on the clock", "LIC", "LIC less counts on the clock"],
        *rows,
    ]


def by_setting(folder: str, setting: str) -> dict[tuple[str, str], dict[Any, list[Line]]]:
    """Runs that differ in one setting: by stream and model, then by its value."""
    found: dict[tuple[str, str], dict[Any, list[Line]]] = {}
    for line in read_lines(LINES / folder / "runs.jsonl"):
        runs = found.setdefault((line["data"], line["model"]), {})
        runs.setdefault(line["settings"][setting], []).append(line)
    return found


def taught() -> list[list[str]]:
    """What a search finds of the attention, and seen AUC, without and with a loss that teaches it; gains are seed by seed."""
    rows = [["stream", "model", "recall@100", "taught", "best there is", "gain", "seen AUC", "taught", "gain"]]  # fmt: skip
    for (data, _), runs in by_setting("taught", "search_loss").items():
        plain, with_loss = (runs[weight] for weight in sorted(runs))
        cells = [data, report.title_of(plain[0])]
        for figure in ("recall_of_attention", "seen_auc"):
            cells += [_text(mean_of(plain, figure)), _text(mean_of(with_loss, figure))]
            if figure == "recall_of_attention":
                cells.append(_text(mean_of(with_loss, "best_recall")))
            cells.append(_text(difference(with_loss, plain, figure), "+"))
        rows.append(cells)
    return rows


def optimizers() -> list[list[str]]:
    """LIC's seen AUC by what moves its embeddings."""
    found = by_setting("optimizers", "embedding_optimizer")
    kinds = list(next(iter(found.values())))
    rows = [["stream", *(kind or "adam" for kind in kinds)]]
    for (data, _), runs in found.items():
        rows.append([data, *(_text(mean_of(runs[kind], "seen_auc")) for kind in kinds)])
    return rows


def _text(mean: Mean | None, sign: str = "") -> str:
    """Without its interval, which over three seeds says little."""
    return "" if mean is None else f"{mean.value:{sign}.4f}"


SPECIAL = {"rates": rates, "own": own, "taught": taught, "optimizers": optimizers}


def page() -> str:
    """The page with its tables as they should be."""

    def table(found: re.Match[str]) -> str:
        mark, special, data, protocol, kind = found.groups()[:5]
        rows = SPECIAL[special]() if special else compared(data, protocol, kind)
        return mark + report.markdown(rows)

    return TABLE.sub(table, PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    figure = report.auc(lines_of("nycflights", "rivals"), "daily")
    (LINES / "nycflights_daily_auc.png").write_bytes(png(figure))
