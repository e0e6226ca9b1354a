# SPDX-License-Identifier: Apache-2.0
"""Everything that needs a GPU, in one JSON: all tests, the sanitizers, the benches.

``make gpu-check`` builds for the GPU of this machine, runs this and leaves
bench/results/gpu_<name>.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from bench.harness import Case

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "gpu_check"
SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
SANITIZED = ("tests/test_clock_gsu.py", "tests/test_block_topk.py", "tests/test_gsu_score.py",
             "tests/test_esu_attention.py", "tests/test_time_similarity.py",
             "tests/test_circular_delta.py", "tests/test_hamming_gsu.py", "tests/test_pack_signs.py")  # fmt: skip
# A few tests of each op: the sanitizers are 10 to 100 times slower than the kernels.
SELECTION = "widths or candidates or shapes or contiguous or lengths or heads or zeros or infinity"
NO_GPU = "gpu-check: PyTorch finds no GPU on this machine"
# Data-sheet names of the predictions, and what the driver calls these GPUs.
GPUS = {
    "T4": r"\bT4\b",
    "A100 80GB SXM": r"A100-SXM4-80GB",
    "L4": r"\bL4\b",
    "H100 SXM": r"H100 80GB HBM3",
    "H200 SXM": r"\bH200\b",
    "B200": r"\bB200\b",
}


def parse_junit(text: str) -> dict[str, Any]:
    """Counts of pytest's JUnit file, and the names of what failed."""
    suite = ElementTree.fromstring(text)
    suite = suite if suite.tag == "testsuite" else suite[0]
    failed = [
        f"{case.get('classname')}::{case.get('name')}"
        for case in suite.iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    ]
    skipped = sum(case.find("skipped") is not None for case in suite.iter("testcase"))
    count = sum(1 for _ in suite.iter("testcase"))
    return {
        "passed": count - len(failed) - skipped,
        "failed": len(failed),
        "skipped": skipped,
        "seconds": round(float(suite.get("time", 0)), 1),
        "failures": failed,
    }


def parse_sanitizer(text: str) -> dict[str, Any]:
    """Errors of compute-sanitizer and the first lines of its findings; None without a summary."""
    lines = [line[9:].strip() for line in text.splitlines() if line.startswith("=========")]
    summary = re.search(r"(?:ERROR SUMMARY: (\d+) error|RACECHECK SUMMARY: (\d+) hazard)", text)
    noise = r"COMPUTE-SANITIZER|ERROR SUMMARY|RACECHECK SUMMARY|Target application|LEAK SUMMARY|$"
    heads = [
        line
        for before, line in zip(["", *lines], lines, strict=False)
        if before == "" and not re.match(noise, line)
    ]
    errors = None if summary is None else int(summary.group(1) or summary.group(2))
    return {"errors": errors, "findings": list(dict.fromkeys(heads))[:20]}


def run_tests(python: str) -> dict[str, Any]:
    """On as many processes as there are cores, at most 16, where pytest-xdist is installed."""
    path = WORK / "tests.xml"
    path.unlink(missing_ok=True)
    command = [python, "-m", "pytest", "-q", "--device", "cuda", f"--junitxml={path}"]
    if importlib.util.find_spec("xdist"):
        command += ["-n", str(min(len(os.sched_getaffinity(0)), 16))]
    status = subprocess.run(command, cwd=ROOT).returncode
    if not path.exists():
        return {"passed": 0, "failed": 0, "skipped": 0, "failures": [f"pytest exits with {status}"]}
    return parse_junit(path.read_text(encoding="utf-8"))


def run_sanitizer(sanitizer: str, tool: str, python: str) -> dict[str, Any]:
    """Memory comes from cudaMalloc, tensor by tensor: else a tensor's neighbours hide its ends."""
    command = [sanitizer, "--tool", tool, "--kernel-name", "kns=longclock"]
    command += ["--report-api-errors", "no", "--target-processes", "all"]
    command += [python, "-m", "pytest", "-q", "-x", "--device", "cuda", "-k", SELECTION, *SANITIZED]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    (WORK / f"{tool}.log").write_text(done.stdout, encoding="utf-8")
    return parse_sanitizer(done.stdout)


def run_sanitizers(python: str) -> dict[str, Any]:
    """All side by side: they keep the CPU busier than the GPU."""
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        print("compute-sanitizer is not installed: left out")
        return {}
    with ThreadPoolExecutor(len(SANITIZERS)) as pool:
        found = pool.map(lambda tool: run_sanitizer(sanitizer, tool, python), SANITIZERS)
        return dict(zip(SANITIZERS, found, strict=True))


# The cases that docs/gpu.md predicts, with the predictions that add up to each.
HEADLINES = {
    "clock_gsu fp16": ("clock_gsu fp16",),
    "clock_gsu fp16 1000 candidates": ("clock_gsu fp16 1000 candidates",),
    "clock_gsu fp32 500 candidates": ("clock_gsu fp32 500 candidates",),
    "esu_attention fp16": ("esu_attention fp16",),
    "esu_attention fp16 forward and backward": (
        "esu_attention fp16",
        "esu_attention fp16 backward",
    ),
    "block_topk fp32 1024 rows": ("block_topk fp32 1024 rows",),
}


