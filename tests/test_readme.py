# SPDX-License-Identifier: Apache-2.0
"""The README and the pages do what they say: code runs, commands exist, figures are the JSON's."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from longclock.study import summary
from longclock.study.plan import read_lines

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
INSTALL = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
HOW_TO = [
    path.read_text(encoding="utf-8")
    for name in ("from-*", "int8", "own-events", "own-script", "ranks", "tutorial", "without-gpu")
    for path in sorted((ROOT / "docs").glob(f"{name}.md"))
]
PROTOCOLS = {"nyc-60-days": "daily", "music": "batches"}
PAGES = sorted(
    [*(ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING", "SECURITY")), *(ROOT / "docs").glob("*.md")]
)  # fmt: skip

BUILD_NEEDS = re.findall(
    r'"([^"]+)"',
    re.search(r"^requires = (.*)$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1],
)

EXTRAS = set(
    re.findall(
        r"^(\w+) = \[",
        (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2],
        re.MULTILINE,
    )
)


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Lines of every shell block, without comments."""
    texts = (README, INSTALL, *HOW_TO)
    found = [line for text in texts for block in blocks("sh", text) for line in commands_of(block)]
    return list(dict.fromkeys(found))


def commands_of(block: str) -> list[str]:
    lines = (line.partition("  #")[0].strip() for line in block.splitlines())
    return [line for line in lines if line]


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_code_runs_as_written(number, capsys):
    exec(compile(blocks("python")[number], f"README block {number}", "exec"), {})


def test_first_example_is_short_and_on_the_first_screen():
    assert len(README.splitlines()) < 150
    assert len(blocks("python")[0].splitlines()) <= 10
    assert README.index("```python") < 3500
    first = README[: README.index("```python")]
    assert "make demo" in first
    assert "make test" in first
    assert first.count("![") == 1


@pytest.mark.parametrize("command", commands())
def test_command_is_known(command):
    words = shlex.split(command)
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text()
        targets = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
        assert targets is not None
        assert set(words[1:]) <= set(targets.group(1).split())
    elif words[:3] == ["python", "-m", "longclock.train"]:
        from longclock.train.cli import _names, parser

        assert _names(parser().parse_args(words[3:]))
    elif words[:3] == ["python", "-m", "longclock.study"]:
        from longclock.study.cli import parser, study_of

        assert len(study_of(parser().parse_args(words[3:]))) > 0
    elif words[:3] == ["python", "-m", "longclock.info"]:
        done = subprocess.run(
            [sys.executable, *words[1:]], check=True, capture_output=True, text=True
        )
        assert "SIMD level" in done.stdout
    elif words[0] == "python" and (example := ROOT / words[1]).is_file():
        others = [path for path in (ROOT / "tests").glob("test_*.py") if path != Path(__file__)]
        assert any(example.name in path.read_text(encoding="utf-8") for path in others)
    elif words[:2] == ["pip", "install"]:
        assert (ROOT / "setup.py").exists()
        for word in words[2:]:
            word, _, extras = word.rstrip("]").partition("[")
            assert set(extras.split(",")) - {""} <= EXTRAS
            known = word in (".", "-U", "--no-build-isolation", "dist/longclock-*.whl")
            assert known or any(need.startswith(word.partition(">")[0]) for need in BUILD_NEEDS)
    else:
        pytest.fail(f"the README shows a command that no test knows: {command}")


@pytest.mark.parametrize("text", [README, INSTALL], ids=["README", "install"])
def test_the_build_without_isolation_has_all_that_it_needs(text):
    """A new environment's setuptools may be too old for pyproject.toml: the line upgrades it."""
    block = next(block for block in blocks("sh", text) if "--no-build-isolation" in block)
    first, second = commands_of(block)
    words = shlex.split(first)
    assert words[:3] == ["pip", "install", "-U"]
    needs = [need for need in BUILD_NEEDS if not need.startswith("torch")]
    assert len(needs) == len(BUILD_NEEDS) - 1
    for need in needs:  # setuptools as it is: only from there on can the file be read
        assert (need if "setuptools" in need else need.partition(">")[0]) in words
    assert second == "pip install --no-build-isolation ."


