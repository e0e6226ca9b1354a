# SPDX-License-Identifier: Apache-2.0
"""The benchmarks run, verify what they time, and the pages show the committed figures. No timings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from importlib import metadata
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bench import harness, memory, peers, report, scaling  # noqa: E402
from bench.__main__ import OPS, main  # noqa: E402

COMMITTED = sorted((ROOT / "bench" / "results").glob("cpu*.json"))
KERNELS = {path.stem for path in (ROOT / "csrc").glob("*.cpp")} & {
    path.name for path in (ROOT / "kernels").iterdir()
}
WHOLE = {"long_term_interest_clock", "fuxictr_twin"}  # benches of the module


@pytest.fixture(autouse=True)
def same_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def assert_complete(results: dict, ops: set[str]) -> None:
    assert results["machine"].keys() == {"cpu", "cores", "simd_level", "threads"}
    assert results["versions"]["torch"]
    assert {result["op"] for result in results["results"]} >= ops
    for result in results["results"]:
        assert result["check"]["error"] <= result["check"]["allowed"]
        assert "reference" in result["ratio"]
        for timing in result["timings"].values():
            assert 0 < timing["min_ms"] <= timing["median_ms"]
            assert timing["repetitions"] >= 2
        if "read" in result["timings"]:
            assert result["of_read_bandwidth"] > 0
    cases = [(result["op"], result["case"]) for result in results["results"]]
    assert len(set(cases)) == len(cases)


def test_every_op_has_a_bench():
    assert set(OPS) == KERNELS | WHOLE


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "quick.json"
    assert main(["--quick", "--threads", "1", "--json", str(path)]) == 0
    return json.loads(path.read_text())


def test_quick_run_writes_complete_json(quick):
    assert_complete(quick, KERNELS)
    assert {result["op"] for result in quick["results"]} == set(OPS)
    assert quick["machine"]["threads"] == 1
    assert quick["quick"] is True


def test_quick_run_has_the_peers_and_figures_of_each_op(quick):
    cases = {(result["op"], result["case"]): result for result in quick["results"]}
    for (op, name), result in cases.items():
        assert ("ns_per_behaviour" in result) == (op in ("clock_gsu", "hamming_gsu"))
        assert ("sdpa" in result["ratio"]) == (op == "esu_attention" and "tables" not in name)
        peer = op == "fuxictr_twin" and "fuxictr" in quick["versions"]
        assert ("FuxiCTR TWIN" in result["ratio"]) == peer
    measured = {name for name, result in cases.items() if "memory_mb" in result}
    assert measured == {
        ("clock_gsu", "table, fp32"),
        ("clock_gsu", "7 candidates, fp32"),
        ("esu_attention", "K = 20, forward and backward"),
        ("esu_attention", "K = 300, forward and backward"),
        ("long_term_interest_clock", "training step"),
        ("long_term_interest_clock", "one request, 7 candidates"),
    }
    for name in measured:
        assert cases[name]["memory_mb"].keys() >= {"longclock", "reference"}


def test_new_figures_are_shown(quick):
    text = report.section(quick)
    assert "| `clock_gsu` | ragged, fp32 |" in text
    assert "ns per behaviour" in text
    assert "SDPA, without time" in text
    assert "MB, reference" in text
    shown = report.highlights(quick)
    assert "| a training step | `long_term_interest_clock` |" in shown
    table_case = next(r for r in quick["results"] if r["case"] == "table, fp32")
    assert "MB: longclock" in report.line("clock_gsu", table_case)


def test_ragged_lengths_fill_their_range():
    from bench.inputs import make_ragged

    torch.manual_seed(0)
    lengths = make_ragged(1000, 10, 20_000, 1).layout["offsets"].diff()
    assert lengths.min() == 10
    assert lengths.max() == 20_000
    assert 350 < lengths.median() < 550  # the geometric mean of the limits is 447


def test_compile_is_a_rival_of_forward_and_of_training(monkeypatch):
    given = []
    monkeypatch.setattr(torch, "compile", lambda call: given.append(call) or call)
    leaf = torch.ones(3, requires_grad=True)
    step = harness.Step(lambda x: x * x, (leaf,), torch.ones(3))
    case = harness.Case(
        "toy", {}, {"longclock": step, "reference": step}, lambda: harness.Check("", 0.0, 0.0),
        compiled="reference",
    )  # fmt: skip
    assert "torch.compile" not in harness.measure(case, harness.QUICK)["ratio"]
    assert "torch.compile" in harness.measure(case, harness.QUICK, compile_too=True)["ratio"]
    assert given == [step.forward]  # the forward alone: autograd compiles its backward
    result, gradient = harness.compiled(step)()
    assert torch.equal(result, leaf)
    assert torch.equal(gradient, 2 * leaf)
    call = lambda: None  # noqa: E731
    assert harness.compiled(call) is call


def test_every_training_case_can_be_compiled():
    from bench.__main__ import cases_of

    for op in OPS:
        for case in cases_of(op)(True):
            if any(isinstance(call, harness.Step) for call in case.rivals.values()):
                assert isinstance(case.rivals[case.compiled], harness.Step), (op, case.name)


def test_missing_peers_are_told_once(monkeypatch, capsys):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    peers.without.cache_clear()
    monkeypatch.setattr(metadata, "distribution", missing)
    monkeypatch.setattr(metadata, "version", missing)
    monkeypatch.setitem(sys.modules, "faiss", None)
    for _ in range(2):
        assert peers.fuxictr("TWIN", "MultiHeadTopKAttention") is None
        assert peers.faiss() is None
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("without the rival FuxiCTR TWIN: ")
    assert first.endswith("; `pip install --no-deps fuxictr`, or make bench")
    assert second.startswith("without the rival faiss.knn: ")
    assert second.endswith("; `pip install faiss-cpu`, or make bench")
    assert peers.versions() == {}
    peers.without.cache_clear()


def test_faiss_is_no_rival_on_a_gpu(capsys):
    from bench.search_cases import nearest_by_faiss

    class Query:
        dtype, is_cuda = torch.float32, True

        def __len__(self):
            return 1

    class Search:
        query = Query()

    peers.without.cache_clear()
    assert nearest_by_faiss(Search(), 3) == {}
    assert "without the rival faiss.knn: faiss-cpu has no code for a GPU" in capsys.readouterr().out


def test_the_layer_of_fuxictr_needs_nothing_of_its_module(monkeypatch, tmp_path):
    path = tmp_path / "model_zoo" / "LongCTR" / "TWIN" / "TWIN.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "import no_such_module\n\n\n"
        "class Model(no_such_module.Base):\n    pass\n\n\n"
        "class MultiHeadTopKAttention(nn.Module):\n"
        "    def forward(self, x):\n        return torch.relu(x)\n"
    )

    class Distribution:
        def locate_file(self, name):
            return tmp_path / name

    monkeypatch.setattr(metadata, "distribution", lambda name: Distribution())
    layer = peers.fuxictr("TWIN", "MultiHeadTopKAttention")
    assert layer is not None
    assert torch.equal(layer()(torch.tensor([-1.0, 2.0])), torch.tensor([0.0, 2.0]))


def test_memory_sees_what_a_call_needs_beside_its_result():
    code = (
        "import torch\n"
        "from bench import memory\n"
        "def call():\n"
        "    result = torch.ones(1 << 21)\n"
        "    return (torch.ones(1 << 22).square_().sum(), (result,))\n"
        "call()\n"
        "print(memory.held(call()), memory.rise(call))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | memory.MALLOC,
        check=True,
        capture_output=True,
        text=True,
    )
    result, rise = done.stdout.split()
    assert int(result) == 4 + (4 << 21)
    assert 15 < float(rise) < 20  # the 16.8 MB that were summed, less what was there before


def test_a_wrong_gradient_of_the_module_is_seen():
    from bench import long_term_interest_clock

    torch.manual_seed(0)
    case = long_term_interest_clock.training_case(3, 300, 500, 16, 10)
    fine = case.check()
    assert fine.error <= fine.allowed
    module = case.rivals["longclock"].forward.__closure__
    for cell in module:
        if isinstance(cell.cell_contents, torch.nn.Module):
            with torch.no_grad():
                cell.cell_contents.w_v[0, 0, 0] += 0.01
    wrong = case.check()
    assert wrong.error > wrong.allowed


def test_scaling_writes_curves_table_and_figure(tmp_path, capsys):
    path = tmp_path / "scaling.json"
    assert main(["--scaling", "--quick", "--threads", "2", "--json", str(path)]) == 0
    assert "threads = 2" in capsys.readouterr().out
    assert torch.get_num_threads() == 2
    results = json.loads(path.read_text())
    assert [curve["axis"] for curve in results["curves"]] == ["M", "S", "C", "D", "K", "threads"]
    for curve in results["curves"]:
        assert curve["axis"] not in curve["sizes"]
        assert len(curve["points"]) == 2
        for point in curve["points"]:
            assert point["check"]["error"] <= point["check"]["allowed"]
            assert point["ratio"].keys() == {"torch", "reference"}
            assert point["ns_per_behaviour"] > 0
    text = report.section(results)
    assert text.count("\n| ") == 2 + 12  # the head is 2
    assert "(scaling.svg)" in text
    figure = ElementTree.fromstring(report.figure(results))
    lines = figure.findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 6 * 3
    assert all(len(line.get("points").split()) == 2 for line in lines)


def test_scaling_goes_to_all_threads():
    axis = {threads: scaling.curves(False, threads)[-1].values for threads in (1, 2, 6, 8)}
    assert axis == {1: (1,), 2: (1, 2), 6: (1, 2, 4, 6), 8: (1, 2, 4, 8)}
    for curve in scaling.curves(False, 2):
        assert list(curve.values) == sorted(curve.values)


def test_all_cores_by_default(tmp_path):
    path = tmp_path / "some.json"
    torch.set_num_threads(1)
    arguments = ["circular_delta", "--quick", "--cases", "int32", "--json", str(path)]
    assert main(arguments) == 0
    assert json.loads(path.read_text())["machine"]["threads"] == harness.cores() >= 1


def test_ops_can_be_chosen(tmp_path, capsys):
    path = tmp_path / "some.json"
    assert main(["circular_delta", "--quick", "--threads", "1", "--json", str(path)]) == 0
    assert {result["op"] for result in json.loads(path.read_text())["results"]} == {
        "circular_delta"
    }
    assert "clock_gsu" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clock"], "unknown op 'clock'; choose from block_topk, circular_delta"),
        (["--threads", "0"], "--threads must be at least 1, got 0"),
        (["--scaling", "clock_gsu"], "--scaling has cases of its own"),
        (["--scaling", "--device", "cuda"], "--scaling measures the CPU"),
    ],
)
def test_mistakes_are_named(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err


def test_a_wrong_result_is_not_measured():
    def never():
        raise AssertionError("timed")

    for error in (1.0, float("inf"), float("nan")):
        wrong = harness.Check("the fp64 reference", error, 0.5)
        case = harness.Case("wrong", {}, {"longclock": never}, lambda wrong=wrong: wrong)
        with pytest.raises(harness.WrongResult, match="against the fp64 reference, allowed"):
            harness.measure(case, harness.QUICK)


def test_a_rival_with_another_result_is_not_measured():
    right = torch.tensor([1.0, -torch.inf, 2.0])
    for wrong in (right * 1.02, right.nan_to_num(0.0, 0.0, 0.0), right[:2]):
        rivals = {"longclock": lambda: (right, None), "torch": lambda wrong=wrong: (wrong, None)}
        case = harness.Case("toy", {}, rivals, lambda: harness.Check("", 0.0, 0.0))
        with pytest.raises(harness.WrongResult, match=r"toy: torch is .* away from our result"):
            harness.measure(case, harness.QUICK)
    assert harness.disagreement((right, 1), (right * 1.004, 2)) == pytest.approx(0.004, rel=1e-3)


def test_sdpa_is_the_attention_without_its_time():
    from bench import esu_attention
    from bench.inputs import make_mlp

    import longclock as lc

    u, z = torch.randn(5, 4, 8), torch.randn(5, 20, 8)
    at_once = torch.zeros(5, 20, dtype=torch.int64), torch.zeros(5, dtype=torch.int64)
    expected = lc.esu_attention(u, z, *at_once, make_mlp())[..., :8]
    torch.testing.assert_close(esu_attention.attend_by_content(u, z), expected)
    torch.testing.assert_close(esu_attention.train_by_content(u, z), expected)


def test_checks_see_wrong_results():
    from bench.checks import close, selection

    exact = torch.randn(3, 50, dtype=torch.float64)
    right = exact.float().topk(5)
    assert selection(right, exact, exact.float()).error < 1e-6
    second_best = exact.float().topk(6)
    dropped = type(right)((second_best.values[:, 1:], second_best.indices[:, 1:]))
    found = selection(dropped, exact, exact.float())
    assert found.error > found.allowed
    found = close(exact.float() + 1e-3, exact, exact.float())
    assert found.error > found.allowed
    found = close((exact.float(), exact.float() * torch.nan), (exact, exact), (exact, exact))
    assert found.error > found.allowed


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_committed_figures_are_complete(path):
    results = json.loads(path.read_text())
    assert_complete(results, KERNELS)
    assert results["quick"] is False


@pytest.mark.parametrize("page", report.PAGES)
def test_pages_show_the_committed_figures(page):
    text = (ROOT / page).read_text()
    assert "<!-- begin: bench/results/" in text
    assert report.updated(text, highlights_only=page == report.SHORT) == text


def test_the_short_page_names_where_we_lose():
    page = (ROOT / report.SHORT).read_text()
    lost = {}
    for path in COMMITTED:
        for result in json.loads(path.read_text())["results"]:
            rivals = [found["median"] for name, found in result["ratio"].items() if name in ("torch", "torch.topk", "reference", "torch.compile")]  # fmt: skip
            if min(rivals, default=1.0) < 0.995:
                lost.setdefault((result["op"], result["case"]), []).append(min(rivals))
    assert set(lost) == {("gsu_score", "500 candidates, fp32, forward and backward")}
    (ratios,) = lost.values()
    assert f"{min(ratios):.2f} to {max(ratios):.2f} times" in page


def test_a_gpu_that_nothing_was_predicted_for():
    results = json.loads((ROOT / "bench" / "results" / "gpu_h200.json").read_text())
    for result in results["predicted"]:
        result["predicted_us"] = None
    assert all(line.endswith("|  |") for line in report.prediction_table(results)[2:])


def test_the_figure_shows_the_committed_curves():
    images = [ROOT / name for name in (report.FIGURE, report.SERVING_FIGURE)]
    assert report.drawn() == {
        str(image.relative_to(ROOT)): image.read_text() for image in images if image.exists()
    }
