# SPDX-License-Identifier: Apache-2.0
"""Pictures show the numbers that they are given."""

from __future__ import annotations

import doctest
import itertools
import math
import re
import warnings
from typing import Any

import numpy as np
import pytest
import torch

import longclock as lc
from longclock import plot
from longclock._colours import COLOURS, OF_MODEL

DAY = 86400


def curve(fall: float = 2.0) -> tuple[list[float], list[float]]:
    """s falls by so much an hour."""
    return list(range(13)), [-fall * hours for hours in range(13)]


def test_hands_are_exp_of_s() -> None:
    """At the hour itself 1; an hour beside it, on either side and across midnight, what s says."""
    (axes,) = plot.hands(curve(), hours=(8, 23.5)).axes
    for line, hour in zip(axes.lines, (8, 23.5), strict=True):
        angle, weight = (np.asarray(values) for values in line.get_data())
        day = angle / (2 * math.pi) * 24
        for apart in (0, 1, 5, 12):
            for other in ((hour + apart) % 24, (hour - apart) % 24):
                found = weight[np.abs(day - other).argmin()]
                assert found == pytest.approx(math.exp(-2 * apart), rel=1e-6)


def test_hands_of_a_module_are_those_of_its_curve() -> None:
    torch.manual_seed(0)
    s = lc.TimeSimilarity()
    delta = torch.arange(0, DAY // 2 + 1, 300)
    with torch.no_grad():
        given = (delta / 3600, s(delta))
    (of_module,), (of_curve,) = plot.hands(s).axes, plot.hands(given).axes
    for one, other in zip(of_module.lines, of_curve.lines, strict=True):
        np.testing.assert_allclose(one.get_ydata(), other.get_ydata(), rtol=1e-5)


def test_what_is_kept_lies_at_its_time() -> None:
    times = np.array([0, 6 * 3600, DAY + 12 * 3600, 2 * DAY + 18 * 3600])
    found = {6: [1, -1], 18: torch.tensor([3, 2])}
    faces = plot.kept(times, found, groups=[0, 1, 1, 2], names=["tea", "jazz", "folk"]).axes
    assert [axes.get_title() for axes in faces] == ["at 6:00: 1 of 4 kept", "at 18:00: 2 of 4 kept"]
    for axes, own in zip(faces, ([1], [3, 2]), strict=True):
        whole, kept = (np.asarray(points.get_offsets()) for points in axes.collections)
        np.testing.assert_allclose(whole[:, 0], [0, math.pi / 2, math.pi, 3 * math.pi / 2])
        assert (np.diff(whole[:, 1]) > 0).all()  # the latest outermost
        np.testing.assert_array_equal(kept, whole[own])
        colours = axes.collections[0].get_facecolors()[:, :3]
        assert (colours[1] == colours[2]).all()
        assert len(np.unique(colours, axis=0)) == 3


def test_the_example_of_the_face_asks_at_both_hours() -> None:
    """What stands under an hour was found at it: half of what is kept lies within three hours of it."""
    torch.manual_seed(0)
    (test,) = doctest.DocTestFinder().find(plot.clock_face, globs={})
    code = "".join(example.source for example in test.examples if "savefig" not in example.source)
    names: dict[str, Any] = {}
    exec(code, names)
    assert re.search(r"\{8: found\[0\], 22: found\[1\]\}", test.docstring or "")
    for hour, found in zip((8, 22), names["found"], strict=True):
        apart = lc.circular_delta(names["times"][found], torch.tensor(3600 * hour)) / 3600
        assert apart.median() < 3, hour


def test_names_of_the_most_frequent_groups_are_shown() -> None:
    groups = [group for group in range(12) for _ in range(20 - group)]
    figure = plot.kept(np.arange(len(groups)), {1: []}, groups=groups, names=[f"$g_{group}$" for group in range(12)])  # fmt: skip
    (legend,) = figure.legends
    shown = [text.get_text() for text in legend.get_texts()]
    assert shown == [rf"\$g_{group}\$" for group in range(8)]
    rare = figure.axes[0].collections[0].get_facecolors()[groups.index(8) :, :3]
    assert len(np.unique(rare, axis=0)) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plot.hands(curve(), hours=()), "hands: give at least one hour"),
        (lambda: plot.hands(curve(), hours=(24,)), "hands: hours must be from 0 to below 24, got 24"),
        (lambda: plot.hands(([0, 1], [0, 1, 2])), r"similarity must be two sequences of one length, got \[2\] and \[3\]"),
        (lambda: plot.hands(([0, 6], [1, 0])), "differences that ascend from 0 to 12 hours, got 0 to 6"),
        (lambda: plot.hands(lc.TimeSimilarity(clocks=lc.ELAPSED)), "clock of one day, 86400, got ELAPSED"),
        (lambda: plot.hands(lc.TimeSimilarity(clocks=7 * DAY)), "got 604800"),
        (lambda: plot.kept([3, 2], {8: [0]}), "kept: times must ascend"),
        (lambda: plot.kept([2.5], {8: [0]}), "kept: times must be integers in one dimension, got float"),
        (lambda: plot.kept([1, 2], {8: [2]}), r"kept: found\[8\] must be below 2, got 2"),
        (lambda: plot.kept([1, 2], {8: [0]}, groups=[1]), r"kept: groups must have shape \[2\] to match times, got \[1\]"),
        (lambda: plot.clock_face(curve(), [1, 2], {}), "clock_face: give at least one hour"),
        (lambda: plot.interest_over_day([0, 1], [[0.5]], ["a"]), "interest must have a row for each of the 2 hours, got 1"),
        (lambda: plot.interest_over_day([1, 1], [[0.5], [0.5]], ["a"]), "hours must ascend from 0 to below 24"),
        (lambda: plot.interest_over_day([24], [[0.5]], ["a"]), "hours must ascend from 0 to below 24"),
        (lambda: plot.interest_over_day([1], [0.5], ["a"]), "interest must be numbers in 2 dimensions, got"),
        (lambda: plot.interest_over_day([1], [[0.5]], []), r"groups must be from 0 to -1, as there are names, got \[0\]"),
        (lambda: plot.interest_over_day([1], [[0.5]], ["a"], groups=[0, 0]), r"groups must have shape \[1\], one for each candidate, got \[2\]"),
        (lambda: plot.interest_over_day([1], [[0.5]], ["a"], events=[[1]]), r"events must have shape \[1, 24\], got \[1, 1\]"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_the_interest_in_a_category_is_the_mean_of_its_candidates() -> None:
    hours, interest = np.arange(96) / 4, np.random.default_rng(0).random((96, 4))
    events = np.arange(4 * 24).reshape(4, 24)
    of_category = plot.interest_over_day(hours, torch.from_numpy(interest), ["tea", "jazz"], groups=[1, 0, 1, 1], events=events)  # fmt: skip
    lines, bars = of_category.axes
    assert [line.get_label() for line in lines.lines] == ["jazz", "tea"]
    for line, own in zip(lines.lines, ([0, 2, 3], [1]), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), hours)
        np.testing.assert_allclose(line.get_ydata(), interest[:, own].mean(1))
    heights = [[bar.get_height() for bar in container] for container in bars.containers]
    np.testing.assert_array_equal(heights, [events[[0, 2, 3]].sum(0), events[1]])
    each = plot.interest_over_day(hours, interest, list("abcd"), title="a day")
    (lines,) = each.axes
    assert [line.get_label() for line in lines.lines] == list("abcd")
    np.testing.assert_allclose([line.get_ydata() for line in lines.lines], interest.T)
    assert lines.get_title(loc="left") == "a day"


