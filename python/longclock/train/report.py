# SPDX-License-Identifier: Apache-2.0
"""Writes a run's JSON, its figures, and one HTML page that holds them all."""

from __future__ import annotations

import base64
import html
import io
import json
import math
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from longclock.train.figures import all_figures
from longclock.train.folder import write_whole

CAPTIONS = {
    "clock": "Left: how much a behaviour counts by when it was done, were the rest equal, asked at two hours; exp(s) over its largest "
    "value. Beside it: the latest behaviours of the most active user, the newest outermost, and those that the search keeps for "
    "{item} at these hours.",
    "comparison": "All models share data, negatives, embeddings, tower and order of events; only the "
    "interest module (or, for shuffled times, the behaviours' times) differs.",
    "over_stream": "Every event was scored before it was learned from; those of an item's first moment are left out.",
    "by_hour": "Local hour of the event.",
    "recall": "Share of the attention, were it over the whole history, that falls on the K behaviours that the search found (filled), and on "
    "those that have most of it (hollow), more than which no search can find: at the end of the stream, of histories longer than K. Models without a search of K behaviours are left out.",
    "similarity": "How much a behaviour counts by its distance in time of day alone. Attention is a "
    "softmax, so only differences of s matter: the curves start at 0.",
    "interest": "Lines: predicted probability of the user's most frequent items at every quarter of an "
    "hour, at the end of the stream. Bars: when the user really chose them.",
}

