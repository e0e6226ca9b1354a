# SPDX-License-Identifier: Apache-2.0
"""The report on the CUDA kernels: its parsers, its arithmetic, its gates, its page. No nvcc here."""

from __future__ import annotations

import copy
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bench.cuda_report import __main__ as making  # noqa: E402
from bench.cuda_report import cubins, digests, entries, gates, page, roofline, sass  # noqa: E402
from bench.cuda_report.entries import Gate  # noqa: E402
from bench.cuda_report.occupancy import occupancy  # noqa: E402

PTXAS = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z1aIfE' for 'sm_90'
ptxas info    : Function properties for _Z1aIfE
    16 bytes stack frame, 12 bytes spill stores, 20 bytes spill loads
ptxas info    : Used 63 registers, used 1 barriers, 16 bytes cumulative stack size, 1552 bytes smem
ptxas info    : Compiling entry function '_Z1bIfE' for 'sm_90'
ptxas info    : Function properties for _Z1bIfE
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 28 registers, used 0 barriers
"""

# A loop over tiles. In it: a loop over a row, unrolled twice, with its remainder; a branch around code
# for masks; the way of warps that are not converged; a loop of 4 units a turn.
SASS = """\
	//## File "/a/kernels/op/op.cu", line 10
        /*0000*/                   S2R R0, SR_TID.X ;
.L_x_0:
	//## File "/a/kernels/op/../common/rows.cuh", line 3 inlined at "/a/kernels/op/op.cu", line 12
	//## File "/a/kernels/op/op.cu", line 12
        /*0010*/                   LDG.E.128.CONSTANT R4, desc[UR4][R2.64] ;
        /*0020*/                   LDG.E.128.CONSTANT R8, desc[UR4][R2.64+0x40] ;
        /*0030*/                   FFMA R1, R4, R8, R1 ;
        /*0040*/               @P0 BRA `(.L_x_0) ;
        /*0050*/               @P1 BRA `(.L_x_2) ;
.L_x_1:
        /*0060*/                   LDG.E.128.CONSTANT R4, desc[UR4][R2.64] ;
        /*0070*/               @P0 BRA `(.L_x_1) ;
.L_x_2:
	//## File "/a/kernels/op/op.cu", line 14
        /*0080*/               @P2 BRA `(.L_x_3) ;
	//## File "/a/kernels/op/op.cu", line 15
        /*0090*/                   LDG.E.U8 R9, desc[UR4][R6.64] ;
        /*00a0*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
.L_x_3:
	//## File "/a/kernels/op/op.cu", line 16
        /*00b0*/                   LDS.128 R12, [R10] ;
        /*00c0*/                   FMNMX R1, R1, RZ, !PT ;
        /*00d0*/                   FMNMX R1, R1, RZ, !PT ;
        /*00e0*/                   FMNMX R1, R1, RZ, !PT ;
        /*00f0*/                   FMNMX R1, R1, RZ, !PT ;
        /*0100*/              @!P3 BRA `(.L_x_3) ;
	//## File "/a/kernels/op/op.cu", line 17
        /*0110*/                   BRA.DIV UR6, `(.L_x_5) ;
.L_x_4:
        /*0120*/              @!P4 BRA `(.L_x_0) ;
        /*0130*/                   EXIT ;
.L_x_5:
        /*0140*/                   WARPSYNC.COLLECTIVE R29, `(.L_x_6) ;
.L_x_6:
        /*0150*/                   BRA `(.L_x_4) ;
.L_x_7:
        /*0160*/                   BRA `(.L_x_7);
