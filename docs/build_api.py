# SPDX-License-Identifier: Apache-2.0
"""Makes docs/api.md from the docstrings: ``python docs/build_api.py``. A test keeps them in step."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import longclock as lc
from longclock import (
    baselines,
    data,
    distributed,
    interop,
    jagged,
    metrics,
    nn,
    ops,
    optim,
    plot,
    serve,
    store,
)
from longclock.data import sources

HEAD = """# API

<!-- made by docs/build_api.py from the docstrings; change those -->

`import longclock as lc` gives what begins with `lc`; everything else stands here by the name that it is imported by. The letters of the shapes are those of [mathematics.md](mathematics.md); what holds for every op (order, NaN,
padding, dtypes, determinism) stands [there](mathematics.md#semantics). `lc.reference` has every op under the same name in plain
PyTorch, for any float dtype and device; modules run it with `backend="reference"`. The rivals are in `longclock.baselines`, optimizers of
embeddings in `lc.optim`, searches of what lies on several ranks in `lc.distributed` ([scaling.md](scaling.md)), jagged tensors in `lc.jagged` and `lc.interop`, stores of
histories in `longclock.store`, sources of events in `longclock.data.sources` ([events.md](events.md)), what serves a trained model in `longclock.serve` ([serving.md](serving.md)), pictures in `longclock.plot`.

`mlp` is `(w1, b1, w2, b2)` or an `lc.TimeSimilarity`, which has clocks and units of its own; what is given besides must agree with them. `clocks` is a
period in seconds, `lc.ELAPSED` (how long ago), or a tuple of up to four of them. `clocks=None` is a day, `unit=None` 3,600 seconds, of `lc.ELAPSED` 60. `**options` of `lc.gsu_score` and `lc.clock_gsu`, and `**layout` of `lc.hamming_gsu`, are the keyword arguments from `ids` on; those that
are given tell the layout:

| layout | query | keys | key_time | query_time | extra |
|---|---|---|---|---|---|
| dense, one candidate | [S, D] | [S, M, D] | [S, M] | [S] | `lengths` [S] or None |
| dense, C candidates of a request | [S, C, D] | [S, M, D] | [S, M] | [S] | `lengths` |
| ragged | [Q, D] | [T, D] | [T] | [S] | `offsets` [S + 1], `query_offsets` [S + 1] or None (one query each) |
| windows into shared histories | [Q, D] | [T, D] | [T] | [S] | `starts`, `ends` [S], `query_offsets` [S + 1] or None |
| table, any of the above | as above | table [N, D] | as above | as above | `ids`: [S, M] or [T] |

"""
RIVALS = (
    "Pooled", "NoTime", "HourEmbedding", "InterestClock", "PeriodGraph", "DIN", "SIMHard", "SIMSoft", "ETA",
    "SDIM", "TWIN", "TWINV2", "TransActV2", "HSTU", "WithHour", "FullClock", "ClockSearch", "ClockAttention", "DayAndWeek",
)  # fmt: skip
SECTIONS = (
    ("Modules", (lc.LongTermInterestClock, lc.ClockAttentionStack, lc.TimeSimilarity)),
    ("Histories", (lc.History,)),
    (
        "Stores of histories",
        (
            store.open_store,
            store.SQLiteStore,
            store.RedisStore,
            store.BehaviourStore,
            store.Behaviours,
            store.DamagedHistoryError,
        ),
    ),
    (
        "Sources of events",
        (
            sources.open_source,
            sources.FolderSource,
            sources.ArrowSource,
            sources.KafkaSource,
            sources.RedisStreamSource,
            sources.EventSource,
            sources.Events,
            sources.Read,
            sources.text_ids,
            sources.json_message,
        ),
    ),
    ("Training", (lc.parameter_groups, optim.RowWiseAdagrad, optim.LazyAdam)),
    (
        "Pictures",
        (
            plot.clock_face,
            plot.hands,
            plot.kept,
            plot.interest_over_day,
            plot.points,
            plot.quality_and_cost,
            plot.over_hours,
            plot.shares_found,
            plot.colours_of,
        ),
    ),
    ("Search", (lc.clock_gsu, lc.gsu_score, lc.block_topk, lc.merge_topk, lc.quantize_rows)),
    ("Search across ranks", (distributed.clock_gsu, distributed.clock_gsu_at_rows)),
    ("Jagged tensors", (jagged.select, interop.torchrec.history)),
    (
        "Models of other libraries",
        (
            interop.fuxictr.LIC,
            interop.fuxictr.TimedDataLoader,
            interop.torch_rechub.LIC,
        ),
    ),
    ("Search by hashes", (lc.hamming_gsu, lc.pack_signs)),
    ("Attention", (lc.esu_attention,)),
    ("Time", (lc.clock_time, lc.circular_delta, lc.time_features, lc.time_similarity)),
    ("Types", (lc.Lookup, lc.QuantizedRows, lc.TopK)),
    ("Serving", (serve.Recommender, serve.Request, serve.Ranking)),
    ("Interest modules", (nn.InterestModule,)),
    ("Rivals", tuple(getattr(baselines, name) for name in RIVALS)),
)
# Where public names are imported from, the first that has one first.
PACKAGES = (
    lc, optim, distributed, jagged, interop.torchrec, interop.fuxictr, interop.torch_rechub, store, sources, plot, serve, nn, baselines,
    data, metrics,
)  # fmt: skip
LISTED = [thing for _, things in SECTIONS for thing in things]
MORE = [op for op in (getattr(ops, name) for name in ops.__all__) if op not in LISTED]
# What is shown of a class besides its docstring.
METHODS = {
    lc.LongTermInterestClock: (
        "forward",
        "project",
        "search",
        "search_arguments",
        "attend",
        "attention_mass",
        "search_loss",
    ),
    lc.ClockAttentionStack: ("forward",),
    lc.QuantizedRows: ("float",),
    lc.History: ("dense", "ragged", "windows", "layout", "arguments", "to"),
    store.BehaviourStore: (
        "append",
        "append_many",
        "get",
        "get_many",
        "read_many",
        "trim",
        "delete",
        "users",
        "repair",
        "close",
    ),
    serve.Recommender: ("rank", "rank_many", "refresh"),
    nn.InterestModule: (
        "observe",
        "auxiliary_logits",
        "search",
        "attention_mass",
        "search_loss",
        "project",
    ),
}
OBJECTS = {
    lc.LongTermInterestClock: "clock",
    lc.ClockAttentionStack: "stack",
    nn.InterestModule: "interest",
    lc.History: "history",
    lc.QuantizedRows: "rows",
    store.BehaviourStore: "store",
    serve.Recommender: "recommender",
}  # what is shown called


def public() -> dict[str, Any]:
    """Everything public by the name that it is imported by: what the page shows, and what the packages export."""
    exported = (getattr(package, name) for package in PACKAGES for name in package.__all__)
    things = [
        *LISTED,
        *MORE,
        *(each for each in exported if not isinstance(each, (ModuleType, str))),
    ]
    documented = [thing for thing in things if thing is not sources.Cursor]  # a type's other name
    return {path_of(thing): thing for thing in documented}


def path_of(thing: Any) -> str:
    """The name that it is imported by; what ``import longclock as lc`` gives begins with ``lc``."""
    name = str(thing.__name__)
    for package in PACKAGES:
        if name in package.__all__ and getattr(package, name) is thing:
            return shown(f"{package.__name__}.{name}")
    raise LookupError(f"{thing} is exported by none of the packages that the page shows")


def shown(path: str) -> str:
    """A name that begins with ``longclock``, as the page has it."""
    rest = path.removeprefix("longclock.")
    return f"lc.{rest}" if rest.split(".")[0] in lc.__all__ else path


def heading(thing: Any) -> str:
    return re.sub(r"^(lc|longclock)\.", "", path_of(thing))


def code(text: str) -> str:
    """Docstrings mark code with two backticks and names with a role, Markdown both with one."""
    return re.sub(r":\w+:`([^`]*)`", lambda m: f"`{shown(m[1])}`", text).replace("``", "`")


def shapes(text: str) -> str:
    """Shapes in brackets as code, so that none reads as a link."""
    parts = re.split(r"(`[^`]*`)", code(text))
    pattern = re.compile(r"(\w*\([^()\[\]]*\[[^()]*\]\))|(\w*\[[^\[\]]*\])")
    return "".join(
        part if part.startswith("`") else pattern.sub(lambda m: f"`{m.group(0)}`", part)
        for part in parts
    )


def entries(lines: list[str]) -> list[str]:
    """The indented entries of Args and the like, one list item each."""
    items: list[str] = []
    for line in lines:
        if line.startswith("     ") or not items:
            items = [*items[:-1], f"{items[-1]} {line.strip()}"] if items else [line.strip()]
        else:
            items.append(line.strip())
    return ["- " + re.sub(r"^([\w, ]+): ", r"`\1`: ", shapes(item)) for item in items]


def markdown(doc: str) -> str:
    """A docstring as Markdown: text, and its headed parts as lists."""
    out: list[str] = []
    for block in doc.split("\n\n"):
        lines, text = block.splitlines(), list[str]()
        if all(line.startswith("    ") for line in lines):  # what an "Example::" shows
            out[-1] = out[-1].replace("Example::", "**Example**")
            out.append("```pycon\n" + "\n".join(line[4:] for line in lines) + "\n```")
            continue
        while lines:
            line = lines.pop(0)
            if re.fullmatch(r"(Args|Returns|Raises):", line):
                if text:
                    out.append(shapes("\n".join(text)))
                    text = []
                indented = []
                while lines and lines[0].startswith("    "):
                    indented.append(lines.pop(0))
                if line == "Args:":
                    found = "\n".join(entries(indented))
                else:
                    found = shapes(" ".join(part.strip() for part in indented))
                out.append(f"**{line[:-1]}**\n\n{found}")
            else:
                text.append(line)
        if text:
            out.append(shapes("\n".join(text)))
    return "\n\n".join(out)


def signature(thing: Callable[..., Any], name: str) -> str:
    """A call of it by that name."""
    parameters = [p for p in inspect.signature(thing).parameters.values() if p.name != "self"]
    stars: dict[Any, str] = {
        inspect.Parameter.VAR_POSITIONAL: "*",
        inspect.Parameter.VAR_KEYWORD: "**",
    }
    parts, star = [], False
    for parameter in parameters:
        star |= parameter.kind is parameter.VAR_POSITIONAL
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            parts.append("*")
            star = True
        default = parameter.default
        parts.append(
            stars.get(parameter.kind, "")
            + (parameter.name if default is parameter.empty else f"{parameter.name}={default!r}")
        )
    return f"{name}({', '.join(parts)})"


def section(thing: Any) -> str:
    parts, path = [f"### {heading(thing)}"], path_of(thing)
    rival = thing.__module__.startswith("longclock.baselines")  # these hand most arguments on
    parts.append(f"```python\n{f'{path}(...)' if rival else signature(thing, path)}\n```")
    parts.append(markdown(inspect.getdoc(thing) or ""))
    for name in METHODS.get(thing, ()):
        method = getattr(thing, name)
        owner = path if inspect.ismethod(method) else OBJECTS[thing]  # else of an object
        call = f"```python\n{signature(method, f'{owner}.{name}')}\n```"
        parts.append(f"#### .{name}\n\n{call}\n\n{markdown(inspect.getdoc(method) or '')}")
    return "\n\n".join(parts)


def page() -> str:
    text = HEAD
    for title, things in (*SECTIONS, *([("More ops", MORE)] if MORE else [])):
        text += f"## {title}\n\n" + "\n\n".join(section(thing) for thing in things) + "\n\n"
    return text.rstrip() + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("api.md").write_text(page(), encoding="utf-8")