SILENT = 0.9  # share of the tower's units
NO_LEAD = 0.001  # of seen AUC: less than seeds differ by
FLAT = 0.1  # of s, over half the clock
FEW_REPEATS = 0.3  # of the events
FIGURES = ("seen_auc", "seen_uauc", "own_auc", "auc", "logloss")

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ color-scheme: light dark; --text: #222; --page: #fff; --faint: #555; --line: #ddd; --code: #f3f3f3 }}
@media (prefers-color-scheme: dark) {{
  :root {{ --text: #ddd; --page: #161618; --faint: #a2a2a6; --line: #3a3a3e; --code: #26262a }} }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: var(--text); background: var(--page); overflow-wrap: anywhere }}
.wide {{ overflow-x: auto }} table {{ border-collapse: collapse; overflow-wrap: normal }}
td, th {{ padding: .25rem .8rem; text-align: right }}
td:first-child, th:first-child {{ text-align: left }} tr {{ border-bottom: 1px solid var(--line) }}
figure {{ margin: 1.5rem 0 }} figcaption, .note {{ color: var(--faint) }}
img {{ max-width: 100%; background: #fff; border-radius: 4px }}
code {{ background: var(--code); padding: .1rem .3rem; overflow-wrap: anywhere }}
</style></head><body>
<h1>{title}</h1>
<p class="note">{data}</p>
<p><code>{command}</code></p>
<div class="wide">{table}</div>
<h2>What this says</h2>
{verdict}
{figures}
<h2>Run</h2>
<div class="wide"><table>{settings}</table></div>
</body></html>
"""


def write(results: dict[str, Any], out: Path) -> list[Path]:
    """Write ``results.json``, ``<figure>.png`` and ``report.html`` into ``out``; returns the paths."""
    paths = [out / "results.json"]
    write_whole(paths[0], (json.dumps(results, indent=1, allow_nan=False) + "\n").encode())
    images = {}
    for name, figure in all_figures(results).items():
        images[name] = png(figure)
        paths.append(out / f"{name}.png")
        write_whole(paths[-1], images[name])
    paths.append(out / "report.html")
    write_whole(paths[-1], _page(results, images).encode(errors="backslashreplace"))
    return paths


def table(results: dict[str, Any]) -> list[list[str]]:
    """The comparison as rows of text, header first."""
    models = results["models"].values()
    searches = any(model.get("recall_of_attention") is not None for model in models)
    head = ["model", "seen AUC", "seen UAUC", "own AUC", "AUC", "log loss"]
    rows = [[*head, *["recall@K"] * searches, "events/s", "seconds"]]
    for model in models:
        figures = [_number(model[name]) for name in FIGURES]
        if model.get("diverged") is not None:
            figures[0] = f"diverged at event {model['diverged']:,}"
        if searches:
            figures.append(_recall(model))
        per_second = model["events_per_second"]
        speed = ["n/a" if per_second is None else f"{per_second:,.0f}", f"{model['seconds']:.1f}"]
        rows.append([model["title"], *figures, *speed])
    return rows


def verdict(results: dict[str, Any]) -> list[str]:
    """What the figures say, in sentences: the clock beside its control, what s learned, what the data are like."""
    models, data = results["models"], results["data"]
    return [*_worth(models), *_learned(models), *_likeness(data, results["config"])]


def _worth(models: dict[str, Any]) -> list[str]:
    """Of the time of day: LIC's lead over its control."""
    auc = {
        name: model["seen_auc"] for name, model in models.items() if model["seen_auc"] is not None
    }
    if "lic" not in auc:
        return []
    if "lic-shuffled" not in auc:
        return [
            "What the time of day is worth is not known without LIC's control: add lic-shuffled to --models."
        ]
    lead = auc["lic"] - auc["lic-shuffled"]
    of_control = "its control, whose behaviours have the times of others of the same user"
    if lead < NO_LEAD:
        return [
            f"LIC's seen AUC is {lead:+.4f} beside that of {of_control}: this run shows no gain from the time of day."
        ]
    return [
        f"LIC's seen AUC is {lead:.4f} above that of {of_control}: that much came from the time of day, in one run. "
        "How far seeds differ tells python -m longclock.study."
    ]


def _learned(models: dict[str, Any]) -> list[str]:
    """Of LIC's s: how far it falls, and where a behaviour counts half."""
    curve = models.get("lic", {}).get("similarity")
    if not curve:
        return []
    fall = [curve["s"][0] - s for s in curve["s"]]
    if fall[-1] <= 0:  # the warnings say so
        return []
    if fall[-1] < FLAT:
        return [
            f"s falls by {fall[-1]:.2f} over half the clock, next to nothing: LIC hardly tells times of day apart."
        ]
    half = next(
        (hours for hours, down in zip(curve["hours"], fall, strict=True) if down >= math.log(2)),
        None,
    )
    reach = "" if half is None else f", half as much from {half:g} hours apart"
    return [
        f"s falls by {fall[-1]:.1f} over half the clock: were the rest equal, a behaviour at the opposite hour counts "
        f"{math.exp(-fall[-1]):.2%} of one at the same hour{reach}."
    ]


def _likeness(data: dict[str, Any], config: dict[str, Any]) -> list[str]:
    """Of the events: how many repeat what their user did before, and whether the negatives suit that."""
    share = data.get("repeats")
    if share is None:  # a run over a source does not hold what it would be counted of
        return []
    found = [f"{share:.0%} of the events are an item that their user took before."]
    if (
        data["labels"] == "sampled negatives"
        and share < FEW_REPEATS
        and config["negatives_from"] != "popularity"
    ):
        found.append(
            "With so few, negatives from a user's own past are told by their having been taken: compare with --negatives-from popularity."
        )
    return found


def warnings(results: dict[str, Any]) -> list[str]:
    """A sentence for every model that did not learn as it should."""
    found = []
    for model in results["models"].values():
        found += trouble(model["title"], model["silent_units"], model["s_fall"])
    return found


def trouble(title: str, silent_units: float | None, s_fall: float | None) -> list[str]:
    """What is wrong with one trained model, in sentences; empty where nothing is."""
    found = []
    if silent_units is not None and silent_units >= SILENT:
        found.append(
            f"{title}: {silent_units:.0%} of the tower's units answer to nothing any more; try a smaller --lr."
        )
    if s_fall is not None and s_fall < 0:
        found.append(
            f"{title}: s rises with the distance in time of day, by {-s_fall:.2f} over half the clock."
        )
    return found


def _recall(model: dict[str, Any]) -> str:
    """Of the attention, with the most that K behaviours can have of it, and the K."""
    value = model.get("recall_of_attention")
    return (
        "n/a"
        if value is None
        else f"{value:.4f} of {model['best_recall']:.4f} @{model['recall_k']}"
    )


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4f}"


def png(figure: Figure) -> bytes:
    """A figure's file: the same bytes for the same figure."""
    buffer = io.BytesIO()
    # The Software entry names a version.
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return buffer.getvalue()


def _page(results: dict[str, Any], images: dict[str, bytes]) -> str:
    data = results["data"]
    head, *rows = table(results)
    figures = "\n".join(
        f'<figure><img alt="{name}" src="data:image/png;base64,{base64.b64encode(image).decode()}">'
        f"<figcaption>{html.escape(_caption(name, results))}</figcaption></figure>"
        for name, image in images.items()
    )
    settings = {**results["config"], **results["versions"], "threads": results["threads"]}
    return PAGE.format(
        title=html.escape(f"Long-term Interest Clock on {data['name']}"),
        data=html.escape(
            f"{data['events']:,} events of {data['users']:,} users over {data['days']} days, "
            f"{data['items']:,} items, {data['candidates']:,} candidates ({data['labels']}{_repeated(data)}); histories: "
            f"median {data['history_median']:,}, longest {data['history_longest']:,}. Protocol: "
            f"{results['config']['protocol']}; metrics count from event "
            f"{data['counted_from_event']:,} on, {data['counted_new_items']:.1%} of which are an item's first.{_unused(data)}"
        ),
        command=html.escape(results["command"]),
        verdict="".join(
            f"<p>{html.escape(line)}</p>\n" for line in [*verdict(results), *warnings(results)]
        ),
        table=f"<table>{_row('th', head)}{''.join(_row('td', row) for row in rows)}</table>",
        figures=figures,
        settings="".join(_row("td", [key, str(value)]) for key, value in settings.items()),
    )


def _caption(name: str, results: dict[str, Any]) -> str:
    return CAPTIONS[name].replace("{item}", results["clock"]["item"] if name == "clock" else "")


def _repeated(data: dict[str, Any]) -> str:
    share = data.get("negatives_repeated")
    return f", {share:.1%} of them repeated within their event" if share else ""


def _unused(data: dict[str, Any]) -> str:
    names = data.get("unused_columns")
    return f" Columns not used: {', '.join(names)} (--categories)." if names else ""


def _row(tag: str, cells: list[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>\n"
