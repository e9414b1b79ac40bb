"""Pages of our own: files of the package, read once, under a policy that leaves little.

A page may run its own module, use its own style sheet and speak to its own origin, and nothing
else: no inline script, no frame, no form that leaves, no text that becomes markup. Pages hold no
data, so they are public; what they show they ask for with a key. There are no cookies anywhere,
so there is nothing to forge requests with.
"""

from __future__ import annotations

from importlib import resources
from typing import Final

from penstock.http.door import Handler
from penstock.http.exchange import Exchange
from penstock.units import Outcome

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
CONTENT_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


def static_file(package: str, name: str) -> Handler:
    """What answers with the file ``static/{name}`` of a package."""
    content = resources.files(package).joinpath("static", name).read_bytes()
    content_type = CONTENT_TYPES[name.rpartition(".")[2]]

    async def serve(exchange: Exchange) -> Outcome:
        exchange.response_headers |= {
            "content-security-policy": POLICY,
            "referrer-policy": "no-referrer",
            "cache-control": "no-cache",
        }
        await exchange.respond(200, content, content_type)
        return Outcome.SUCCESS

    return serve
