# SPDX-License-Identifier: Apache-2.0
"""A server of the page, which is asked for what it shows of any user."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from longclock.explore.explorer import Explorer
from longclock.explore.page import html_of
from longclock.explore.settings import CANDIDATES
from longclock.serve.endpoint import user_of
from longclock.store.records import User


def create_app(
    explorer: Explorer,
    users: Sequence[User],
    items: Sequence[int] | None = None,
    count: int = CANDIDATES,
) -> Starlette:
    """An ASGI application: the page of some users at ``/``, and what it shows of any user at ``/user``.

    Args:
        items, count: of :meth:`Explorer.of_user`, where a request names no candidates.
    """

    async def page(request: Request) -> Response:
        model = await asyncio.to_thread(explorer.of_model)
        return HTMLResponse(html_of(model, [{"user": user} for user in users], live=True))

    async def user(request: Request) -> Response:
        asked, given = request.query_params.get("user", ""), request.query_params.get("items", "")
        try:
            candidates = items_of(given) if given.strip() else items
            found = await asyncio.to_thread(explorer.of_user, user_of(asked), candidates, count)
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 400)
        return JSONResponse(found)

    return Starlette(routes=[Route("/", page), Route("/user", user)])


def items_of(text: str) -> list[int]:
    """Items with commas between them.

    Raises:
        ValueError: something else.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdecimal() for word in words):
        raise ValueError(f"candidates must be items, numbers with commas between them, got {text!r}")  # fmt: skip
    return list(map(int, words))
