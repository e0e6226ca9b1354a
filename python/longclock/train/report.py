# SPDX-License-Identifier: Apache-2.0
"""Writes a run's JSON, its figures, and one HTML page that holds them all."""

from __future__ import annotations

import html
import io
import json
import math
import statistics
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from longclock import _pages
from longclock.train.figures import all_figures
from longclock.train.folder import write_whole
from longclock.train.reading import unused_text

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
    "hour, at the end of the stream{mean}. Bars: when the user really chose them.",
}

SILENT = 0.9  # share of the tower's units
NO_LEAD = 0.002  # of seen AUC: as much as seeds differ by on check-ins (docs/training.md)
FLAT = 0.1  # of s, over half the clock
FEW_REPEATS = 0.3  # of the events
FEW_PARTS = 8  # of the stream, to tell how far a lead differs
WORSE_THAN_A_COIN = 0.7  # log loss; answering one half to everything has 0.693
FIGURES = ("seen_auc", "seen_uauc", "own_auc", "auc", "logloss")


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
    return [*_worth(models, data), *_learned(models), *_likeness(data, results["config"])]


def _worth(models: dict[str, Any], data: dict[str, Any]) -> list[str]:
    """Of the time of day: LIC's lead over its control, beside how far that differs over the stream."""
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
    spread = _spread(models["lic"], models["lic-shuffled"], data)
    beside = "" if spread is None else f" (± {spread:.4f} over the stream, 95%)"
    if lead < max(spread or 0.0, NO_LEAD):
        return [
            f"LIC's seen AUC is {lead:+.4f}{beside} beside that of {of_control}: this run shows no gain from the time of day."
        ]
    return [
        f"LIC's seen AUC is {lead:.4f}{beside} above that of {of_control}: that much came from the time of day, in one run. "
        "For how far seeds differ, run python -m longclock.study."
    ]


def _spread(model: dict[str, Any], control: dict[str, Any], data: dict[str, Any]) -> float | None:
    """Half of the 95% confidence interval of a lead in seen AUC, by the leads in the parts of the stream that count; None of too few."""
    parts = list(zip(model["seen_auc_over_stream"], control["seen_auc_over_stream"], strict=True))
    first = math.ceil(len(parts) * data["counted_from_event"] / max(data["events"], 1))
    leads = [one - other for one, other in parts[first:] if one is not None and other is not None]
    if len(leads) < FEW_PARTS:
        return None
    return 1.96 * statistics.stdev(leads) / math.sqrt(len(leads))


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
    """Of the events: whether a search has anything to choose, how many repeat what their user did before, and whether negatives suit that."""
    found = []
    if data["history_longest"] <= config["k"]:
        found.append(
            f"No history is longer than K = {config['k']}: a search keeps all of it and chooses nothing; take a smaller --k."
        )
    share = data.get("repeats")
    if share is None:  # a run over a source does not hold what it would be counted of
        return found
    found.append(f"{share:.0%} of the events are an item that their user took before.")
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
        loss = model["logloss"]
        if loss is not None and loss > WORSE_THAN_A_COIN:
            found.append(
                f"{model['title']}: its log loss is {loss:.3f}, that of answering one half to everything 0.693; try a smaller --lr."
            )
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
    data, title = results["data"], f"Long-term Interest Clock on {results['data']['name']}"
    settings = {**results["config"], **results["versions"], "threads": results["threads"]}
    figures = "\n".join(
        _pages.figure(name, image, _caption(name, results)) for name, image in images.items()
    )
    of_data = (
        f"{data['events']:,} events of {data['users']:,} users over {data['days']} days, "
        f"{data['items']:,} items, {data['candidates']:,} candidates ({data['labels']}{_repeated(data)}); histories: "
        f"median {data['history_median']:,}, longest {data['history_longest']:,}. Protocol: "
        f"{results['config']['protocol']}; metrics count from event "
        f"{data['counted_from_event']:,} on, {data['counted_new_items']:.1%} of which are an item's first.{_unused(data)}"
    )
    return _pages.page(
        title,
        f'<h1>{html.escape(title)}</h1>\n<p class="note">{html.escape(of_data)}</p>\n'
        f"<p><code>{html.escape(results['command'])}</code></p>\n{_pages.table(table(results))}\n"
        f"<h2>What this says</h2>\n{_pages.paragraphs([*verdict(results), *warnings(results)])}{figures}\n<h2>Run</h2>\n"
        + _pages.table([[key, str(value)] for key, value in settings.items()], header=False),
    )


def _caption(name: str, results: dict[str, Any]) -> str:
    interest = results["interest"]
    by_category = interest is not None and interest["by"] != "item"
    mean = f", the mean over those of each {interest['by']}" if by_category else ""
    item = results["clock"]["item"] if name == "clock" else ""
    return CAPTIONS[name].replace("{item}", item).replace("{mean}", mean)


def _repeated(data: dict[str, Any]) -> str:
    share = data.get("negatives_repeated")
    return f", {share:.1%} of them repeated within their event" if share else ""


def _unused(data: dict[str, Any]) -> str:
    text = unused_text(data.get("unused_columns") or ())
    return f" {text[0].upper()}{text[1:]}." if text else ""
