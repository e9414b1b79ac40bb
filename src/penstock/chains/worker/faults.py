"""What goes wrong in a run, turned into what its caller may be told.

An exception's text may hold secrets or another caller's data, so it goes to the log under the
request's id, and the caller gets the id. Two kinds of exception are different: one that refuses
the input (told in full, without the input's values), and one in which an SDK reports the
gateway's own answer: its status, reason and ``Retry-After`` are written for the caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from penstock.errors import (
    CallError,
    ChainFailed,
    InvalidRequest,
    Unprocessable,
    UpstreamError,
    UpstreamUnavailable,
)
from penstock.units import Outcome

DETAILS_MAX = 32
TEXT_CHARACTERS_MAX = 1000
CAUSES_MAX = 8

SHOULD_RETRY: Mapping[str, bool] = {"true": True, "false": False}


class LimitReached(UpstreamError):
    """An LLM call of the chain was refused for a limit; the gateway's own words say which."""

    status = 429
    outcome = Outcome.UPSTREAM_RATE_LIMITED
    type = "rate_limit_error"
    code = "rate_limited"


PASSED_ON: Mapping[int, type[CallError]] = {
    400: InvalidRequest,
    402: InvalidRequest,
    413: InvalidRequest,
    422: InvalidRequest,
    429: LimitReached,
    500: UpstreamUnavailable,
    502: UpstreamUnavailable,
    503: UpstreamUnavailable,
    504: UpstreamUnavailable,
    529: UpstreamUnavailable,
}
"""Statuses of an LLM call that say something to the caller of the chain. The others (401, 404)
say that the chain is wrong, which is the operator's matter."""

VALIDATORS_OWN = frozenset({"value_error", "assertion_error"})
"""pydantic's types for an exception of the chain's own validator, whose text may hold anything."""


class InvalidInput(Unprocessable):
    """The request does not fit the chain; ``details`` is what LangServe puts in ``detail``."""

    def __init__(self, message: str, details: list[dict[str, Any]] | None = None) -> None:
        super().__init__(message)
        self.details: list[dict[str, Any]] | str = details or message

    @classmethod
    def missing(cls, field: str) -> InvalidInput:
        """A field of the body that must be there."""
        detail = {"type": "missing", "loc": [field], "msg": "Field required"}
        return cls(f"the body must have the field {field!r}", [detail])

    @classmethod
    def invalid_json(cls) -> InvalidInput:
        """A body that is no JSON, in the words that LangServe's callers know."""
        detail = {"type": "json_invalid", "loc": [], "msg": "Invalid JSON body"}
        return cls("Invalid JSON body", [detail])

    @classmethod
    def of(cls, error: ValidationError, prefix: tuple[str | int, ...] = ()) -> InvalidInput:
        """pydantic's findings without the input's values, at most 32 of them."""
        found = error.errors(include_url=False, include_context=False, include_input=False)
        details = [
            {
                "type": one["type"],
                "loc": [_short(part) for part in (*prefix, *one["loc"])],
                "msg": "refused by the chain's own validator"
                if one["type"] in VALIDATORS_OWN
                else one["msg"],
            }
            for one in found[:DETAILS_MAX]
        ]
        first = details[0]
        place = ".".join(str(part) for part in first["loc"]) or "input"
        message = f"the input does not fit the chain's schema: {place}: {first['msg']}"
        return cls(message, details)


class ChainTimedOut(ChainFailed):
    """The run took longer than the chain's ``timeout_seconds``."""

    status = 504
    code = "chain_timeout"


class ChainNotLoaded(ChainFailed):
    """The chain could not be imported when its worker started."""

    status = 503
    code = "chain_not_loaded"


def call_error(error: BaseException, gateway_url: str, request_id: str) -> CallError:
    """What the caller is told of ``error``; a ChainFailed is to be logged by whoever asks."""
    if isinstance(error, CallError):
        return error
    cause: BaseException | None = error
    for _ in range(CAUSES_MAX):
        if cause is None:
            break
        told = _told_by_gateway(cause, gateway_url)
        if told is not None:
            return told
        cause = cause.__cause__
    return ChainFailed(f"the chain failed; the log has the rest under request id {request_id}")


def _told_by_gateway(error: BaseException, gateway_url: str) -> CallError | None:
    status = getattr(error, "status_code", None)
    response = getattr(error, "response", None)
    request = getattr(response, "request", None)
    if not isinstance(status, int) or status not in PASSED_ON or response is None:
        return None
    if not str(getattr(request, "url", "")).startswith(gateway_url.rstrip("/") + "/"):
        return None
    body = getattr(error, "body", None)
    # openai unwraps {"error": …} for its exceptions, anthropic does not.
    inner = body.get("error", body) if isinstance(body, dict) else {}
    inner = inner if isinstance(inner, dict) else {}
    reason = inner.get("message")
    code = inner.get("code")
    told = PASSED_ON[status](
        str(reason)[:TEXT_CHARACTERS_MAX] if reason else f"the LLM call was answered {status}",
        status=502 if status == 500 else 503 if status == 529 else status,
        code=code if isinstance(code, str) else None,
        retry_after_seconds=_retry_after_seconds(response.headers),
    )
    told.should_retry = SHOULD_RETRY.get(response.headers.get("x-should-retry", ""))
    return told


def _retry_after_seconds(headers: Any) -> float | None:
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * scale
        except ValueError:
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    return None


def _short(part: str | int) -> str | int:
    return part if isinstance(part, int) else part[:64]