def test_a_model_has_one_colour_in_every_picture() -> None:
    wanted = dict(zip(("lic", "twin", "lic-month", "sdim"), plot.colours_of(["lic", "twin", "lic-month", "sdim"]), strict=True))  # fmt: skip
    for models in itertools.permutations(wanted):
        assert dict(zip(models, plot.colours_of(models), strict=True)) == wanted
    assert (wanted["lic"], wanted["twin"]) == (OF_MODEL["lic"], OF_MODEL["twin"])
    assert len(set(wanted.values())) == 4
    assert len(plot.colours_of([f"m{number}" for number in range(30)])) == 30
    ten = [f"m{number}" for number in range(10)]
    assert len({*plot.colours_of([*OF_MODEL, *ten])}) == 20  # so many can be told apart
    assert set(OF_MODEL.values()) <= set(COLOURS)


def test_names_do_not_lie_one_over_another() -> None:
    """A dozen models at next to the same place: no name covers another, a mean or an interval, or leaves the picture."""
    models = [f"model {number}" for number in range(12)]
    quality = {model: (0.8 + 1e-5 * number, 1e-5) for number, model in enumerate(models)}
    cost = {model: (3 + 1e-3 * number, 1.0) for number, model in enumerate(models)}
    figure = plot.quality_and_cost(quality, cost, {model: model for model in models}, "ms", "AUC")
    figure.canvas.draw()
    (axes,) = figure.axes
    names = [text.get_window_extent() for text in axes.texts]
    assert len(names) == 12
    assert not any(a.overlaps(b) for a, b in itertools.combinations(names, 2))
    assert all(axes.bbox.contains(*corner) for box in names for corner in (box.min, box.max))
    bars = axes.containers
    assert len(bars) == 12
    for bar in bars:
        point, _, (wide, high) = bar.lines
        (x,), (y,) = point.get_data()
        for lines in (wide, high):  # each with its intervals
            for ends in axes.transData.transform(lines.get_segments()[0]):
                assert not any(box.contains(*ends) for box in names)
        assert not any(box.contains(*axes.transData.transform((x, y))) for box in names)


