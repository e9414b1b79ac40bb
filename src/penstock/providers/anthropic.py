"""Anthropic's wire: messages, and the counting of their tokens.

Charge model (Anthropic's page on rate limits, read 2026-10): token buckets, refilled
continuously. Input tokens per minute are estimated at the start and put right during the
request; ``input_tokens`` and ``cache_creation_input_tokens`` count, ``cache_read_input_tokens``
do not (Haiku 3.5 excepted). Output tokens per minute count as they are produced: ``max_tokens``
is irrelevant to them. The ``anthropic-ratelimit-*`` headers give the limit, what remains
(tokens rounded to 1,000) and, as an RFC 3339 date, when it will be full again.
``anthropic-ratelimit-tokens-*`` repeats whichever token limit is the tightest: it is read only
where the two real ones are missing.

A 429 means a rate limit (with ``retry-after``), an acceleration limit (no limit is exhausted)
or, without ``retry-after``, a spend cap: waiting does not help against that. 529 is overload.
Inside a stream an error comes as ``event: error`` after a 200.

``count_tokens`` costs nothing and has requests per minute of its own ("Token counting and message
creation have separate and independent rate limits"; docs.anthropic.com, "Token counting", read
2026-11): such calls wait in a pool of their own, which learns that limit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from penstock import __version__
from penstock.errors import UpstreamInvalid
from penstock.providers import control
from penstock.providers.base import (
    Endpoint,
    Failure,
    FailureKind,
    ParsedCall,
    StreamReader,
)
from penstock.providers.failures import (
    ErrorText,
    classify_rate,
    classify_status,
    exceeds_context,
    is_zero_limit,
    read_error,
)
from penstock.providers.header_values import (
    SECONDS_MAX,
    parse_amount,
    parse_http_date,
    parse_rfc3339,
    retry_after_seconds,
)
from penstock.providers.request import read_field, require_kind, split_fields
from penstock.providers.sse import Event
from penstock.providers.stream import EventReader, invalid_event, is_list
from penstock.units import ChargeModel, LimitName, LimitReading, Usage

VERSION_DEFAULT = "2023-06-01"

_CONTROL = frozenset(
    {
        "model",
        "messages",
        "stream",
        "max_tokens",
        "priority",
        "service_tier",
        "metadata",
        "background_options",
        "disable_fallbacks",
    }
)
_VERSION = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_BETA = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}(?:, ?[a-z0-9][a-z0-9.-]{0,63}){0,31}")
_SPENT = re.compile(r"spend|spent|billing|credit|usage limit|monthly", re.IGNORECASE)
_NO_CREDIT = "credit balance is too low"
_HEADERS_OF_LIMIT = (
    (LimitName.RPM, "requests"),
    (LimitName.ITPM, "input-tokens"),
    (LimitName.OTPM, "output-tokens"),
)
_STATUS_OF_TYPE = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_COUNT = Annotated[int, Meta(ge=0, le=10**9)]


class _Metadata(msgspec.Struct):
    user_id: msgspec.Raw = msgspec.Raw(b"null")


class _UsageWire(msgspec.Struct):
    input_tokens: _COUNT | None = None
    output_tokens: _COUNT | None = None
    cache_creation_input_tokens: _COUNT | None = None
    cache_read_input_tokens: _COUNT | None = None
    service_tier: Any = None


class _Answer(msgspec.Struct):
    content: msgspec.Raw
    usage: msgspec.Raw = msgspec.Raw()


class _Counted(msgspec.Struct):
    input_tokens: _COUNT


class _StartedMessage(msgspec.Struct):
    usage: msgspec.Raw = msgspec.Raw()


class _StreamEvent(msgspec.Struct):
    type: str
    message: _StartedMessage | None = None
    usage: msgspec.Raw = msgspec.Raw()


_METADATA = msgspec.json.Decoder(_Metadata | None)
_USAGE = msgspec.json.Decoder(_UsageWire | None)
_ANSWER = msgspec.json.Decoder(_Answer)
_COUNTED = msgspec.json.Decoder(_Counted)
_STREAM_EVENT = msgspec.json.Decoder(_StreamEvent)


class AnthropicAdapter:
    """The kind "anthropic". Keeps nothing between calls."""

    kind: str = "anthropic"
    wire: str = "anthropic"
    endpoints: frozenset[Endpoint] = frozenset({Endpoint.MESSAGES, Endpoint.COUNT_TOKENS})
    charge: ChargeModel = ChargeModel(
        output_at_admission="none", settles_input=True, cached_input_is_free=True
    )

    def catalogue(
        self,
        model: str,  # noqa: ARG002 - the contract; limits here depend on the account
    ) -> dict[LimitName, float]:
        """Nothing: what an account may use depends on its tier."""
        return {}

    def url(
        self,
        base_url: str,
        endpoint: Endpoint,
        model: str,  # noqa: ARG002 - the contract; the model stands in the body
        version: str | None,  # noqa: ARG002 - the contract; Azure's
    ) -> str:
        """Where to send a call; ``base_url`` ends before ``/v1``, as Anthropic's SDK takes it."""
        return base_url + endpoint.value

    def parse(self, endpoint: Endpoint, body: bytes) -> ParsedCall:
        """Read the control fields. Raises InvalidRequest naming the field and the rule."""
        fields = split_fields(body, _CONTROL)
        model = control.read_model(fields)
        require_kind(fields, "messages", b"[", "an array of messages")
        is_counted = endpoint is Endpoint.COUNT_TOKENS
        call = ParsedCall(
            endpoint=endpoint,
            model=model,
            stream=control.read_flag(fields, "stream") and not is_counted,
            body=body,
            fields=fields,
            tokens_output_max=control.read_tokens(fields, "max_tokens"),
            include_usage=True,  # the protocol reports usage whether asked or not
            sub_tenant=_sub_tenant(fields),
        )
        return control.with_wishes(call)

    def upstream_body(self, call: ParsedCall, model: str) -> bytes:
        """The body to send: the same bytes where nothing must change."""
        return control.with_changes(call, model, {})

    def upstream_headers(self, headers: Mapping[str, str], key: str | None) -> dict[str, str]:
        """Headers from scratch; of the caller's only a version and beta names of known form."""
        version = headers.get("anthropic-version", "")
        built = {
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "accept-encoding": "identity",
            "user-agent": f"penstock/{__version__}",
            "anthropic-version": version if _VERSION.fullmatch(version) else VERSION_DEFAULT,
        }
        beta = headers.get("anthropic-beta", "")
        if _BETA.fullmatch(beta):
            built["anthropic-beta"] = beta
        if key is not None:
            built["x-api-key"] = key
        return built

    def usage(self, call: ParsedCall, body: bytes) -> Usage | None:
        """What a whole answer reports. Raises UpstreamInvalid for an answer that is none."""
        try:
            if not body.isascii():
                body.decode()
            if call.endpoint is Endpoint.COUNT_TOKENS:
                _COUNTED.decode(body)
                return None  # what was counted was not used
            answer = _ANSWER.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise _no_message() from None
        if not is_list(answer.content):
            raise _no_message()
        return _read_usage(answer.usage, None)

    def failure_within(
        self,
        body: bytes,  # noqa: ARG002 - the contract; this kind's errors have a status of their own
    ) -> Failure | None:
        """Nothing: a 200 that is no answer is an invalid one."""
        return None

    def stream_reader(
        self,
        call: ParsedCall,  # noqa: ARG002 - the contract; this kind hides nothing
    ) -> StreamReader:
        """A reader for one streamed answer."""
        return AnthropicStreamReader()

    def limit_readings(self, headers: Mapping[str, str], wall: float) -> list[LimitReading]:
        """What ``anthropic-ratelimit-*`` says; values of no known form are absent.

        Resets are read against the answer's own ``date``; ``wall`` (Unix time) stands in.
        """
        sent = parse_http_date(headers.get("date"))
        now = wall if sent is None else sent
        named = [_read_limit(headers, limit, name, now) for limit, name in _HEADERS_OF_LIMIT]
        readings = [reading for reading in named if reading is not None]
        if not any(reading.limit in {LimitName.ITPM, LimitName.OTPM} for reading in readings):
            tightest = _read_limit(headers, LimitName.TPM, "tokens", now)
            readings += [tightest] if tightest is not None else []
        return readings

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        """What an unsuccessful answer means. ``headers`` have lower-case names."""
        return _classify(status, headers, read_error(body))