"""
OUTER = SASS.replace("`(.L_x_0) ;\n        /*0130*/", "`(.L_x_8) ;\n        /*0130*/").replace(
    ".L_x_0:\n", ".L_x_8:\n        /*0008*/                   IADD3 R3, R3, 0x20, RZ ;\n.L_x_0:\n"
)
WORK = sass.Work(32, {r"LDG\.E\.128": 5, "FMNMX": 8})


def test_ptxas_output():
    found = cubins.parse_ptxas(PTXAS)
    assert found["_Z1aIfE"] == cubins.Resources(63, 16, 12, 20, 1552)
    assert found["_Z1bIfE"] == cubins.Resources(registers=28)


@pytest.mark.parametrize(
    ("demangled", "short"),
    [
        (
            "void longclock::(anonymous namespace)::f_kernel<longclock::Float16, true>(float const*)",
            "f_kernel<Float16, true>",
        ),
        (
            "void longclock::_GLOBAL__N__cb5_18_op_cu_36a::f_kernel<(int)4>(long, int)",
            "f_kernel<4>",
        ),
        ("longclock::(anonymous namespace)::reduce_kernel(double const*, long)", "reduce_kernel"),
    ],
)
def test_short_names(demangled, short):
    assert cubins.short_name(demangled) == short


def test_loops_are_found_and_nested():
    blocks = sass.parse(OUTER)
    loops = sass.loops_of(blocks)
    heads = [blocks[loop.head].ops[0].address for loop in loops]
    assert heads[0] == 0x8
    assert sorted(heads[1:]) == [0x10, 0x60, 0xB0]  # not what no way leads to
    assert {blocks[inner.head].ops[0].address for inner in loops[0].inner} == {0x10, 0x60, 0xB0}
    assert all(op.name != "WARPSYNC.COLLECTIVE" for i in loops[0].blocks for op in blocks[i].ops)


def test_a_turn_is_weighed_by_its_work():
    loop = sass.hot_loop(OUTER, WORK)
    assert loop is not None
    assert loop.trips == [2, 1, 2]  # 5 loads: twice 2, and 1; 8 units: twice 4
    assert loop.classes["LDG.128"] == 5
    assert loop.classes["LDS"] == 2
    assert loop.classes["BAR"] == loop.classes["LDG"] == 1
    assert loop.instructions == 1 + 2 * 4 + 1 + 1 * 2 + 1 + 2 + 2 * 6 + 1 + 1
    assert loop.per_unit == loop.instructions / 32
    assert loop.lines["op/op.cu:16"] == 12
    assert sum(loop.lines.values()) == loop.instructions


def test_code_that_did_not_run_is_left_out():
    at = [("op/op.cu:12",), ("common/rows.cuh:3", "op/op.cu:12")]
    ran = {*at, *((f"op/op.cu:{line}",) for line in (10, 14, 16, 17))}
    loop = sass.hot_loop(OUTER, WORK, ran)
    assert loop is not None
    assert "BAR" not in loop.classes
    assert "LDG" not in loop.classes


def test_another_amount_of_work_is_not_found():
    assert sass.hot_loop(OUTER, sass.Work(32, {r"LDG\.E\.128": 5, "FMNMX": 6})) is None
    assert sass.hot_loop(OUTER, sass.Work(32, {"HMMA": 4})) is None


@pytest.mark.parametrize(
    ("arguments", "blocks", "limit"),
    [  # of the toolkit's cudaOccMaxActiveBlocksPerMultiprocessor
        ((80, 256, 64, 49152), 3, "shared memory"),
        ((90, 256, 80, 40000), 3, "registers"),
        ((75, 256, 64, 0), 4, "registers"),
        ((86, 128, 32, 1024), 12, "registers"),
        ((89, 32, 16, 0), 24, "blocks"),
        ((120, 1024, 32, 0), 1, "warps"),
    ],
)
def test_occupancy(arguments, blocks, limit):
    found = occupancy(*arguments)
    assert found.blocks == blocks
    if limit != "registers" or blocks != 12:
        assert found.limit == limit


def test_roofline():
    gpu = roofline.Gpu(
        "toy", 90, gb_per_s=1000, multiprocessors=10, tflops=2.56, lanes=128, tensor_tflops=4.096
    )
    assert gpu.ghz == pytest.approx(1.0)
    assert roofline.time_us(gpu, 1e9, 1e6) == (pytest.approx(1000), "memory")
    assert roofline.time_us(gpu, 1e6, 4e9) == (pytest.approx(1e5), "issue")
    assert roofline.time_us(gpu, 1e6, 1e6, 1e6) == (pytest.approx(1000), "tensor cores")
    for gpu in roofline.GPUS:
        assert 1.3 < gpu.ghz < 2.2, gpu.name


REPORT = {
    "nvcc": "13.0",
    "kernels": {"a_kernel<float>": {"80": {"registers": 64, "spills": 0}}},
    "workloads": {"a fp32": {"figures": {"launches": 1, "bytes_over_minimum": 1.004}}},
    "hot_loops_not_found": [],
    "gates": [],
}


def checked(*asked: Gate) -> list[str]:
    return gates.failures(REPORT | {"gates": gates.check(REPORT, asked)})


def test_gates():
    assert checked(Gate(r"a_.*", "registers", 64, (80,)), Gate("a .*", "launches", 1)) == []
    (failed,) = checked(Gate(r"a_kernel<.*>", "registers", 60, (75, 80)))
    assert "registers is 64, at most 60 (a_kernel<float>, sm_80)" in failed
    assert checked(Gate("a .*", "launches", 0, reason="two are needed")) == []
    (stale,) = checked(Gate("a .*", "launches", 1, reason="two are needed"))
    assert "out of date" in stale
    (nothing,) = checked(Gate("b .*", "launches", 1))
    assert "nothing has this figure" in nothing


def test_every_op_with_kernels_has_calls_that_are_counted():
    """In its own file, each under the op's name; and they are those of the committed report."""
    calls = [call.name for call in entries.of_ops("CUDA_CALLS")]
    assert len(set(calls)) == len(calls)
    rooms = {path.parent.name for path in (ROOT / "kernels").glob("*/*.cu")}
    ops = {name for name in rooms if (ROOT / "csrc" / f"{name}_cuda.cpp").exists()}
    assert {name.split()[0] for name in calls} == ops
    report = page.read()
    assert report is not None
    assert list(report["workloads"]) == calls


