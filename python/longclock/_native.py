# SPDX-License-Identifier: Apache-2.0
"""Build information and the SIMD level: the C functions of the library in use, which are no tensor ops."""

from __future__ import annotations

import ctypes
from typing import TypedDict

from longclock._library import LOADED

_LIBRARY = ctypes.CDLL(str(LOADED))  # loaded already: the same one again


class BuildInfo(TypedDict):
    version: str
    compiler: str
    torch_target: str
    torch_built_with: str
    cuda: str | None
    cuda_archs: list[str]
    simd_levels: list[str]


def _text(name: str, *arguments: bytes) -> str:
    """What a function of ``csrc/library_info.h`` says."""
    function = getattr(_LIBRARY, f"longclock_{name}")
    function.restype = ctypes.c_char_p
    said: bytes = function(*arguments)
    return said.decode()


def _names(text: str) -> list[str]:
    return text.split(",") if text else []


def build_info() -> BuildInfo:
    """How the library was built."""
    return {
        "version": _text("build_info", b"version"),
        "compiler": _text("build_info", b"compiler"),
        "torch_target": _text("build_info", b"torch_target"),
        "torch_built_with": _text("build_info", b"torch_built_with"),
        "cuda": _text("build_info", b"cuda") or None,
        "cuda_archs": _names(_text("build_info", b"cuda_archs")),
        "simd_levels": _names(_text("simd_levels_built")),
    }


def simd_level() -> str:
    """The SIMD level in use: 'scalar', 'avx2', 'avx512' or 'avx512_bf16'."""
    return _text("simd_level")


def simd_levels() -> list[str]:
    """The levels that this build has and this machine runs, best last."""
    built = build_info()["simd_levels"]
    return built[: built.index(_text("max_simd_level")) + 1]


def set_simd_level(level: str) -> None:
    """Chooses the SIMD level of this process.

    Raises:
        ValueError: the machine lacks it, or there is none of that name.
    """
    if _LIBRARY.longclock_set_simd_level(level.encode()) != 0:
        raise ValueError(
            f"set_simd_level: level must be one that this machine has ({', '.join(simd_levels())}), "
            f"got {level!r}; longclock._native.simd_levels() lists them"
        )
