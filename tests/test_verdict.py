# SPDX-License-Identifier: Apache-2.0
"""What a report says of its figures, in words."""

from __future__ import annotations

import math
from typing import Any

import pytest
from streams import stream

from longclock.train import figures, report, results
from longclock.train.batches import TrainingData
from longclock.train.config import MODELS, Config
from longclock.train.loop import Run, train

DATA = {"repeats": 0.8, "labels": "sampled negatives", "history_longest": 500, "events": 40, "counted_from_event": 20}  # fmt: skip
CONFIG = {"negatives_from": "both", "k": 100}


def found(
    lic: float | None = 0.8, control: float | None = 0.75, s: Any = (0.0, -2.0), noise: float = 0.0, data: Any = (), **config: Any
) -> list[str]:  # fmt: skip
    """``noise``: how far the leads of single parts of the stream lie from the whole lead."""
    models: dict[str, Any] = {"lic": {"seen_auc": lic, "similarity": s and {"hours": [0, 12], "s": list(s)}}}  # fmt: skip
    if control is not None:
        models["lic-shuffled"] = {"seen_auc": control, "seen_auc_over_stream": [control] * 40}
        models["lic"]["seen_auc_over_stream"] = [None if lic is None else lic + (noise if part % 2 else -noise) for part in range(40)]  # fmt: skip
    return report.verdict({"models": models, "data": DATA | dict(data), "config": CONFIG | config})


def test_the_clock_beside_its_control() -> None:
    assert found()[0].startswith("LIC's seen AUC is 0.0500 (± 0.0000 over the stream, 95%) above that of its control")  # fmt: skip
    assert "this run shows no gain from the time of day" in found(control=0.7985)[0]
    assert (
        "LIC's seen AUC is -0.0500 (± 0.0000 over the stream, 95%) beside" in found(control=0.85)[0]
    )
    assert "add lic-shuffled to --models" in found(control=None)[0]
    assert len(found(lic=None)) == 2  # a run that diverged has none


def test_a_lead_that_is_within_its_noise_is_none() -> None:
    """1.96 standard errors of 20 parts that count, half of them noise above the lead and half below."""
    error = 1.96 * 0.05 * math.sqrt(20 / 19) / math.sqrt(20)
    said = found(lic=0.77, noise=0.05)[0]
    assert f"+0.0200 (± {error:.4f} over the stream, 95%)" in said
    assert "no gain" in said
    assert "0.0500 (± 0.0225" in found(noise=0.05)[0]
    assert "came from the time of day" in found(noise=0.05)[0]
    assert "LIC's seen AUC is 0.0500 above" in found(data={"counted_from_event": 33})[0]  # too few


def test_a_search_that_has_nothing_to_choose() -> None:
    assert any(each.startswith("No history is longer than K = 500: ") for each in found(k=500))
    assert not any("No history" in each for each in found(k=499))


@pytest.mark.parametrize(("loss", "warned"), [(0.7, False), (0.71, True), (None, False)])
def test_a_model_that_is_worse_than_a_coin_is_named(loss: float | None, warned: bool) -> None:
    models = {"lic": {"title": "LIC", "silent_units": None, "s_fall": None, "logloss": loss}}
    said = report.warnings({"models": models})
    assert [each.startswith("LIC: its log loss is 0.710") for each in said] == [True] * warned  # fmt: skip


def test_what_s_learned() -> None:
    (sentence,) = [each for each in found() if each.startswith("s ")]
    assert (
        f"counts {math.exp(-2):.2%} of one at the same hour, half as much from 12 hours" in sentence
    )
    assert "next to nothing" in found(s=(0.0, -0.05))[1]
    assert not any(each.startswith("s ") for each in found(s=(0.0, 0.5)))  # which the warnings name
    assert report.trouble("LIC", None, -0.5) == ["LIC: s rises with the distance in time of day, by 0.50 over half the clock."]  # fmt: skip
    assert not any(each.startswith("s ") for each in found(s=None))


@pytest.mark.parametrize(("repeats", "negatives_from", "advice"), [(0.22, "both", True), (0.22, "popularity", False), (0.81, "both", False)])  # fmt: skip
def test_repeats(repeats: float, negatives_from: str, advice: bool) -> None:
    said = found(data={"repeats": repeats}, negatives_from=negatives_from)
    assert any(f"{repeats:.0%} of the events are an item that their user took before" in each for each in said)  # fmt: skip
    assert any("--negatives-from popularity" in each for each in said) == advice


def test_a_run_over_a_source_knows_no_repeats() -> None:
    of_source = {name: value for name, value in DATA.items() if name != "repeats"}
    results = {"models": {}, "data": of_source, "config": CONFIG}
    assert report.verdict(results) == []


def test_the_clock_s_face_is_of_the_search() -> None:
    """Of the most active user's history what the model's own search finds for their item, asked at two hours."""
    config = Config(batch=16, k=3, heads=2, head_dim=4, recent=5)
    data = TrainingData.of(stream(events=300), config)
    run = Run.start(data, MODELS["lic"], config)
    train(run, data, config, lambda run, events: None)
    face = results.clock_face(run, data)
    assert face is not None
    own = (data.stream.user == face["user"]).nonzero()[0]
    assert len(own) == max((data.stream.user == user).sum() for user in range(data.stream.users))
    first, second = face["hours"]
    apart = abs(first - second)
    assert min(apart, 24 - apart) >= 6
    assert face["times"] == data.stream.time[own].tolist()
    for kept in face["kept"]:
        assert len(set(kept)) == len(kept) == 3
        assert all(0 <= index < len(own) for index in kept)
    drawn = figures.clock({"clock": face})
    assert drawn is not None
    assert [axes.get_title() for axes in drawn.axes[1:]] == [f"at {hour}:00: 3 of {len(own):,} kept" for hour in face["hours"]]  # fmt: skip
    assert results.clock_face(Run.start(data, MODELS["twin"], config), data) is None
    assert figures.clock({}) is None
