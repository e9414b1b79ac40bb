"""An error in a stream that has begun: its status is 200, so each protocol says it in its own way.

Chat ``data: {"error": …}``, messages ``event: error``, responses ``response.failed`` (after a
``response.created`` where nothing has come yet: the SDK's helpers take nothing else first). Never
the protocol's good end.
"""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.errors import CallError, UpstreamRejected
from penstock.http.door import ErrorShape
from penstock.http.error_body import document
from penstock.http.sse import event
from penstock.providers import responses
from penstock.providers.base import Endpoint
from penstock.providers.registry import READERS


class _Refusal(msgspec.Struct):
    error: Any = None


def late_error(
    error: CallError, endpoint: Endpoint, request_id: str, response_id: str | None, events_seen: int
) -> bytes:
    """The event or events that end the stream. ``response_id``: as the provider named it."""
    if isinstance(error, UpstreamRejected) and error.event:
        return error.event
    refusal = _refusal(error)
    if endpoint is Endpoint.RESPONSES:
        said = refusal.error.get("message") if refusal is not None else None
        message = said if isinstance(said, str) else error.message
        begun = b"" if events_seen else responses.created_event()
        number = events_seen or 1
        return begun + responses.failed_event(response_id, number, error.code, message)
    is_anthropic = READERS[endpoint].wire == "anthropic"
    name = "error" if is_anthropic else None
    if refusal is not None and isinstance(error, UpstreamRejected) and error.body is not None:
        return event(name, error.body)
    shape = ErrorShape.ANTHROPIC if is_anthropic else ErrorShape.OPENAI
    return event(name, msgspec.json.encode(document(error, shape, request_id)))


def _refusal(error: CallError) -> _Refusal | None:
    """The provider's refusal of a call, where it has the form that clients look for."""
    if not isinstance(error, UpstreamRejected) or error.body is None:
        return None
    try:
        refusal = msgspec.json.decode(error.body, type=_Refusal)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return refusal if isinstance(refusal.error, dict) else None
