"""The query of an admin request, read strictly: what is not known is refused, not ignored."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import parse_qsl

from penstock.errors import InvalidRequest
from penstock.http.exchange import Exchange

_FIELDS_MAX = 20


def query_of(exchange: Exchange, known: Collection[str]) -> dict[str, str]:
    """Each parameter once. Raises InvalidRequest."""
    try:
        text = exchange.scope.get("query_string", b"").decode("ascii")
        pairs = parse_qsl(
            text, keep_blank_values=True, strict_parsing=bool(text), max_num_fields=_FIELDS_MAX
        )
    except ValueError:
        raise InvalidRequest("The query is not of the form name=value&name=value.") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            raise InvalidRequest(
                f"This query parameter is not known; there are: {', '.join(sorted(known))}."
            )
        if name in found:
            raise InvalidRequest(f"The query names '{name}' twice.", param=name)
        found[name] = value
    return found
