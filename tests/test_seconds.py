# SPDX-License-Identifier: Apache-2.0
"""Times are seconds: the CPU, which reads values, refuses what must be a finer unit."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from cases import make_case
from esu_cases import make_esu

import longclock as lc

LIMIT = 10**11
NOW_MS = 1_737_000_123_456


@pytest.fixture(autouse=True)
def _values_are_read(device: str, emulated: bool) -> None:
    if emulated or device != "cpu":
        pytest.skip("only the CPU reads values")


def refused(call: Callable[[], object], text: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(text)):
        call()


@pytest.mark.parametrize("op", ["clock_gsu", "gsu_score"])
@pytest.mark.parametrize("kind", ["dense", "ragged", "windows"])
def test_searches(op: str, kind: str) -> None:
    case = make_case(kind, candidates=3 if kind == "dense" else 1)
    run = lambda: case.run(getattr(lc, op))  # noqa: E731
    run()
    start = int(case.layout["starts"][0]) if kind == "windows" else 0
    flat = case.key_time = case.key_time.long()
    place = flat.view(-1)
    for time, unit in ((NOW_MS, "10^3"), (-NOW_MS * 10**3, "10^6"), (NOW_MS * 10**6, "10^9")):
        place[start] = time
        refused(
            run,
            f"{op}: key_time must be seconds, from -10^11 to 10^11, got {time} at position {start}; ",
        )
        with pytest.raises(ValueError, match=re.escape(f"seconds are divided by {unit}")):
            run()
    for time in (LIMIT + 1, -LIMIT - 1, 2**63 - 1, -(2**63)):
        place[start] = time
        refused(run, f"{op}: key_time must be seconds")
    place[start] = LIMIT
    run()
    case.query_time = case.query_time.long()
    case.query_time[-1] = NOW_MS
    refused(run, f"{op}: query_time must be seconds")


def test_what_does_not_count_may_hold_anything() -> None:
    case = make_case("dense", mask=True)
    expected = case.run(lc.gsu_score)
    lengths = case.layout["lengths"]
    dead = torch.arange(case.key_time.shape[1]) >= lengths[:, None]
    dead |= ~case.layout["mask"]
    case.key_time[dead] = 2**63 - 1
    assert torch.equal(case.run(lc.gsu_score), expected)

    case = make_case("windows")
    case.layout["starts"] = case.layout["ends"] - (case.layout["ends"] > 0).long()  # one behaviour
    case.layout["ends"][1:] = case.layout["starts"][1:]  # or none
    end = int(case.layout["ends"][0])
    case.key_time[end:] = NOW_MS
    assert case.run(lc.gsu_score).isfinite().all()


def test_hashes() -> None:
    words, when = torch.randint(-9, 9, (2, 5, 1)), torch.zeros(2, 5, dtype=torch.int64)
    when[1, 3] = NOW_MS
    refused(
        lambda: lc.hamming_gsu(words[:, 0], words, when, when[:, 0], 3),
        f"hamming_gsu: key_time must be seconds, from -10^11 to 10^11, got {NOW_MS} at position 8",
    )


def test_attention() -> None:
    esu = make_esu(queries=3, k=5)
    esu.z_time, esu.valid = esu.z_time.long(), torch.ones(3, 5, dtype=torch.bool)
    esu.run(lc.esu_attention)
    esu.z_time[2, 4] = NOW_MS
    refused(
        lambda: esu.run(lc.esu_attention),
        f"esu_attention: z_time must be seconds, from -10^11 to 10^11, got {NOW_MS} at position 14",
    )
    esu.valid[2, 4] = False
    esu.run(lc.esu_attention)
    esu.query_time = esu.query_time.long()
    esu.query_time[1] = NOW_MS
    refused(lambda: esu.run(lc.esu_attention), "esu_attention: query_time must be seconds")


def test_attention_to_what_was_found() -> None:
    """Times that nothing was found at are not looked at."""
    esu = make_esu(queries=3, k=5, some_invalid=False)
    when, found = esu.z_time.long(), torch.tensor([[4, 0], [-1, 2], [3, 3]])

    def run() -> torch.Tensor:
        return lc.esu_attention(esu.u, esu.z, when, esu.query_time, esu.mlp, found=found)

    when[0, 1] = when[1, 0] = when[2, 2] = NOW_MS
    assert run().isfinite().all()
    when[2, 3] = NOW_MS
    refused(
        run,
        f"esu_attention: z_time must be seconds, from -10^11 to 10^11, got {NOW_MS} at position 13; ",
    )
    when[2, 3] = 0
    esu.query_time = esu.query_time.long()
    esu.query_time[1] = NOW_MS
    refused(run, "esu_attention: query_time must be seconds, from -10^11 to 10^11, got")


def test_elementwise() -> None:
    times = torch.full((700, 3), 1_737_000_123)
    for views in ((times, times[:1]), (times.T, times.T[:, :1]), (times[::2, ::2], times[0, 0])):
        lc.circular_delta(*views)
    for name, at in (("a", 0), ("b", 1)):
        for late in (times.clone(), times.T.clone().T, times[:1].clone().expand(700, 3)):
            late[-1, 1] = NOW_MS
            pair = [times, times]
            pair[at] = late
            refused(
                lambda pair=pair: lc.circular_delta(*pair),
                f"circular_delta: {name} must be seconds",
            )
    refused(
        lambda: lc.clock_time(torch.tensor([0, NOW_MS])), "clock_time: timestamps must be seconds"
    )
    lc.clock_time(torch.tensor([LIMIT, -LIMIT]))
    lc.clock_time(torch.zeros(0, dtype=torch.int64))


def test_the_module_names_the_times_that_its_user_gave() -> None:
    lic = lc.LongTermInterestClock(4, 3, k=2)
    when = torch.randint(0, 10**9, (2, 5))
    now = torch.full((2,), 10**9)
    candidate, history = torch.randn(2, 3), lc.History.dense(torch.randn(2, 5, 4), when)
    found = torch.tensor([[4, -1], [0, 2]])
    for search in ({}, {"found": found}):
        with pytest.raises(
            ValueError, match=r"^LongTermInterestClock: history.time must be seconds"
        ):
            lic(candidate, history._replace(time=when * 1000 + 10**12), now, **search)
        with pytest.raises(ValueError, match=r"^LongTermInterestClock: query_time must be seconds"):
            lic(candidate, history, now * 1000, **search)


def test_a_clock_with_an_offset_of_a_kind_of_its_own() -> None:
    class Labelled(torch.Tensor):
        """A tensor that says where it came from."""

    offset = torch.zeros(2, dtype=torch.int64).as_subclass(Labelled)
    assert lc.clock_time(torch.tensor([5, 86_405]), offset).tolist() == [5, 5]
    refused(lambda: lc.clock_time(torch.tensor([5, NOW_MS]), offset), "clock_time: timestamps must be seconds")  # fmt: skip
