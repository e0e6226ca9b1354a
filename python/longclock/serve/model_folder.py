# SPDX-License-Identifier: Apache-2.0
"""Versions of a model in a folder: each whole, never changed, and one of them current.

::

    model/current.json                names the version that requests are answered by; replaced atomically, last of all
    model/0001-9f3c2a7d/model.json    what the model is: sizes, settings, the name and checksum of the file of its tensors
    model/0001-9f3c2a7d/tensors.safetensors

Nothing in it is code: JSON and safetensors.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from longclock.train.folder import write_whole

FORMAT = 1  # of the folder
CURRENT, MODEL, TENSORS = "current.json", "model.json", "tensors.safetensors"
VERSION = re.compile(r"\d{4,}-[0-9a-f]{8}")


class ModelFolderError(ValueError):
    """A folder without a model that can be served; the message names the file and the remedy.

    Example::

        >>> from longclock.serve import ModelFolderError, Recommender
        >>> from longclock.store import SQLiteStore
        >>> try:
        ...     Recommender("nowhere", SQLiteStore("histories.db"))
        ... except ModelFolderError as error:
        ...     print(error)
        nowhere/current.json cannot be read: No such file or directory; export a model into it: python -m longclock.export
    """


@dataclasses.dataclass(frozen=True)
class Version:
    """One version: its name, what it says of itself, and its tensors."""

    name: str
    about: dict[str, Any]
    tensors: dict[str, Tensor]


def current(folder: Path) -> str:
    """The name of the current version.

    Raises:
        ModelFolderError: there is none.
    """
    found = _json(folder / CURRENT, "export a model into it: python -m longclock.export")
    name = found.get("version")
    if not isinstance(name, str) or not VERSION.fullmatch(name):
        raise ModelFolderError(
            f"{folder / CURRENT}: version must be the name of one, got {name!r}; export again"
        )
    return name


def read(folder: Path, name: str | None = None) -> Version:
    """A version, the current one where none is named.

    Raises:
        ModelFolderError: it is damaged, or of another format.
    """
    name = current(folder) if name is None else name
    about = _json(folder / name / MODEL, "export again")
    digest = about.pop("digest", None)
    if about.get("format") != FORMAT:
        raise ModelFolderError(
            f"{folder / name / MODEL}: format must be {FORMAT}, got {about.get('format')!r}; export again with this version of longclock"
        )
    if digest != _checksum(_dumped(about)):
        raise ModelFolderError(f"{folder / name / MODEL} is damaged, or was changed; export again")
    path = folder / name / TENSORS
    try:
        content = path.read_bytes()
        if _checksum(content) != about.get("checksum"):
            raise ModelFolderError(
                f"{path} is damaged: its checksum is not that of {MODEL}; export again"
            )
        return Version(name, about, safetensors.torch.load(content))
    except (OSError, SafetensorError) as error:
        raise ModelFolderError(f"{path} cannot be read: {error}; export again") from error


def write(folder: Path, about: dict[str, Any], tensors: dict[str, Tensor], keep: int) -> str:
    """Add a version beside the others and make it the current one; ``keep`` versions stay. Returns its name."""
    content = safetensors.torch.save({name: x.contiguous() for name, x in tensors.items()})
    checksum = _checksum(content)
    names = versions(folder)
    number = 1 + max((int(name.partition("-")[0]) for name in names), default=0)
    name = f"{number:04}-{checksum[:8]}"
    write_whole(folder / name / TENSORS, content)
    about = {"format": FORMAT, **about, "checksum": checksum}
    write_whole(folder / name / MODEL, _dumped({**about, "digest": _checksum(_dumped(about))}))
    write_whole(folder / CURRENT, _dumped({"version": name}))
    for old in [*names, name][:-keep]:
        shutil.rmtree(folder / old, ignore_errors=True)
    return name


def versions(folder: Path) -> list[str]:
    """All that are there, the oldest first."""
    if not folder.is_dir():
        return []
    found = [path.name for path in folder.iterdir() if VERSION.fullmatch(path.name)]
    return sorted(found, key=lambda name: int(name.partition("-")[0]))


def _dumped(value: dict[str, Any]) -> bytes:
    return json.dumps(value, indent=1).encode() + b"\n"


def _checksum(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=32).hexdigest()


def _json(path: Path, remedy: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise ModelFolderError(f"{path} cannot be read: {error.strerror}; {remedy}") from error
    except ValueError as error:
        raise ModelFolderError(f"{path} is no JSON ({error}); {remedy}") from error
    if not isinstance(found, dict):
        raise ModelFolderError(f"{path} is no JSON object; {remedy}")
    return found
