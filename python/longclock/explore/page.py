# SPDX-License-Identifier: Apache-2.0
"""The page: one file, that asks nobody where its users are in it."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from longclock import _pages

# Nothing is fetched but, where a server is asked for other users, from that server.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src {}"


def html_of(model: dict[str, Any], users: list[dict[str, Any]], live: bool = False) -> str:
    """Args:
    model: of :meth:`Explorer.of_model`.
    users: of :meth:`Explorer.of_user`, each with all that the page shows; those of a server may be names alone.
    live: whether there is a server that can be asked for others.
    """
    data = json.dumps({"model": model, "users": users, "live": live}, allow_nan=False)
    policy = POLICY.format("'self'" if live else "'none'")
    body = _file("page.html").replace("<!-- data -->", data.replace("<", "\\u003c"))
    return _pages.page(
        "A day of the Long-term Interest Clock",
        body + f"<script>\n{_file('page.js')}</script>",
        _file("page.css"),
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n',
    )


def _file(name: str) -> str:
    return files("longclock.explore").joinpath(name).read_text(encoding="utf-8")
