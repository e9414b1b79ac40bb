"""An error in the shape that the caller's protocol expects, with the headers that go with it.

One body serves everyone but Anthropic's clients: an RFC 9457 problem that also holds the
``error`` object which the OpenAI SDKs read. Anthropic's top level has a ``type`` of its own, so
there the problem's URI stands in ``problem_type``. The SDKs of both retry 408, 409, 429 and 5xx
by themselves and listen to ``x-should-retry`` and ``retry-after-ms``; everyone else listens to
``Retry-After``, so each is given what it reads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum, auto
from typing import Any, Final

import msgspec

from penstock.errors import (
    BudgetExceeded,
    CallError,
    DeadlineUnreachable,
    Draining,
    QueueFull,
    Unauthenticated,
    UpstreamRejected,
)


class ErrorShape(Enum):
    """Whose clients read the error."""

    OPENAI = auto()  # a problem with the SDKs' ``error`` object in it
    ANTHROPIC = auto()
    PROBLEM = auto()  # RFC 9457 alone


PROBLEM_CONTENT_TYPE: Final = "application/problem+json"
MESSAGE_CHARACTERS_MAX: Final = 2000
RETRY_SECONDS_DEFAULT: Final = 1.0
"""When a refusal that passes by itself names no time of its own."""
JITTER_SHARE: Final = 0.25
"""How much longer than asked the last of many refused callers is told to stay away."""

_ANTHROPIC_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def render(
    error: CallError, shape: ErrorShape, request_id: str, *, jitter: float = 0.0
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (lower-case, with ``content-type``) and body of an error.

    ``jitter`` in [0, 1] spreads callers that are told to come back; the caller draws it.
    """
    headers = _retry_headers(error, jitter)
    if isinstance(error, UpstreamRejected) and error.body is not None:
        headers["content-type"] = "application/json"
        return error.status, headers, error.body
    body = document(error, shape, request_id)
    if shape is ErrorShape.ANTHROPIC:
        headers["content-type"] = "application/json"
    else:
        headers["content-type"] = PROBLEM_CONTENT_TYPE
    if isinstance(error, Unauthenticated):
        headers["www-authenticate"] = 'Bearer realm="penstock"'
    return error.status, headers, msgspec.json.encode(body)


def shape_for(headers: Mapping[str, str]) -> ErrorShape:
    """The shape for whoever asks: Anthropic's SDKs say their API's version in every request."""
    return ErrorShape.ANTHROPIC if "anthropic-version" in headers else ErrorShape.OPENAI


def document(error: CallError, shape: ErrorShape, request_id: str) -> dict[str, Any]:
    """The body as plain data: what a late error inside a stream is made of, too."""
    message = _clean(error.message)
    uri = f"urn:penstock:error:{error.code}"
    problem: dict[str, Any] = {
        "title": error.code.replace("_", " ").capitalize(),
        "status": error.status,
        "detail": message,
        "instance": request_id,
    }
    if isinstance(error, DeadlineUnreachable) and error.eta_seconds is not None:
        problem["eta_seconds"] = round(error.eta_seconds, 3)
    if isinstance(error, BudgetExceeded) and error.resets_at is not None:
        problem["resets_at"] = round(error.resets_at)
    if shape is ErrorShape.ANTHROPIC:
        kind = _ANTHROPIC_TYPES.get(error.status, _family(error.status))
        return {
            "type": "error",
            "error": {"type": kind, "message": message},
            "request_id": request_id,
            "problem_type": uri,
            **problem,
        }
    if shape is ErrorShape.OPENAI:
        problem["error"] = {
            "message": message,
            "type": error.type,
            "param": None if error.param is None else _clean(error.param),
            "code": error.code,
        }
    return {"type": uri, **problem}


def _family(status: int) -> str:
    return "invalid_request_error" if status < 500 else "api_error"


def _retry_headers(error: CallError, jitter: float) -> dict[str, str]:
    headers = {}
    if error.should_retry is not None:
        headers["x-should-retry"] = "true" if error.should_retry else "false"
    delay = error.retry_after_seconds
    if delay is None and isinstance(error, QueueFull | Draining):
        delay = RETRY_SECONDS_DEFAULT
    if delay is None or error.should_retry is False or not math.isfinite(delay):
        return headers
    if isinstance(error, QueueFull | Draining):
        delay *= 1 + JITTER_SHARE * min(max(jitter, 0.0), 1.0)
    milliseconds = max(1, math.ceil(delay * 1000))
    headers["retry-after-ms"] = str(milliseconds)
    headers["retry-after"] = str(math.ceil(milliseconds / 1000))
    return headers


def _clean(text: str) -> str:
    """Bounded, and encodable: a lone surrogate in a name must not turn an error into another."""
    return text[:MESSAGE_CHARACTERS_MAX].encode("utf-8", "backslashreplace").decode("utf-8")
