# SPDX-License-Identifier: Apache-2.0
"""64-bit ids of what users and items are called: they mean the same in every process, without a table of all texts."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np

from longclock.data.stream import IntArray

# An integer as Python prints it, of no more digits than int64 has.
WHOLE = re.compile(r"(0|-?[1-9][0-9]{0,18})\Z")


def text_ids(texts: Sequence[str] | np.ndarray) -> IntArray:
    """The ids of texts, int64 of their shape ``[E]``: the same in every process, and without a table of all texts.

    A text that spells an integer of 64 bits as Python prints it is that integer, so that ``7`` of one source is ``"7"`` of another;
    any other is a hash of 63 bits: the first eight bytes of BLAKE2b of its UTF-8, as a little-endian number, without its lowest bit.
    Of ten million texts, two have one id with a chance of 5 in a million.

    Args:
        texts: strings, one dimension.
    Raises:
        ValueError: something else than strings.

    Example::

        >>> from longclock.data.sources import text_ids
        >>> text_ids(["7", "07", "ann"]).tolist()
        [7, 4480223417405806358, 5978970370318769478]
    """
    given = np.asarray(texts, dtype=object)
    if given.ndim != 1 or not all(isinstance(text, str) for text in given):
        raise ValueError(f"text_ids: texts must be strings in one dimension, got {texts!r:.100}")
    known: dict[str, int] = {}
    for text in given:
        if text not in known:
            name = called(text)
            known[text] = name if isinstance(name, int) else _hash(name)
    return np.fromiter((known[text] for text in given), np.int64, len(given))


def ids_of(names: Sequence[int | str]) -> IntArray:
    """The ids of integers and texts, int64 of their number: an integer is itself where int64 holds it, else its text counts."""
    texts = [str(name) for name in names if not _is_id(name)]
    rest = iter(text_ids(texts).tolist())
    return np.fromiter(
        (name if _is_id(name) else next(rest) for name in names), np.int64, len(names)
    )


def called(text: str) -> int | str:
    """What a text names: an integer of 64 bits that is spelled as Python prints it, else the text itself."""
    if WHOLE.match(text) and _is_id(number := int(text)):
        return number
    return text


def _is_id(name: int | str) -> bool:
    return isinstance(name, int) and -(2**63) <= name < 2**63


def _hash(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