def test_every_hot_loop_is_of_a_call_that_is_counted():
    calls = {call.name for call in entries.of_ops("CUDA_CALLS")}
    assert {loop.workload for loop in gates.HOT_LOOPS} <= calls


def test_missing_ops_fail():
    report = REPORT | {"workloads": {"b fp32": {"missing": "no kernel"}}}
    assert gates.failures(report) == ["b fp32: no kernel"]


def test_a_planted_regression_fails():
    assert gates.regressions(REPORT, REPORT) == []
    report = copy.deepcopy(REPORT)
    report["kernels"]["a_kernel<float>"]["80"] = {"registers": 65, "spills": 4}
    report["workloads"]["a fp32"]["figures"] = {"launches": 2, "bytes_over_minimum": 1.05}
    found = gates.regressions(report, REPORT)
    assert [text.partition(": ")[2].split()[0] for text in found] == [
        "spills", "launches", "bytes_over_minimum",
    ]  # fmt: skip
    assert len(gates.regressions(report | {"nvcc": "13.1"}, REPORT)) == 2  # counts of PTX alone


def test_the_page_shows_the_committed_report():
    report = page.read()
    assert report is not None
    text = page.PAGE.read_text(encoding="utf-8")
    for name in page.TABLES:
        assert f"<!-- begin: cuda.json {name} -->" in text
    assert page.updated(text, report) == text
    assert page.RESULTS.read_text(encoding="utf-8") == page.dumps(report) + "\n"


def test_the_committed_report_has_todays_gates():
    report = page.read()
    assert report is not None
    assert report["gates"] == gates.check(report)
    assert {each["note"] for each in report["predictions"]} <= {roofline.NOTE}
    assert all(
        {int(sm) for sm in each} == set(cubins.ARCHITECTURES) for each in report["kernels"].values()
    )


def test_what_a_sort_waits_for_is_not_compared():
    committed = page.read()
    assert committed is not None
    now = copy.deepcopy(committed)
    figures = now["workloads"]["esu_attention backward to a popular row"]["figures"]
    figures["bytes_over_minimum"] *= 2
    assert gates.regressions(now, committed) == []
    figures["instructions_of_busiest_warps"] *= 2
    assert len(gates.regressions(now, committed)) == 1


