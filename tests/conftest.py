# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import emulator
import pytest
import torch
from stores import NO_REDIS, REDIS_SERVER, RedisProcess, Stores
from tolerance import assert_bitwise


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device",
        choices=("cpu", "emulated", "cuda"),
        default="cpu",
        help="where the ops run; emulated needs LONGCLOCK_LIBRARY to name the emulated library",
    )
    parser.addoption(
        "--share",
        type=int,
        default=1,
        metavar="N",
        help="of the cases of each test function one in N, at least one: by a hash of their names, the same ones every time",
    )


def pytest_configure(config: pytest.Config) -> None:
    device = config.getoption("--device")
    if device == "cuda" and not torch.cuda.is_available():
        raise pytest.UsageError("--device cuda: PyTorch finds no GPU on this machine")
    if device == "emulated" and not os.environ.get("LONGCLOCK_LIBRARY"):
        raise pytest.UsageError("--device emulated: LONGCLOCK_LIBRARY must name its library")


# Files whose tests make sense on some devices only; those named after CUDA, wherever its kernels run.
DEVICES_OF = {
    "test_emulator.py": {"emulated"},
    "test_cuda_captures.py": {"emulated", "cuda"},
    "test_cuda_devices.py": {"emulated", "cuda"},
    "test_cuda_kernels.py": {"emulated", "cuda"},
    "test_cuda_portions.py": {"emulated"},
}


def devices_of(name: str) -> set[str]:
    return {"emulated", "cuda"} if name.endswith("_cuda.py") else DEVICES_OF.get(name, set())


def in_share(items: list[pytest.Item], share: int) -> set[str]:
    """The names of one case in ``share`` of each function, as they fall: one in four in their order may have one dtype alone."""
    cases = defaultdict(list)
    for item in items:
        cases[item.nodeid.partition("[")[0]].append(item.nodeid)
    kept: set[str] = set()
    for names in cases.values():
        names.sort(key=lambda name: zlib.crc32(name.encode()))
        kept.update(names[: -(-len(names) // share)])
    return kept


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On the emulator: the tests of ops, which take a device, and those of the emulator itself. Of these the share that is asked for."""
    device = config.getoption("--device")

    def runs(item: pytest.Item) -> bool:
        if devices := devices_of(item.path.name):
            return device in devices
        return device != "emulated" or "device" in getattr(item, "fixturenames", ())

    kept = in_share([item for item in items if runs(item)], config.getoption("--share"))
    dropped = [item for item in items if item.nodeid not in kept]
    items[:] = [item for item in items if item.nodeid in kept]
    config.hook.pytest_deselected(items=dropped)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "level" in metafunc.fixturenames:
        levels = ["device"]
        if metafunc.config.getoption("--device") == "cpu":
            from longclock import _native

            levels = _native.simd_levels()
        metafunc.parametrize("level", levels, indirect=True)


@pytest.fixture
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every SIMD level of this machine in turn."""
    if request.param == "device":
        yield request.param
        return
    from longclock import _native

    before = _native.simd_level()
    _native.set_simd_level(request.param)
    yield request.param
    _native.set_simd_level(before)


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> str:
    """Where tensors live: the emulated ops take CPU tensors."""
    return "cuda" if request.config.getoption("--device") == "cuda" else "cpu"


@pytest.fixture(scope="session")
def checks_data(request: pytest.FixtureRequest) -> bool:
    """Whether ops check what depends on the data: on the CPU. CUDA kernels clamp it."""
    return bool(request.config.getoption("--device") == "cpu")


@pytest.fixture(scope="session")
def emulated(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--device") == "emulated")


@pytest.fixture
def emulator_only(emulated: bool) -> None:
    if not emulated:
        pytest.skip("only the emulator counts, shuffles, and survives an assertion")


@pytest.fixture(autouse=True)
def no_emulator_reports(request: pytest.FixtureRequest) -> Iterator[None]:
    """On the emulated device a test fails for every fault that its kernels had, raised or not."""
    yield
    if request.config.getoption("--device") == "emulated":
        reports = emulator.take_reports()
        assert not reports, "\n\n".join(report["text"] for report in reports)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def same_at_any_threads() -> Callable[[Callable[[], object]], None]:
    """Runs a function twice on 1, 2 and 3 threads: every result is bitwise the first one."""

    def check(function: Callable[[], object]) -> None:
        results = []
        for threads in (1, 1, 2, 2, 3):
            torch.set_num_threads(threads)
            results.append(function())
        for other in results[1:]:
            assert_bitwise(other, results[0])

    return check


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisProcess]:
    """One of the tests' own, which writes before it answers."""
    if REDIS_SERVER is None:
        pytest.skip(NO_REDIS)
    server = RedisProcess()
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", "redis"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    """Makes stores of each kind."""
    server = request.getfixturevalue("redis_server") if request.param == "redis" else None
    made = Stores(request.param, tmp_path, server)
    yield made
    made.close()
