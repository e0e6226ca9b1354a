# SPDX-License-Identifier: Apache-2.0
"""Without Python: the package of a served model, and the C++ program that runs it."""

from __future__ import annotations

import ctypes.util
import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from streams import stream
from test_serve import SMALL, distinct, trained

import longclock
from longclock.export import export, main
from longclock.serve import Recommender, model_folder
from longclock.serve.package import example_of, exported_program
from longclock.serve.ranking_model import Served
from longclock.store import SQLiteStore

ROOT = Path(__file__).parents[1]
LIBRARY = Path(longclock.__file__).with_name("liblongclock.so")


def served(folder, dtype=torch.float32):
    version = model_folder.read(folder)
    return Served.of(version, "folded", dtype, torch.device("cpu"))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with a model of two versions, its package, and the program."""
    folder = tmp_path_factory.mktemp("package")
    events = distinct(stream())
    for seed in (1, 2):
        _, _, path = trained(folder, events, config=dataclasses.replace(SMALL, seed=seed))
        shutil.move(path, folder / f"{seed}.safetensors")
    package = folder / "rank.pt2"
    arguments = [
        "--checkpoint",
        folder / "1.safetensors",
        "--out",
        folder / "model",
        "--package",
        package,
    ]
    assert main(list(map(str, arguments))) == 0
    tools = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for command in (
        ["cmake", "-S", ROOT / "examples" / "cpp_ranker", "-B", folder / "build", "-G", "Ninja",
         f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path}"],
        ["cmake", "--build", folder / "build"],
    ):  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, env=tools)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder, events, package, folder / "build" / "ranker"


def run(program, package, lines, library=LIBRARY):
    return subprocess.run(
        [program, library, package], input="\n".join(lines), capture_output=True, text=True,
        env={},
    )  # fmt: skip


def request_line(events, user, now, candidates):
    mine = [
        f"{item}:{time}"
        for who, item, time in zip(
            *map(list, (events.user, events.item, events.order_time)), strict=True
        )
        if who == user
    ]
    return f"{user} {now} {','.join(map(str, candidates))} {','.join(mine) or '-'}"


def answer_of(ranking):
    known = ranking.scores > -torch.inf
    pairs = zip(ranking.items[known].tolist(), ranking.scores[known].tolist(), strict=True)
    return " ".join(f"{item}:{score:.9g}" for item, score in pairs)


def test_the_program_ranks_as_the_recommender(built, tmp_path):
    """Bit for bit; new weights without a new package."""
    folder, events, package, program = built
    store = SQLiteStore(tmp_path / "histories.db")
    store.append_many(events.user, events.item, events.order_time)
    now = int(events.order_time[-1])
    asked = [(user, now - 3600 * user, range(12 - user)) for user in range(6)]
    asked += [
        (99, now, [3, 5, 77]),
        (1, 0, [2, 4]),
    ]  # not known, with an item that is not; before everything
    lines = [request_line(events, *each) for each in asked]
    wanted = []
    for seed in (1, 2):
        if seed == 2:
            export(folder / "2.safetensors", folder / "model")
        recommender = Recommender(folder / "model", store)
        wanted += [
            answer_of(recommender.rank(user, torch.tensor(list(rows)), time))
            for user, time, rows in asked
        ]
    tensors = folder / "model" / recommender.version / "tensors.safetensors"
    done = run(program, package, [*lines, f"weights {tensors}", *lines])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == wanted
    assert wanted[: len(asked)] != wanted[len(asked) :]


def test_the_program_answers_ten_thousand_requests_in_the_same_memory(built, tmp_path):
    """Bit for bit all the way, and weights that are replaced now and then."""
    folder, events, package, program = built
    store = SQLiteStore(tmp_path / "histories.db")
    store.append_many(events.user, events.item, events.order_time)
    export(folder / "1.safetensors", folder / "model")
    recommender = Recommender(folder / "model", store)
    weights = f"weights {folder / 'model' / recommender.version / 'tensors.safetensors'}"
    now = int(events.order_time[-1])
    asked = [(user % 7, now - 1800 * user, range(1 + user % 12)) for user in range(50)]
    lines = "\n".join([weights, *(request_line(events, *each) for each in asked)]) + "\n"
    wanted = [
        answer_of(recommender.rank(user, torch.tensor(list(rows)), time))
        for user, time, rows in asked
    ]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    held = []
    with subprocess.Popen([program, LIBRARY, package], **pipes, env={}) as running:
        for _ in range(10_000 // len(asked)):
            running.stdin.write(lines)
            running.stdin.flush()
            assert [running.stdout.readline().rstrip("\n") for _ in asked] == wanted
            pages = int(Path(f"/proc/{running.pid}/statm").read_text().split()[1])
            held.append(pages * os.sysconf("SC_PAGE_SIZE"))
        running.stdin.close()
    assert running.returncode == 0
    settled = len(held) // 5
    assert max(held) - max(held[:settled]) < 1 << 20, held[::10]


def test_no_python_is_in_the_program(built):
    linked = subprocess.run(["ldd", built[3]], capture_output=True, text=True, check=True).stdout
    assert "libtorch" in linked
    assert "libpython" not in linked


@pytest.mark.skipif(
    ctypes.util.find_library("m") is None, reason="there is no libm to be opened in its place"
)
def test_a_library_without_the_ops_is_named(built):
    _, _, package, program = built
    missing = run(program, package, ["1 5 0 -"], library="nowhere.so")
    assert missing.returncode == 1
    assert "ranker: nowhere.so: cannot open shared object file" in missing.stderr
    other = run(program, package, ["1 5 0 -"], library=ctypes.util.find_library("m"))
    assert other.returncode == 1
    assert "longclock::clock_gsu" in other.stderr


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["1 5"], "a request is: user time candidates history"),
        (["weights nowhere"], "nowhere is no safetensors file"),
    ],
)
def test_mistakes_are_named(built, lines, words):
    done = run(built[3], built[2], lines)
    assert done.returncode == 1
    assert words in done.stderr


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_number_of_requests_is_exported(tmp_path, dtype, labels):
    config = dataclasses.replace(SMALL, outcomes=False)
    _, _, path = trained(tmp_path, distinct(stream(labels=labels)), config=config)
    export(path, tmp_path / "model")
    of = served(tmp_path / "model", dtype)
    program = exported_program(of).module()
    for sizes in ((3, 7, 50), (1, 30, 200), (2, 1, 0), (1, 0, 4), (0, 0, 0)):
        arguments = example_of(of, *sizes)
        with torch.no_grad():
            assert torch.equal(program(*arguments), of.model(*arguments)), sizes


def test_a_model_that_counts_is_refused(tmp_path, capsys):
    _, _, path = trained(tmp_path, distinct(stream(labels=True)))
    arguments = ["--checkpoint", str(path), "--out", str(tmp_path / "model"), "--package"]
    for package, words in (
        ("rank.pt2", "reads how earlier events ended"),
        ("rank", "must be a file that ends with .pt2"),
    ):
        with pytest.raises(SystemExit):
            main([*arguments, str(tmp_path / package)])
        assert words in capsys.readouterr().err
