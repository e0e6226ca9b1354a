# SPDX-License-Identifier: Apache-2.0
"""Tensors in the bodies of HTTP: the Open Inference Protocol, version 2, as JSON and with binary tensors.

https://github.com/kserve/open-inference-protocol; a body with binary tensors begins with JSON, whose length a header tells,
and the tensors follow in its order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from longclock.store.records import Array

JSON_LENGTH = "inference-header-content-length"
DTYPES = {"INT64": "<i8", "INT32": "<i4", "FP32": "<f4"}


class BadRequestError(ValueError):
    """A body that is not what the protocol or the model asks for; the message is the answer."""


@dataclasses.dataclass(frozen=True)
class Infer:
    """What a request asks: its id, its inputs, its parameters, and of each output wanted whether it shall be binary."""

    id: str | None
    inputs: dict[str, Array | list[str]]
    parameters: dict[str, Any]
    outputs: dict[str, bool]


@dataclasses.dataclass(frozen=True)
class Expected:
    """An input or output of the model, as its metadata tell."""

    name: str
    dtypes: tuple[str, ...]
    shape: tuple[int, ...]
    optional: bool = False

    def metadata(self) -> dict[str, Any]:
        return {"name": self.name, "datatype": self.dtypes[0], "shape": list(self.shape)}


def parse(
    headers: Mapping[str, str],
    body: bytes,
    expected: Sequence[Expected],
    outputs: Sequence[Expected],
) -> Infer:
    """The request in a body.

    Raises:
        BadRequestError: it says what is wrong and what is asked for.
    """
    length = headers.get(JSON_LENGTH)
    if length is not None and not (length.isdecimal() and int(length) <= len(body)):
        raise BadRequestError(
            f"header {JSON_LENGTH} must be a length within the body of {len(body)} bytes, got {length!r}"
        )
    end = len(body) if length is None else int(length)
    try:
        asked = orjson.loads(body[:end])
    except orjson.JSONDecodeError as error:
        raise BadRequestError(f"the body must be JSON, got what is none: {error}") from None
    given = _list_of_objects(asked, "inputs")
    rest = body[end:]
    inputs: dict[str, Array | list[str]] = {}
    known = {each.name: each for each in expected}
    for tensor in given:
        name = tensor.get("name")
        if name not in known or name in inputs:
            raise BadRequestError(f"inputs must be {', '.join(known)}, each once, got {name!r}")
        size = _parameters(tensor).get("binary_data_size")
        if size is not None:
            if not isinstance(size, int) or not 0 <= size <= len(rest):
                raise BadRequestError(
                    f"input {name}: binary_data_size must be within the body, got {size!r}"
                )
            content, rest = rest[:size], rest[size:]
            inputs[name] = _from_bytes(known[name], tensor, content)
        else:
            inputs[name] = _from_json(known[name], tensor)
    for each in expected:
        if each.name not in inputs and not each.optional:
            raise BadRequestError(
                f"inputs must have {each.name}, got {', '.join(inputs) or 'none'}"
            )
    if rest:
        raise BadRequestError(f"the body must end behind its tensors, got {len(rest)} bytes more")
    parameters = _parameters(asked)
    binary = bool(parameters.get("binary_data_output", False))
    wanted = {each.name: binary for each in outputs}
    if asked.get("outputs"):
        named = _list_of_objects(asked, "outputs")
        for output in named:
            if output.get("name") not in wanted:
                raise BadRequestError(
                    f"outputs must be of {', '.join(wanted)}, got {output.get('name')!r}"
                )
        wanted = {x["name"]: bool(_parameters(x).get("binary_data", binary)) for x in named}
    number = asked.get("id")
    return Infer(None if number is None else str(number), inputs, parameters, wanted)


def answer(
    head: dict[str, Any], outputs: Mapping[str, Array | list[str]], wanted: Mapping[str, bool]
) -> tuple[bytes, dict[str, str]]:
    """A body with the outputs that are wanted, and its headers. JSON has no infinity: it is null there."""
    tensors, contents = [], []
    for name, binary in wanted.items():
        values = outputs[name]
        kind = "O" if isinstance(values, list) else values.dtype.kind
        datatype = {"O": "BYTES", "i": "INT64"}.get(kind, "FP32")
        tensor: dict[str, Any] = {"name": name, "datatype": datatype, "shape": [len(values)]}
        if binary:
            contents.append(_content(values, datatype))
            tensor["parameters"] = {"binary_data_size": len(contents[-1])}
        else:
            tensor["data"] = values if kind == "O" else np.ascontiguousarray(values)
        tensors.append(tensor)
    body = orjson.dumps({**head, "outputs": tensors}, option=orjson.OPT_SERIALIZE_NUMPY)
    if not contents:
        return body, {"content-type": "application/json"}
    headers = {"content-type": "application/octet-stream", JSON_LENGTH: str(len(body))}
    return b"".join([body, *contents]), headers


def _content(values: Array | list[str], datatype: str) -> bytes:
    """A tensor in binary; of texts, each behind its length in four bytes."""
    if isinstance(values, list):
        texts = [text.encode() for text in values]
        return b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    return np.ascontiguousarray(values, DTYPES[datatype]).tobytes()


def _list_of_objects(asked: Any, name: str) -> list[dict[str, Any]]:
    given = asked.get(name) if isinstance(asked, dict) else None
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        raise BadRequestError(
            f"the body must be an object with a list of {name}, got {type(given).__name__}"
        )
    return given


def _parameters(tensor: dict[str, Any]) -> dict[str, Any]:
    found = tensor.get("parameters") or {}
    if not isinstance(found, dict):
        raise BadRequestError(f"parameters must be an object, got {type(found).__name__}")
    return found


def _datatype(expected: Expected, tensor: dict[str, Any]) -> str:
    found = tensor.get("datatype")
    if found not in expected.dtypes:
        raise BadRequestError(
            f"input {expected.name}: datatype must be {' or '.join(expected.dtypes)}, got {found!r}"
        )
    return str(found)


def _shaped(expected: Expected, tensor: dict[str, Any], values: Any) -> Any:
    shape = tensor.get("shape")
    fits = isinstance(shape, list) and len(shape) == 1 and shape[0] == len(values)
    if not fits or expected.shape not in ((-1,), (len(values),)):
        wanted = ["any number" if size < 0 else size for size in expected.shape]
        raise BadRequestError(
            f"input {expected.name}: shape must be {wanted} and fit the data, got {shape} and {len(values)} values"
        )
    return values


def _from_json(expected: Expected, tensor: dict[str, Any]) -> Array | list[str]:
    datatype, data = _datatype(expected, tensor), tensor.get("data")
    if not isinstance(data, list):
        raise BadRequestError(
            f"input {expected.name}: data must be a list, got {type(data).__name__}"
        )
    kind = str if datatype == "BYTES" else int
    if not set(map(type, data)) <= {kind}:
        raise BadRequestError(
            f"input {expected.name}: data must be {'texts' if kind is str else 'integers'}"
        )
    if kind is str:
        return _shaped(expected, tensor, data)
    try:
        return _shaped(expected, tensor, np.array(data, DTYPES[datatype]))
    except OverflowError:
        raise BadRequestError(f"input {expected.name}: data must fit {datatype}") from None


def _from_bytes(expected: Expected, tensor: dict[str, Any], content: bytes) -> Array | list[str]:
    datatype = _datatype(expected, tensor)
    if datatype == "BYTES":
        return _shaped(expected, tensor, _texts(expected.name, content))
    dtype = np.dtype(DTYPES[datatype])
    if len(content) % dtype.itemsize:
        raise BadRequestError(
            f"input {expected.name}: {len(content)} bytes are no whole number of {datatype}"
        )
    return _shaped(expected, tensor, np.frombuffer(content, dtype))


def _texts(name: str, content: bytes) -> list[str]:
    """Each behind its length in four bytes."""
    found, at = [], 0
    while at < len(content):
        size = int.from_bytes(content[at : at + 4], "little")
        text = content[at + 4 : at + 4 + size]
        at += 4 + size
        try:
            found.append(text.decode())
        except UnicodeDecodeError:
            raise BadRequestError(f"input {name}: texts must be UTF-8") from None
        if at > len(content):
            raise BadRequestError(f"input {name}: a text is cut off")
    return found
