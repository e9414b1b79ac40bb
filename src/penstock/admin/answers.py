"""What the answers of this door have in common."""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.errors import CallError
from penstock.http.exchange import Exchange


class StoreUnavailable(CallError):
    """The store cannot answer now; its words are for the operator who asks."""

    status = 503
    code = "store_unavailable"


async def respond_json(exchange: Exchange, body: Any, status: int = 200) -> None:
    """A document that nobody keeps."""
    exchange.response_headers["cache-control"] = "no-store"
    await exchange.respond(status, msgspec.json.encode(body))
