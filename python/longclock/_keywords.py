# SPDX-License-Identifier: Apache-2.0
"""A keyword that a function does not take is named with what was meant. Good calls pay nothing for it."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def keywords_of(function: Callable[..., Any]) -> list[str]:
    """The names by which a function takes arguments."""
    named = inspect.signature(function).parameters.values()
    return [
        one.name for one in named if one.kind in NAMED and one.name not in ("self", "cls", "_cls")
    ]


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The one of those that are known that was probably meant, whatever its case; None: there is none like it."""
    of_small = {name.lower(): name for name in reversed(list(known))}
    near = difflib.get_close_matches(word.lower(), of_small, 1)
    return of_small[near[0]] if near else None


def meant(word: str, known: Iterable[str]) -> str:
    """``lic is near it; ``, for a message that goes on with what is known; empty where nothing is near."""
    near = nearest(word, known)
    return "" if near is None else f"{near} is near it; "


def unexpected(name: str, keyword: str, known: Iterable[str]) -> TypeError:
    """What is said of a keyword that is none of those that are known."""
    known = list(known)
    near = nearest(keyword, known)
    of_near = "" if near is None else f"{near} is near it, and "
    return TypeError(
        f"{name}: unexpected keyword argument {keyword!r}; {of_near}it takes {', '.join(known)}"
    )


def named_keywords(name: str | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A function whose errors name it where a keyword is misspelt.

    Args:
        name: None, of a method: its object's class.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def named(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return function(*args, **kwargs)
            except TypeError:
                known = keywords_of(function)
                wrong = next((keyword for keyword in kwargs if keyword not in known), None)
                if wrong is None:
                    raise
            raise unexpected(name or type(args[0]).__name__, wrong, known)

        return named

    return decorate