class AnthropicStreamReader(EventReader):
    """Message events, up to ``message_stop``."""

    overhead_bytes = 125  # "event: content_block_delta", type, index, text_delta

    def __init__(self) -> None:
        super().__init__()
        self._is_final = False

    @property
    def usage(self) -> Usage | None:
        """What the provider reported; until its final count, the output is what has passed."""
        reported = self._usage
        if reported is None or self._is_final:
            return reported
        output = max(reported.tokens_output, self.tokens_output_seen)
        return msgspec.structs.replace(reported, tokens_output=output)

    def _ordinary_deltas(self, ready: bytes) -> int:
        frame = b"event: content_block_delta\ndata: {"
        if not (ready.startswith(frame) and ready.endswith(b"}\n\n")):
            return 0
        events = ready.count(b"\n\n")
        return events if events == ready.count(b"}\n\n" + frame) + 1 else 0

    def _read(self, event: Event) -> bool:
        try:
            data = _STREAM_EVENT.decode(event.data or b"")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise invalid_event() from None
        if data.type == "content_block_delta":
            self._deltas += 1
        elif data.type == "message_start" and data.message is not None:
            self._usage = _read_usage(data.message.usage, self._usage)
        elif data.type == "message_delta":
            self._usage = _read_usage(data.usage, self._usage)
            self._is_final = True
        elif data.type == "message_stop":
            self.finished = True
        elif data.type == "error":
            error = read_error(event.data or b"")
            self.failure = _classify(_STATUS_OF_TYPE.get(error.type, 500), {}, error)
            return False
        return True


