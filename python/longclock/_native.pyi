from typing import TypedDict

class BuildInfo(TypedDict):
    version: str
    compiler: str
    torch_target: str
    torch_built_with: str
    cuda: str | None
    cuda_archs: list[str]
    simd_levels: list[str]

def simd_level() -> str: ...
def set_simd_level(level: str) -> None: ...
def simd_levels() -> list[str]: ...
def build_info() -> BuildInfo: ...