def headlines() -> Iterator[Case]:
    """The cases of ``HEADLINES``, in their order."""
    from bench import block_topk, esu_attention
    from bench.inputs import make_search
    from bench.search_cases import search_case

    with torch.device("cuda"):
        search = make_search(1024, 10_000, 128, torch.float16)
        few = dataclasses.replace(
            search,
            **{
                name: getattr(search, name)[:8]
                for name in ("query", "keys", "key_time", "query_time")
            },
        )
        sizes = {"S": 1024, "M": 10_000, "D": 128, "dtype": "fp16"}
        case = search_case("clock_gsu", search, 100, sizes)
        check = search_case("clock_gsu", few, 100, sizes).check
        yield dataclasses.replace(case, check=check)
        for name, dtype, candidates in (
            ("fp16", torch.float16, 1000),
            ("fp32", torch.float32, 500),
        ):
            request = make_search(1, 10_000, 128, dtype, candidates=candidates)
            sizes = {"S": 1, "C": candidates, "M": 10_000, "D": 128, "dtype": name}
            workload = f"clock_gsu {name} {candidates} candidates"
            yield search_case(workload, request, 100, sizes)
        yield from esu_attention.attention_cases(1024, 100, 128, "fp16")
        yield block_topk.topk_case("random", torch.randn(1024, 10_000), 100)


def predicted_us(
    predictions: list[dict[str, Any]], gpu: str, names: tuple[str, ...]
) -> float | None:
    """Of the GPU that the driver calls ``gpu``; None where nothing is predicted for it."""
    known = next((name for name, pattern in GPUS.items() if re.search(pattern, gpu)), None)
    found = [p["us"] for p in predictions if p["gpu"] == known and p["workload"] in names]
    return sum(found) if len(found) == len(names) else None


def run_benches(quick: bool, compile_too: bool) -> dict[str, Any]:
    from bench import harness, report
    from bench.__main__ import OPS, cases_of
    from bench.cuda_report import page

    ops = {op: cases_of(op) for op in OPS}

    def show(op: str, result: dict[str, Any]) -> None:
        print(report.line(op, result), flush=True)

    found = harness.run(ops, quick, compile_too, show, device="cuda")
    predictions = (page.read() or {}).get("predictions", [])
    timer, bandwidth = harness.EventTimer(), found["bandwidth_gb_per_s"]["read"]
    found["predicted"] = []
    cases = () if quick else zip(HEADLINES.items(), headlines(), strict=True)
    for (name, parts), case in cases:
        result = harness.measure(case, harness.GPU, compile_too, timer, bandwidth)
        gpu = found["machine"]["gpu"]["name"]
        result |= {"op": name, "predicted_us": predicted_us(predictions, gpu, parts)}
        found["predicted"].append(result)
        show(name, result)
    return found


def assemble(
    benches: dict[str, Any], tests: dict[str, Any], sanitizers: dict[str, Any]
) -> dict[str, Any]:
    """The JSON, and in ``wrong`` what makes the check fail."""
    wrong = [f"test failed: {name}" for name in tests["failures"]]
    if not tests["passed"]:
        wrong.append("no test passed")
    for tool, found in sanitizers.items():
        if found["errors"] is None:
            wrong.append(f"{tool}: no summary, see build/gpu_check/{tool}.log")
        elif found["errors"]:
            wrong.append(f"{tool}: {found['errors']} errors")
    return {"wrong": wrong, "tests": tests, "sanitizers": sanitizers, **benches}


def file_name(gpu: str) -> str:
    slug = re.sub(r"[^a-z0-9]+", "_", gpu.lower().removeprefix("nvidia")).strip("_")
    return f"gpu_{slug}.json"


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="python -m bench.gpu_check", description=__doc__)
    p.add_argument("--look", action="store_true", help="only say whether there is a GPU")
    p.add_argument("--architecture", action="store_true", help="only print the GPU's, such as 90")
    p.add_argument("--quick", action="store_true", help="tiny sizes: does it run?")
    p.add_argument("--no-compile", action="store_true", help="without torch.compile, slow to start")
    args = p.parse_args(argv)
    if not torch.cuda.is_available():
        print(NO_GPU, file=sys.stderr)
        return 1
    if args.architecture:
        print("{}{}".format(*torch.cuda.get_device_capability()))
    if args.look or args.architecture:
        return 0
    WORK.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor() as pool:
        later = pool.submit(run_sanitizers, sys.executable)
        tests = run_tests(sys.executable)
        sanitizers = later.result()
    benches = run_benches(args.quick, not (args.quick or args.no_compile))
    result = assemble(benches, tests, sanitizers)
    path = ROOT / "bench" / "results" / file_name(torch.cuda.get_device_name())
    path.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    print(f"{path.relative_to(ROOT)}: {tests['passed']} tests passed, {tests['failed']} failed")
    for each in result["wrong"]:
        print(f"gpu-check: {each}", file=sys.stderr)
    return 1 if result["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
