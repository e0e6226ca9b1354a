# SPDX-License-Identifier: Apache-2.0
"""What `make gpu-check` does with a GPU's answers, without one."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bench import gpu_check, harness  # noqa: E402
from bench.cuda_report.roofline import GPUS, PREDICTIONS  # noqa: E402

JUNIT = """<?xml version="1.0"?><testsuites><testsuite name="pytest" time="12.34">
<testcase classname="tests.test_a" name="test_fine"/>
<testcase classname="tests.test_a" name="test_odd"><failure message="1 != 2"/></testcase>
<testcase classname="tests.test_a" name="test_broken"><error message="fixture"/></testcase>
<testcase classname="tests.test_a" name="test_later"><skipped message="no"/></testcase>
</testsuite></testsuites>"""

MEMCHECK = """========= COMPUTE-SANITIZER
=========
========= Invalid __global__ read of size 4 bytes
=========     at longclock::a_kernel+0x70
=========     by thread (0,0,0) in block (0,0,0)
=========
========= ERROR SUMMARY: 1 error
"""
RACECHECK = """========= COMPUTE-SANITIZER
=========
========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)
"""


def test_junit_counts():
    found = gpu_check.parse_junit(JUNIT)
    assert (found["passed"], found["failed"], found["skipped"], found["seconds"]) == (1, 2, 1, 12.3)
    assert found["failures"] == ["tests.test_a::test_odd", "tests.test_a::test_broken"]


def test_sanitizer_output():
    found = gpu_check.parse_sanitizer(MEMCHECK)
    assert found == {"errors": 1, "findings": ["Invalid __global__ read of size 4 bytes"]}
    assert gpu_check.parse_sanitizer(RACECHECK) == {"errors": 0, "findings": []}
    assert gpu_check.parse_sanitizer("killed")["errors"] is None


class Clock:
    """Events on a clock that calls move."""

    def __init__(self) -> None:
        self.now, self.log = 0.0, []

    def event(self):
        clock = self

        class Event:
            def record(self):
                self.at = clock.now

            def synchronize(self):
                clock.log.append("wait")

            def elapsed_time(self, end):
                return end.at - self.at

        return Event()

    def work(self, name: str, milliseconds: float):
        def call():
            self.log.append(name)
            self.now += milliseconds

        return call


def test_events_time_the_call_and_not_the_flush():
    clock = Clock()
    timer = harness.EventTimer(clock.event, clock.work("flush", 100.0))
    assert timer(clock.work("call", 3.0), 2) == pytest.approx(3e-3)
    assert clock.log == ["flush", "call", "wait"] * 2


def test_a_case_is_compared_with_the_bandwidth_of_the_gpu():
    clock = Clock()
    case = harness.Case(
        "toy",
        {},
        {"longclock": clock.work("ours", 1.0), "torch": clock.work("torch", 4.0)},
        lambda: harness.Check("", 0.0, 0.0),
        read=torch.zeros(250_000),
    )
    timer = harness.EventTimer(clock.event, clock.work("flush", 100.0))
    found = harness.measure(case, harness.GPU, timer=timer, read_gb_per_s=2.0)
    assert "read" not in found["timings"]
    assert found["ratio"]["torch"]["median"] == pytest.approx(4.0)
    assert found["gb_per_s"] == pytest.approx(1.0)
    assert found["of_read_bandwidth"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("driver", "name"),
    [
        ("Tesla T4", "T4"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB SXM"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", None),
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA H200", "H200 SXM"),
    ],
)
def test_predictions_are_those_of_the_gpu(driver, name):
    assert set(gpu_check.GPUS) == {gpu.name for gpu in GPUS}
    predictions = [
        {"gpu": gpu.name, "workload": workload, "us": number + 0.5}
        for number, gpu in enumerate(GPUS)
        for workload in ("forward", "backward")
    ]
    found = gpu_check.predicted_us(predictions, driver, ("forward", "backward"))
    expected = next((2 * p["us"] for p in predictions if p["gpu"] == name), None)
    assert found == expected
    assert gpu_check.predicted_us(predictions, driver, ("other",)) is None


def test_the_file_says_what_is_wrong():
    tests = gpu_check.parse_junit(JUNIT)
    sanitizers = {
        "memcheck": gpu_check.parse_sanitizer(MEMCHECK),
        "racecheck": gpu_check.parse_sanitizer(RACECHECK),
        "synccheck": gpu_check.parse_sanitizer(""),
    }
    found = gpu_check.assemble({"machine": {"gpu": {"name": "toy"}}}, tests, sanitizers)
    assert found["machine"]["gpu"]["name"] == "toy"
    assert found["wrong"] == [
        "test failed: tests.test_a::test_odd",
        "test failed: tests.test_a::test_broken",
        "memcheck: 1 errors",
        "synccheck: no summary, see build/gpu_check/synccheck.log",
    ]
    fine = gpu_check.assemble({}, tests | {"failures": []}, {"racecheck": sanitizers["racecheck"]})
    assert fine["wrong"] == []
    nothing = gpu_check.assemble({}, {"passed": 0, "failures": []}, {})
    assert nothing["wrong"] == ["no test passed"]


def test_files_are_named_after_the_gpu():
    assert gpu_check.file_name("NVIDIA H100 80GB HBM3") == "gpu_h100_80gb_hbm3.json"
    assert gpu_check.file_name("Tesla T4") == "gpu_tesla_t4.json"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("arguments", [[], ["--look"], ["--architecture"]])
def test_without_a_gpu_it_says_so(arguments, capsys):
    assert gpu_check.main(arguments) == 1
    assert capsys.readouterr().err == f"{gpu_check.NO_GPU}\n"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_benches_on_cuda_need_a_gpu(capsys):
    from bench.__main__ import main

    with pytest.raises(SystemExit):
        main(["--device", "cuda", "--quick"])
    assert "--device cuda: PyTorch finds no GPU" in capsys.readouterr().err


def test_calls_are_called_what_was_measured():
    """The names in the committed files: of the pass that was timed, and of the rows that there were."""
    predicted = {each.name or each.workload for each in PREDICTIONS}
    assert {part for parts in gpu_check.HEADLINES.values() for part in parts} == predicted
    files = sorted((ROOT / "bench" / "results").glob("gpu_*.json"))
    assert files
    for file in files:
        results = json.loads(file.read_text(encoding="utf-8"))["predicted"]
        assert [result["op"] for result in results] == list(gpu_check.HEADLINES)
        for result in results:
            name, sizes = result["op"], result["sizes"]
            assert ("forward and backward" in name) == ("forward and backward" in result["case"])
            assert ("backward" in name) == (len(gpu_check.HEADLINES[name]) == 2)
            for unit, size in (("rows", "rows"), ("candidates", "C")):
                said = re.search(rf"(\d+) {unit}", name)
                assert said is None or int(said.group(1)) == sizes[size]
    report = json.loads((ROOT / "bench" / "results" / "cuda.json").read_text(encoding="utf-8"))
    for each in report["predictions"]:
        said = re.search(r"(\d+) rows", each["workload"])
        assert said is None or f"{int(said.group(1)):,} rows" in each["sizes"]
