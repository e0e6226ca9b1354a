# SPDX-License-Identifier: Apache-2.0
"""Tensors and texts in one file of the format of safetensors, whose checksum covers every bit."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# The checksum of a file is that of its bytes with this in the checksum's place.
NO_CHECKSUM = b"0" * 64
CHECKSUM = b'"checksum":"'
DTYPES = {"F64": torch.float64, "I64": torch.int64, "F32": torch.float32, "I32": torch.int32, "F16": torch.float16,
          "BF16": torch.bfloat16, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool}  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def parts_of(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> list[bytes | memoryview]:
    """What such a file consists of, one part after the other: tensors of the CPU are not copied."""
    wide_first = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, Any] = {"__metadata__": {**metadata, "checksum": NO_CHECKSUM.decode()}}
    parts: list[bytes | memoryview] = []
    end = 0
    for name in wide_first:
        tensor = tensors[name].detach().cpu().contiguous()
        begin, end = end, end + tensor.numel() * tensor.element_size()
        shape = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape)}
        header[name] = {**shape, "data_offsets": [begin, end]}
        parts.append(_bytes(tensor))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    place = place_of_checksum(head)
    digest = new_digest(head)
    for part in parts:
        digest.update(part)
    return [with_checksum(head, place, hexadecimal(digest)), *parts]


def read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The texts and the tensors of a file, which is in memory once.

    Raises:
        ValueError: it is damaged, or something else.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            raise ValueError("it is cut off")
        head = length.to_bytes(8, "little") + file.read(length)
        place = place_of_checksum(head)
        digest = new_digest(with_checksum(head, place, NO_CHECKSUM))
        header = json.loads(head[8:])
        if not isinstance(header, dict):
            raise ValueError("its head is no object")
        metadata = header.pop("__metadata__")
        tensors: dict[str, Tensor] = {}
        for name, about in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            begin, end = about["data_offsets"]
            dtype, shape = DTYPES[about["dtype"]], about["shape"]
            if end - begin != math.prod(shape) * dtype.itemsize or end > path.stat().st_size:
                raise ValueError(f"{name} has another size than its shape says")
            tensors[name] = torch.empty(shape, dtype=dtype)
            content = _bytes(tensors[name])
            if file.readinto(content) != len(content):
                raise ValueError("it is cut off")
            digest.update(content)
        checksum = head[place : place + len(NO_CHECKSUM)]
        if checksum != hexadecimal(digest) or file.read(1):
            raise ValueError("its checksum is wrong: it is damaged, or was changed")
    return metadata, tensors


def place_of_checksum(content: bytes) -> int:
    """Where the checksum stands in a file, or in its head."""
    end = 8 + int.from_bytes(content[:8], "little")
    place = content.find(CHECKSUM, 8, min(end, len(content)))
    if place < 0:
        raise ValueError("it has no checksum")
    return place + len(CHECKSUM)


def with_checksum(content: bytes, place: int, checksum: bytes) -> bytes:
    return content[:place] + checksum + content[place + len(NO_CHECKSUM) :]


def new_digest(content: bytes) -> Any:
    return hashlib.blake2b(content, digest_size=len(NO_CHECKSUM) // 2)


def hexadecimal(digest: Any) -> bytes:
    found: bytes = digest.hexdigest().encode()
    return found


def _bytes(tensor: Tensor) -> memoryview:
    """Those of a contiguous tensor, in its place."""
    flat = tensor.as_strided(
        (tensor.numel(),), (1,)
    )  # of one element or none any stride is contiguous
    return memoryview(flat.view(torch.uint8).numpy())  # type: ignore[arg-type]
