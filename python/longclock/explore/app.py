# SPDX-License-Identifier: Apache-2.0
"""A server of the page, which is asked for what it shows of any user."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from longclock.explore.explorer import Explorer
from longclock.explore.names import listed, plain
from longclock.explore.page import html_of
from longclock.explore.settings import CANDIDATES
from longclock.serve.endpoint import user_of
from longclock.store.records import User

log = logging.getLogger("longclock.explore")


def create_app(
    explorer: Explorer,
    users: Sequence[User],
    items: Sequence[int | str] | None = None,
    count: int = CANDIDATES,
) -> Starlette:
    """An ASGI application: the page of some users at ``/``, and what it shows of any user at ``/user``.

    Every answer is of the version that is current in the model's folder, or of the one before where that cannot be shown.

    Args:
        items, count: of :meth:`Explorer.of_user`, where a request names no candidates.
    """

    def refresh() -> None:
        try:
            explorer.refresh()
        except (ValueError, OSError) as error:
            log.error("version %s goes on: %s", explorer.version, error)

    def shown() -> str:
        refresh()
        return html_of(explorer.of_model(), [{"user": plain(user)} for user in users], live=True)

    def found(asked: Mapping[str, str]) -> dict[str, Any]:
        refresh()
        given = asked.get("items", "")
        candidates = listed(given) if given.strip() else items
        return explorer.of_user(
            user_of(asked.get("user", "")), candidates, count, asked.get("version")
        )

    async def page(request: Request) -> Response:
        return HTMLResponse(await asyncio.to_thread(shown))

    async def user(request: Request) -> Response:
        try:
            return JSONResponse(await asyncio.to_thread(found, request.query_params))
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 400)

    return Starlette(routes=[Route("/", page), Route("/user", user)])