def test_only_what_changed_is_compiled(monkeypatch):
    """Figures of machine code of a source with the digest of the report before are those of that report."""
    committed = page.read()
    assert committed is not None
    known = copy.deepcopy(committed)
    monkeypatch.setattr(cubins, "release", lambda: committed["nvcc"])
    for source in cubins.sources():
        known["sources"][source.stem]["digest"] = cubins.digest(source)
    compiled = []
    monkeypatch.setattr(cubins, "build_all", lambda of: compiled.extend(x.stem for x in of) or [])
    profiles = {str(profile) for profile in cubins.PROFILES.values()}
    monkeypatch.setattr(making, "counts", lambda library: {
        profile: copy.deepcopy(committed["workloads"]) for profile in profiles
    })  # fmt: skip
    found = making.measure(making.EMULATED, known=known)
    assert compiled == []
    assert found["kernels"].keys() == committed["kernels"].keys()
    for kernel, of_kernel in found["kernels"].items():
        for sm, figures in of_kernel.items():
            before = committed["kernels"][kernel][sm]
            assert (
                {**before, **figures} == before
                if sm == "80"
                else figures["registers"] == before["registers"]
            )
    known["sources"]["block_topk"]["digest"] = "another"
    making.measure(making.EMULATED, known=known)
    assert compiled == ["block_topk"]


def test_a_report_of_the_files_as_they_are_is_not_measured_again(monkeypatch, capsys):
    committed = page.read()
    assert committed is not None
    monkeypatch.setattr(cubins, "release", lambda: committed["nvcc"])
    known = copy.deepcopy(committed) | {"counted": digests.of_counts()}
    for source in cubins.sources():
        known["sources"][source.stem]["digest"] = cubins.digest(source)
    assert digests.current(known)
    measured = []
    monkeypatch.setattr(page, "read", lambda: known)
    monkeypatch.setattr(making, "measure", lambda *arguments: measured.append(1) or known)
    making.main([])
    assert not measured
    assert "nothing is measured again" in capsys.readouterr().out
    for changed in ({"counted": "another"}, {"nvcc": "another"}, {"sources": known["sources"] | {"new": {"digest": ""}}}):  # fmt: skip
        assert not digests.current(known | changed)
        monkeypatch.setattr(page, "read", lambda changed=changed: known | changed)
        making.main([])
        assert measured.pop()


def test_what_counts_come_from(monkeypatch, tmp_path):
    """Kernels, launches, the emulator, calls; not tests, bodies of CPU kernels, and benches without a workload."""
    for name in ("kernels/op/op.cuh", "csrc/op.cpp", "tests/cuda_emulator/machine/m.cpp", "bench/op.py", "bench/other.py",
                 "kernels/op/op_simd-inl.h", "kernels/op/op_test.cpp", "tests/cuda_emulator/tests/t.cpp"):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("CUDA_CALLS = ()" if name == "bench/op.py" else "text")
    monkeypatch.setattr(digests, "ROOT", tmp_path)
    before = digests.of_counts()
    found = set()
    for path in tmp_path.rglob("*.*"):
        text = path.read_text()
        path.write_text(f"{text}#")
        if digests.of_counts() != before:
            found.add(path.relative_to(tmp_path).as_posix())
        path.write_text(text)
    assert found == {"kernels/op/op.cuh", "csrc/op.cpp", "tests/cuda_emulator/machine/m.cpp", "bench/op.py"}  # fmt: skip


def test_the_emulator_has_every_code_that_kernels_have():
    """By __CUDA_ARCH__ they tell the oldest from those with another PTX in the emulated library."""
    cmake = (ROOT / "cmake" / "LongclockCuda.cmake").read_text(encoding="utf-8")
    (archs,) = re.findall(r"^set\(LONGCLOCK_EMULATED_CUDA_ARCHS (.*)\)$", cmake, re.MULTILINE)
    built = {10 * int(arch) for arch in re.findall(r"\d+", archs)}
    sources = [*(ROOT / "kernels").rglob("*.cu"), *(ROOT / "kernels").rglob("*.cuh"), *(ROOT / "kernels").rglob("*.h")]  # fmt: skip
    texts = (source.read_text(encoding="utf-8") for source in sources)
    asked = {int(x) for text in texts for x in re.findall(r"__CUDA_ARCH__ *[<>=]+ *(\d+)", text)}
    assert asked
    assert asked <= built