def test_intervals_are_drawn() -> None:
    """Of a cost as well, which on an axis of logarithms does not reach 0."""
    figure = plot.quality_and_cost({"lic": (0.8, 0.01)}, {"lic": (10.0, 12.0)}, {"lic": "LIC"}, "ms", "AUC")  # fmt: skip
    _, _, (wide, high) = figure.axes[0].containers[0].lines
    np.testing.assert_allclose(wide.get_segments()[0], [[1, 0.8], [22, 0.8]])
    np.testing.assert_allclose(high.get_segments()[0], [[10, 0.79], [10, 0.81]])


@pytest.mark.parametrize("cost", [0.01, 1.0, 3.7, 10.0, 25.34, 99.0, 317.2, 1000.0])
@pytest.mark.parametrize("half", [0.0, 2.0])
def test_one_model_alone_has_an_axis(cost, half) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (axes,) = plot.quality_and_cost({"lic": (0.8, 0.0)}, {"lic": (cost, half)}, {"lic": "LIC"}, "ms", "AUC").axes  # fmt: skip
    least, most = axes.get_xlim()
    assert 0 < least < cost <= cost + half < most


def test_hours_have_a_line_and_a_band() -> None:
    values = {"lic": [None, *((0.8 + hour / 100, 0.01) for hour in range(1, 24))]}
    (axes,) = plot.over_hours(values, {"lic": "LIC"}, "by hour", "AUC", {"lic": "#123456"}).axes
    (line,), (band,) = axes.lines, axes.collections
    assert (line.get_color(), line.get_label()) == ("#123456", "LIC")
    assert np.isnan(line.get_ydata()[0])
    np.testing.assert_allclose(line.get_ydata()[1:], 0.8 + np.arange(1, 24) / 100)
    corners = band.get_paths()[0].vertices
    assert (corners[:, 1].min(), corners[:, 1].max()) == pytest.approx((0.80, 1.04))


def test_points_and_shares_are_what_is_given() -> None:
    titles = {"lic": "LIC", "twin": "TWIN"}
    (axes,) = plot.points({"lic": (0.9, 0.01), "twin": (0.8, 0.02)}, titles, "Seen AUC", "AUC").axes
    assert [bar.lines[0].get_xdata()[0] for bar in axes.containers] == [0.9, 0.8]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["LIC", "TWIN"]
    (axes,) = plot.shares_found({"lic": 0.92}, {"lic": 0.93}, titles).axes
    assert [line.get_xdata()[0] for line in axes.lines] == [0.93, 0.92]
