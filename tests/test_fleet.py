# SPDX-License-Identifier: Apache-2.0
"""What docs/scaling.md says of a service of 600 million users is what bench.fleet computes."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bench.fleet import SIZES, amount, memory, network, page, work  # noqa: E402

PAGE = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")


def test_the_page_shows_the_tables() -> None:
    (shown,) = re.findall(r"<!-- begin: bench.fleet -->\n\n(.*?)\n\n<!-- end -->", PAGE, re.DOTALL)
    assert shown.splitlines() == page()


def test_the_arithmetic() -> None:
    """Of the figures that need no measurement, by hand."""
    assert {
        name: value for name, (value, _) in SIZES.items() if name in ("users", "behaviours")
    } == {
        "users": 600_000_000,
        "behaviours": 10_000,
    }
    of_memory, of_network, of_work = dict(memory()), dict(network()), dict(work())
    assert of_memory["behaviours"] == "6e+12"
    assert of_memory["histories as an int32 id and an int32 time"].startswith("48 TB; 96 machines")
    assert of_memory["a row for every behaviour, in place of an id"] == "768 TB"
    assert of_network["ids and times of one history"] == "80 kB a request; 64 Gbit/s in all"
    served = json.loads((ROOT / "bench" / "results" / "serve.json").read_text())
    assert (served["sizes"]["candidates"], served["sizes"]["behaviours"]) == (500, 10_000)
    ms = served["results"]["one request, fp32, folded"]["ms"]["rank"]
    (cores,) = (how for what, how in of_work.items() if what.startswith("a whole request"))
    assert cores.startswith(f"{100_000 * ms / 1000 / 0.5:,.0f} cores")


def test_amounts() -> None:
    assert [amount(value) for value in (80, 80e3, 1.28e6, 48e12, 2e15, 6e18)] == [
        "80 B", "80 kB", "1.28 MB", "48 TB", "2 PB", "6e+03 PB",
    ]  # fmt: skip


def test_what_the_page_concludes() -> None:
    """The ratios that its sentences name."""
    of_memory, of_work = dict(memory()), dict(work())
    stores = int(
        re.search(r"(\d+) machines", of_memory["histories as an int32 id and an int32 time"])[1]
    )
    (whole,) = (how for what, how in of_work.items() if what.startswith("a whole request"))
    answering = int(re.search(r"(\d+) machines", whole)[1])
    assert f"fill {stores} machines" in PAGE
    assert f"({answering} of {stores} machines" in PAGE
    assert answering < stores
    size = {name: value for name, (value, _) in SIZES.items()}
    assert 2 * size["width"] / 8 == 16
    assert "Rows: 16 times the bytes of ids and times" in PAGE
    assert size["found"] * size["candidates"] / size["behaviours"] == 5
    assert "the results weigh five times what ids and times do" in PAGE
