"""What an unsuccessful answer means, as far as the kinds agree.

The status decides most; a 429 needs its body, because four things wear that number: a rate
limit (wait), a daily limit (pause the deployment), no quota at all (waiting does not help) and
a request that no waiting can make fit (the caller's fault). Texts are searched only for the
words that the providers put there themselves, in the first 4 KiB.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from penstock.providers.base import Failure, FailureKind
from penstock.providers.header_values import retry_after_seconds
from penstock.units import LimitName

_TEXT_LENGTH_MAX = 4096
_OVERLOADED = frozenset({498, 503, 529})  # 498: Groq's flex tier has no capacity
_RETRIED_4XX = frozenset({408, 409, 425})  # both vendors' SDKs retry 408 and 409
_DAY_LIMITS = (
    (re.compile(r"\bRPD\b|requests?[ _-]?per[ _-]?day", re.IGNORECASE), LimitName.RPD),
    (re.compile(r"\bTPD\b|tokens?[ _-]?per[ _-]?day", re.IGNORECASE), LimitName.TPD),
)
_NAMED_LIMITS = (
    (re.compile(r"\bITPM\b|input[- ]tokens? per minute", re.IGNORECASE), LimitName.ITPM),
    (re.compile(r"\bOTPM\b|output[- ]tokens? per minute", re.IGNORECASE), LimitName.OTPM),
    (re.compile(r"\bTPM\b|tokens? per min|token rate limit", re.IGNORECASE), LimitName.TPM),
    *_DAY_LIMITS,
    (
        re.compile(r"\bRPM\b|requests? per min|call rate limit|number of requests", re.IGNORECASE),
        LimitName.RPM,
    ),
    (re.compile(r"concurren", re.IGNORECASE), LimitName.CONCURRENCY),
)
_PER_DAY = re.compile(r"per[ _-]?day|\bRPD\b|\bTPD\b|daily", re.IGNORECASE)
_TOO_LONG = re.compile(
    r"context[ _]length|context window|prompt is too long|too many tokens"
    r"|exceeds? the maximum number of (?:input )?tokens|too large for model"
    r"|reduce the length of the (?:messages|prompt|input)",
    re.IGNORECASE,
)
_ZERO_LIMIT = re.compile(r"\blimit:? 0(?![\d.])", re.IGNORECASE)


class ErrorText(msgspec.Struct, frozen=True):
    """The words of an error body; empty where there are none."""

    message: str = ""
    type: str = ""
    code: str = ""
    raw: str = ""  # the body's beginning, for what stands in no common place


class _Detail(msgspec.Struct):
    message: Any = None
    type: Any = None
    code: Any = None
    status: Any = None


class _Envelope(msgspec.Struct):
    error: _Detail | str | None = None


_ONE = msgspec.json.Decoder(_Envelope)
_LIST = msgspec.json.Decoder(list[_Envelope])  # Gemini's OpenAI-compatible endpoint


def read_error(body: bytes) -> ErrorText:
    """The ``error`` object of a body; anything else is an error without words."""
    raw = body[:_TEXT_LENGTH_MAX].decode("utf-8", "replace")
    try:
        if body.lstrip()[:1] == b"[":
            envelopes = _LIST.decode(body)
            detail = envelopes[0].error if envelopes else None
        else:
            detail = _ONE.decode(body).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        return ErrorText(raw=raw)
    if detail is None or isinstance(detail, str):
        return ErrorText(message=(detail or "")[:_TEXT_LENGTH_MAX], raw=raw)
    return ErrorText(
        message=_text(detail.message),
        type=_text(detail.type) or _text(detail.status),
        code=_text(detail.code),
        raw=raw,
    )


def classify_status(status: int, headers: Mapping[str, str], error: ErrorText) -> Failure:
    """What a status other than 429 means. A redirect is never followed, nor passed on."""
    if status in {401, 403}:
        return Failure(FailureKind.AUTH)
    if status == 402:
        return Failure(FailureKind.FATAL)
    wait_seconds = retry_after_seconds(headers, error.message)
    if status in _OVERLOADED:
        return Failure(FailureKind.OVERLOADED, wait_seconds)
    if 400 <= status < 500 and status not in _RETRIED_4XX:
        return Failure(FailureKind.REJECTED)
    return Failure(FailureKind.UNAVAILABLE, wait_seconds)


def classify_rate(
    headers: Mapping[str, str], error: ErrorText, limit: LimitName | None = None
) -> Failure:
    """A limit that waiting helps against; ``limit`` is the one named outside the text."""
    wait_seconds = retry_after_seconds(headers, error.message)
    named = named_limit(error.message) or limit
    if _PER_DAY.search(error.message) or _PER_DAY.search(error.raw):
        text = f"{error.message}\n{error.raw}"
        days = (name for pattern, name in _DAY_LIMITS if pattern.search(text))
        return Failure(FailureKind.DAY, wait_seconds, next(days, None))
    return Failure(FailureKind.RATE, wait_seconds, named)


def named_limit(message: str) -> LimitName | None:
    """The limit that a message names, if it names one that we know."""
    for pattern, limit in _NAMED_LIMITS:
        if pattern.search(message):
            return limit
    return None


def exceeds_context(error: ErrorText) -> bool:
    """Whether a refused call was too long for the model: another one may have a larger context.

    OpenAI, Groq and OpenRouter have a code for it, the others only words: Anthropic "prompt is
    too long", vLLM "maximum context length", Mistral "too large for model", Gemini "exceeds the
    maximum number of tokens allowed".
    """
    return error.code == "context_length_exceeded" or _TOO_LONG.search(error.message) is not None


def is_zero_limit(error: ErrorText) -> bool:
    """Whether there is no quota at all: a limit of 0 never refills."""
    return _ZERO_LIMIT.search(error.message) is not None


def _text(value: object) -> str:
    if isinstance(value, str):
        return value[:_TEXT_LENGTH_MAX]
    return str(value) if isinstance(value, int) and abs(value) < 10**9 else ""