def _no_message() -> UpstreamInvalid:
    return UpstreamInvalid("The provider's answer is not a message.")


def _sub_tenant(fields: Mapping[str, msgspec.Raw]) -> str | None:
    metadata: _Metadata | None = read_field(fields, "metadata", _METADATA, "an object or null")
    if metadata is None:
        return None
    return control.read_sub_tenant({"metadata.user_id": metadata.user_id}, "metadata.user_id")


def _read_usage(raw: msgspec.Raw, before: Usage | None) -> Usage | None:
    """A usage report on top of an earlier one; what cannot be true changes nothing."""
    try:
        wire = _USAGE.decode(raw) if bytes(raw) else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return before
    if wire is None:
        return before
    before = before or Usage()
    if wire.input_tokens is None:  # message_delta of old versions: the output alone
        tokens_input, cached = before.tokens_input, before.tokens_input_cached
        written = before.tokens_input_written
    else:
        cached = wire.cache_read_input_tokens or 0
        written = wire.cache_creation_input_tokens or 0
        tokens_input = wire.input_tokens + written + cached
    output = before.tokens_output if wire.output_tokens is None else wire.output_tokens
    return Usage(
        tokens_input=tokens_input,
        tokens_output=output,
        tokens_input_cached=cached,
        tokens_input_written=written,
        service_tier=control.tier_said(wire.service_tier) or before.service_tier,
    )


TOKENS_ROUNDING = 1_000.0
"""Its rate-limits page: "remaining" tokens are rounded to the nearest thousand."""


def _read_limit(
    headers: Mapping[str, str], limit: LimitName, name: str, now: float
) -> LimitReading | None:
    capacity = parse_amount(headers.get(f"anthropic-ratelimit-{name}-limit")) or None
    remaining = parse_amount(headers.get(f"anthropic-ratelimit-{name}-remaining"))
    if capacity is None and remaining is None:
        return None
    full_at = parse_rfc3339(headers.get(f"anthropic-ratelimit-{name}-reset"))
    reset_seconds = None if full_at is None else min(max(full_at - now, 0.0), SECONDS_MAX)
    rounding = 1.0 if limit is LimitName.RPM else TOKENS_ROUNDING
    return LimitReading(limit, capacity, remaining, reset_seconds, rounding)


def _classify(status: int, headers: Mapping[str, str], error: ErrorText) -> Failure:
    if _NO_CREDIT in error.message or (status == 429 and is_zero_limit(error)):
        return Failure(FailureKind.FATAL)
    if error.type == "overloaded_error":
        return Failure(FailureKind.OVERLOADED, retry_after_seconds(headers))
    if status != 429:
        failure = classify_status(status, headers, error)
        if failure.kind is FailureKind.REJECTED and exceeds_context(error):
            return Failure(FailureKind.REJECTED, exceeds_context=True)
        return failure
    # Without retry-after and without a word of money it may be any proxy's 429: wait.
    if retry_after_seconds(headers) is None and _SPENT.search(error.message):
        return Failure(FailureKind.FATAL)
    return classify_rate(headers, error, _exhausted(headers))


def _exhausted(headers: Mapping[str, str]) -> LimitName | None:
    for limit, name in _HEADERS_OF_LIMIT:
        if parse_amount(headers.get(f"anthropic-ratelimit-{name}-remaining")) == 0:
            return limit
    return None