def test_setuptools_of_that_line_reads_the_metadata(tmp_path):
    """The second line as far as it goes without a compiler: pip asks setuptools for the metadata."""
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    package = tmp_path / "python" / "longclock"
    package.mkdir(parents=True)
    shutil.copy(ROOT / "python" / "longclock" / "__init__.py", package)
    program = (
        "from setuptools import build_meta; "
        "print(build_meta.prepare_metadata_for_build_wheel('build'))"
    )
    (tmp_path / "build").mkdir()
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    metadata = tmp_path / "build" / done.stdout.splitlines()[-1] / "METADATA"
    assert "Requires-Dist: typing_extensions" in metadata.read_text(encoding="utf-8")


def test_what_is_run_after_make_wheel_was_installed():
    block = next(block for block in blocks("sh", INSTALL) if "make wheel" in block)
    assert [line.split()[:2] for line in commands_of(block)] == [
        ["make", "wheel"], ["pip", "install"], ["python", "-m"],
    ]  # fmt: skip
    makefile = (ROOT / "Makefile").read_text()
    target = re.search(r"^wheel:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert target is not None
    assert "auditwheel -v repair --exclude libtorch_cpu.so -w dist " in target.group(1)
    assert "dist/longclock-*.whl" in block


def test_the_first_example_says_what_times_are():
    first = README.index("```python")
    assert "SECONDS" in blocks("python")[0]
    assert "Times are whole seconds" in README[first : README.index("## What it gains")]


def test_commands_in_the_text_parse():
    from longclock.train.cli import parser

    for page in (README, *HOW_TO):
        for text in re.findall(r"`python -m longclock\.train([^`]*)`", page):
            parser().parse_args(shlex.split(text))
    for text in re.findall(r"`(--models [^`]*)`", README):
        parser().parse_args(shlex.split(text))
    for target in re.findall(r"`make ([\w-]+)`", "".join([README, INSTALL, *HOW_TO])):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target


def test_environment_variables_are_read_somewhere():
    names = set(re.findall(r"`(LONGCLOCK_\w+)`", INSTALL))
    assert names == {
        "LONGCLOCK_CHECK", "LONGCLOCK_CUDA", "LONGCLOCK_CUDA_ARCHS", "LONGCLOCK_LIBRARY",
        "LONGCLOCK_SIMD",
    }  # fmt: skip
    sources = [ROOT / "setup.py", ROOT / "kernels/common/simd_level.cpp"]
    sources.append(ROOT / "kernels/common/cuda.cu")
    sources.append(ROOT / "python/longclock/_library.py")
    text = "".join(source.read_text() for source in sources)
    for name in names:
        assert f'"{name}"' in text, name


def figures() -> dict[str, str]:
    """The README's table: what is measured, and what it says."""
    table = README[README.index("## What it gains") :]
    found = re.findall(r"^\| ([^|]+) \| (.+) \|$", table, re.MULTILINE)
    return dict(found)


def test_the_four_figures_are_the_committed_ones():
    said = figures()
    assert len(said) == 4
    study = ROOT / "examples" / "results" / "study"

    def auc(data: str, model: str) -> tuple[float, float]:
        models = summary.by_model(read_lines(study / data / "runs.jsonl"), PROTOCOLS[data])
        found = summary.mean_of(models[model], "seen_auc")
        return found.value, found.half_width

    gain = next(text for name, text in said.items() if "check-ins" in name)
    for model, words in (("lic", "**{}**"), ("twin", "{} for the same search by content alone"), ("hour", "{} with an embedding")):  # fmt: skip
        value, half = auc("nyc-60-days", model)
        assert words.format(f"{value:.3f} ± {half:.3f}") in gain
    none = next(text for name, text in said.items() if name.startswith("Music"))
    for model, words in (("lic", "no gain from the clock: {} with it"), ("no-time", "{} without"), ("interest-clock", "in each hour has {}")):  # fmt: skip
        assert words.format(f"{auc('music', model)[0]:.3f}") in none


def test_the_figures_of_speed_are_the_committed_ones():
    said = figures()

    def result(file: str, op: str, case: str) -> dict[str, Any]:
        results = json.loads((ROOT / "bench" / "results" / file).read_text())
        found = results["results"] + results.get("predicted", [])
        return next(x for x in found if (x["op"], x["case"]) == (op, case))

    step = result("cpu.json", "long_term_interest_clock", "training step")["ratio"]
    text = next(text for name, text in said.items() if name.startswith("A training step"))
    assert f"**{step['reference']['median']:.0f} times** as fast as plain PyTorch" in text
    assert f"{step['torch.compile']['median']:.0f} times as fast as `torch.compile`" in text
    search = result("gpu_h100_80gb_hbm3.json", "clock_gsu fp16", "clock_gsu")
    assert (search["sizes"]["S"], search["sizes"]["M"]) == (1024, 10_000)
    text = next(text for name, text in said.items() if "H100" in name)
    assert f"**{search['timings']['longclock']['median_ms']:.2f} ms**" in text
    assert f"{search['of_read_bandwidth']:.0%} of the rate" in text


def test_what_is_said_of_cuda_is_so():
    """Every op has CUDA kernels, and no result of a GPU is claimed without its file."""
    rooms = {"calls", "common", "search", "selection", "time"}  # of no op
    folders = {path.name for path in (ROOT / "kernels").iterdir() if path.is_dir()} - rooms
    assert {path.parent.name for path in (ROOT / "kernels").glob("*/*.cu")} >= folders
    measured = list((ROOT / "bench" / "results").glob("gpu_*.json"))
    assert ("No machine of this project has had a GPU so far" in README) == (not measured)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        found = page if not path else Path(os.path.normpath(page.parent / path))
        assert found.exists(), target
        assert found.is_relative_to(ROOT), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", found.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, target  # fmt: skip


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "index.md" or f"({page.name})" in index


def test_the_glossary_has_the_words_that_pages_use_unexplained():
    terms = (ROOT / "docs" / "terms.md").read_text(encoding="utf-8")
    rows = {word for cell in re.findall(r"^\| ([^|]+) \|", terms, re.MULTILINE) for word in cell.split(", ")}  # fmt: skip
    assert rows >= {
        "s", "GSU", "ESU", "v_cur", "tower", "control", "AUC", "seen AUC", "UAUC", "seen UAUC", "own AUC", "recall@K", "SIM", "ETA", "TWIN",
    }  # fmt: skip
    for name in ("SIM, the search-based interest model", "ETA, efficient target attention", "TWIN, the two-stage interest network", "AUC, the chance"):  # fmt: skip
        assert README.count(name) == 1
    assert README.index("SIM, the") == README.index("SIM")  # where it is first named


def test_what_is_no_package_yet_is_not_installed_by_name():
    """There is none on PyPI: extras are installed from a clone."""
    texts = [*PAGES, *(ROOT / "examples").glob("*.py")]
    for text in texts:
        assert not re.search(r"pip install [^`\n]*\blongclock(\[|[\s`'\"])", text.read_text(encoding="utf-8")), text.name  # fmt: skip


def test_files_that_the_pages_name_exist():
    """`kernels/.../x.h` in code marks; a name with a placeholder or a star is none."""
    for page in PAGES:
        for name in re.findall(
            r"`((?:kernels|csrc|python|tests|bench|docs|examples|cmake)/[\w./-]+)`",
            page.read_text(encoding="utf-8"),
        ):
            if "recency_decay" not in name:  # the walk-through's op, which does not exist
                assert (ROOT / name).exists(), f"{page.name}: {name}"


def build_api():
    spec = importlib.util.spec_from_file_location("build_api", ROOT / "docs" / "build_api.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_api_page_is_up_to_date():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert build_api().page() == page, "run python docs/build_api.py"


def test_api_page_has_a_call_of_every_name():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    objects = {of: kind for kind, of in build_api().OBJECTS.items()}
    called = re.findall(r"^```python\n([\w.]+)\(", page, re.MULTILINE)
    assert len(called) == len(re.findall(r"^###", page, re.MULTILINE))  # each has its call
    for name in called:
        kind, _, method = name.partition(".")
        assert kind in {"lc", "longclock"} or hasattr(objects[kind], method), name


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem != "CHANGELOG"], ids=lambda page: page.stem)  # fmt: skip
def test_pages_show_names_as_they_are_imported(page):
    """What begins with lc is there after ``import longclock as lc``, what begins with longclock is imported by that name."""
    names = re.findall(
        r"(?<![\w./-])((?:lc|longclock)(?:\.[A-Za-z_]\w*)+)", page.read_text(encoding="utf-8")
    )
    for name in dict.fromkeys(names):
        if name == "lc.recency_decay":  # the walk-through's op, which does not exist
            continue
        thing = importlib.import_module("longclock")
        path = "longclock"
        for part in name.split(".")[1:]:
            path += f".{part}"
            if name.startswith("longclock.") and not hasattr(thing, part):
                thing = importlib.import_module(path)
            else:
                thing = getattr(thing, part)


def test_api_page_has_everything_public():
    import longclock as lc

    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    for name in lc.__all__:
        assert f"### {name}\n" in page or f"`lc.{name}`" in page or name == "ops"
