"""The live page: a static page, and the numbers that it asks for once a second.

The page holds no data, so it is public (``http.static_files`` has the policy); the numbers need
an admin key, which the page keeps in its tab's session storage.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
from starlette.routing import Route

from penstock.dashboard.snapshot import LiveSnapshot
from penstock.http.door import Access, Desk, Door, DoorBodies, ErrorShape, Handler
from penstock.http.exchange import Exchange
from penstock.http.static_files import static_file
from penstock.units import Outcome

_FILES: Final = {
    "/live": "live.html",
    "/live/live.css": "live.css",
    "/live/live.js": "live.js",
    "/live/icon.svg": "icon.svg",
}


def routes(desk: Desk, snapshot: Callable[[], LiveSnapshot]) -> list[Route]:
    """The page's routes. ``snapshot`` is called for every poll and must be quick."""

    async def live(exchange: Exchange) -> Outcome:
        exchange.response_headers["cache-control"] = "no-store"
        await exchange.respond(200, msgspec.json.encode(snapshot()))
        return Outcome.SUCCESS

    def door(handler: Handler, access: Access, shown: Any = None) -> Door:
        return Door(
            handler,
            access=access,
            shape=ErrorShape.PROBLEM,
            door="dashboard",
            desk=desk,
            logged=False,
            bodies=DoorBodies.showing(shown),
        )

    listed = [Route("/admin/live", door(live, Access.ADMIN, LiveSnapshot), methods=["GET"])]
    for path, name in _FILES.items():
        handler = static_file("penstock.dashboard", name)
        listed.append(Route(path, door(handler, Access.PUBLIC), methods=["GET"]))
    return listed
