"""The live page: a static page, and the numbers that it asks for once a second.

The page holds no data, so it is public; the numbers need an admin key, which the page keeps in
its tab's session storage. There are no cookies anywhere, so there is nothing to forge requests
with. The files are vendored, read once, and served under a policy that lets the page run its own
module, use its own style sheet and speak to its own origin, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from typing import Final

import msgspec
from starlette.routing import Route

from penstock.dashboard.snapshot import LiveSnapshot
from penstock.http.door import Access, Desk, Door, ErrorShape, Handler
from penstock.http.exchange import Exchange
from penstock.units import Outcome

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_FILES: Final = {
    "/live": ("live.html", "text/html; charset=utf-8"),
    "/live/live.css": ("live.css", "text/css; charset=utf-8"),
    "/live/live.js": ("live.js", "text/javascript; charset=utf-8"),
    "/live/icon.svg": ("icon.svg", "image/svg+xml"),
}


def routes(desk: Desk, snapshot: Callable[[], LiveSnapshot]) -> list[Route]:
    """The page's routes. ``snapshot`` is called for every poll and must be quick."""

    async def live(exchange: Exchange) -> Outcome:
        exchange.response_headers["cache-control"] = "no-store"
        await exchange.respond(200, msgspec.json.encode(snapshot()))
        return Outcome.SUCCESS

    def door(handler: Handler, access: Access) -> Door:
        return Door(
            handler,
            access=access,
            shape=ErrorShape.PROBLEM,
            door="dashboard",
            desk=desk,
            logged=False,
        )

    listed = [Route("/admin/live", door(live, Access.ADMIN), methods=["GET"])]
    for path, (name, content_type) in _FILES.items():
        listed.append(Route(path, door(_file(name, content_type), Access.PUBLIC), methods=["GET"]))
    return listed


def _file(name: str, content_type: str) -> Handler:
    content = resources.files("penstock.dashboard").joinpath("static", name).read_bytes()

    async def serve(exchange: Exchange) -> Outcome:
        exchange.response_headers |= {
            "content-security-policy": POLICY,
            "referrer-policy": "no-referrer",
            "cache-control": "no-cache",
        }
        await exchange.respond(200, content, content_type)
        return Outcome.SUCCESS

    return serve
