"""The playground: one static page for every chain, which makes its form from the chain's schemas.

The page is the same for all names, known or not, so it tells nobody which chains there are. It is
served at the chain's plain address only: LangServe's reflected what a ``/c/{config_hash}/`` held
into a script (measured), and this one has nothing to reflect.
"""

from __future__ import annotations

from typing import Final

from starlette.routing import Route

from penstock.http.door import Access, Desk, Door, ErrorShape
from penstock.http.static_files import static_file

_FILES: Final = {
    "/chains/{name}/playground": "playground.html",
    "/chains/{name}/playground/": "playground.html",
    "/playground/playground.css": "playground.css",
    "/playground/playground.js": "playground.js",
}


def playground_routes(desk: Desk) -> list[Route]:
    """The page and its two files; they stand before the routes of the chains themselves."""
    return [
        Route(
            path,
            Door(
                static_file("penstock.chains", name),
                access=Access.PUBLIC,
                shape=ErrorShape.PROBLEM,
                door="chains",
                desk=desk,
                logged=False,
            ),
            methods=["GET"],
        )
        for path, name in _FILES.items()
    ]
