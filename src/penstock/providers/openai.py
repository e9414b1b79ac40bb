"""OpenAI's wire: chat, text completions, embeddings; the base of all who speak the same.

``/v1/responses`` is read in ``responses``; what a provider does differently stands in a module of
its own (``azure``, ``groq``, ``mistral``, …), as data and a few methods over this adapter.

Charge model (OpenAI's guide on rate limits, read 2026-10): a request is charged at admission
with the larger of its ``max_tokens`` and an estimate from its character count; failed requests
count too; neither a refund of unused ``max_tokens`` nor an effect of cached tokens on the
limits is documented, so both are taken as absent. ``x-ratelimit-reset-*`` is the time until a
limit is *full* again, not until the next call fits. The 429 texts ("tokens per min (TPM)",
"Please try again in 6ms") are from captured answers; Azure's "exceeded token rate limit …
Please retry after 6 seconds" likewise.

The per-project ``x-ratelimit-*-project-tokens`` are not read: they would be a second limit of
one name. Errors are read as all of this family write them (a list around them, a status as their
``code``), so that a provider behind the general kind is understood, too.

Streams: real OpenAI adds ``"usage": null`` to every chunk and one chunk with empty ``choices``
and the usage once ``stream_options.include_usage`` is set. Where only we asked, both are taken
out again.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from penstock import __version__
from penstock.errors import UpstreamInvalid
from penstock.providers import control, responses
from penstock.providers.base import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    RESPONSES,
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
from penstock.providers.header_values import parse_amount, parse_duration
from penstock.providers.request import join_fields, read_field, require_kind, split_fields
from penstock.providers.sse import Event
from penstock.providers.stream import Classify, EventReader, has_items, invalid_event, is_list
from penstock.units import ChargeModel, LimitName, LimitReading, Usage

_CONTROL = frozenset(
    {
        "model", "messages", "input", "prompt", "stream", "stream_options", "max_tokens",
        "max_completion_tokens", "n", "best_of", "priority", "service_tier", "user",
        "safety_identifier", "prompt_cache_key", "disable_fallbacks", "metadata",
        "background_options",
    }
)  # fmt: skip
_PROMPTS = {
    CHAT: ("messages", b"[", "an array of messages"),
    COMPLETIONS: ("prompt", b'"[', "a string or an array"),
    EMBEDDINGS: ("input", b'"[', "a string or an array"),
}
"""Where the prompt of an endpoint stands, how its JSON may begin, and the rule in words."""
_HEADERS = {
    "content-type": "application/json",
    "accept": "application/json, text/event-stream",
    "accept-encoding": "identity",
    "user-agent": f"penstock/{__version__}",
}
_NO_USAGE = b'"usage":null'
_NO_QUOTA = frozenset(
    {"insufficient_quota", "billing_not_active", "billing_hard_limit_reached", "access_terminated"}
)
_LIMIT_OF_TYPE = {"tokens": LimitName.TPM, "requests": LimitName.RPM}
_STATUS_OF_TYPE = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "insufficient_quota": 429,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "tokens": 429,
    "requests": 429,
    "overloaded_error": 503,
}
_COUNT = Annotated[int, Meta(ge=0, le=10**9)]


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _PromptDetails(msgspec.Struct):
    cached_tokens: _COUNT | None = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: _COUNT | None = None


class _UsageWire(msgspec.Struct):
    prompt_tokens: _COUNT
    completion_tokens: _COUNT | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _Answer(msgspec.Struct):
    choices: msgspec.Raw = msgspec.Raw()
    data: msgspec.Raw = msgspec.Raw()
    usage: msgspec.Raw = msgspec.Raw()
    service_tier: Any = None


class _Chunk(msgspec.Struct):
    choices: msgspec.Raw = msgspec.Raw()
    usage: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()
    service_tier: Any = None


_STREAM_OPTIONS = msgspec.json.Decoder(_StreamOptions | None)
_STREAM_OPTIONS_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)
_USAGE = msgspec.json.Decoder(_UsageWire)
_ANSWER = msgspec.json.Decoder(_Answer)
_CHUNK = msgspec.json.Decoder(_Chunk)


class OpenAIAdapter:
    """The kind "openai". Keeps nothing between calls."""

    kind: str = "openai"
    wire: str = "openai"
    endpoints: frozenset[Endpoint] = frozenset((CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES))
    charge: ChargeModel = ChargeModel(output_at_admission="maximum")
    limit_headers: tuple[tuple[LimitName, str], ...] = (
        (LimitName.RPM, "requests"),
        (LimitName.TPM, "tokens"),
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
        """Where to send a call; ``base_url`` ends where the calls begin (``https://host/v1``)."""
        return base_url + endpoint.removeprefix("/v1")

    def parse(self, endpoint: Endpoint, body: bytes) -> ParsedCall:
        """Read the control fields. Raises InvalidRequest naming the field and the rule."""
        if endpoint is RESPONSES:
            return responses.parse(body)
        fields = split_fields(body, _CONTROL)
        model = control.read_model(fields)
        require_kind(fields, *_PROMPTS[endpoint])
        if endpoint is EMBEDDINGS:
            call = ParsedCall(endpoint, model, stream=False, body=body, fields=fields)
            return control.with_wishes(call)
        options: _StreamOptions | None = read_field(
            fields,
            "stream_options",
            _STREAM_OPTIONS,
            "an object whose 'include_usage' is true or false, or null",
        )
        call = ParsedCall(
            endpoint,
            model,
            stream=control.read_flag(fields, "stream"),
            body=body,
            fields=fields,
            tokens_output_max=_tokens_output_max(fields),
            choices=_choices(fields),
            include_usage=bool(options and options.include_usage),
        )
        return control.with_wishes(call)

    def upstream_body(self, call: ParsedCall, model: str) -> bytes:
        """The body to send: the same bytes where nothing must change."""
        changed: dict[str, bytes] = {}
        if call.endpoint is RESPONSES:
            changed |= responses.changes(call)
        elif call.stream and not call.include_usage:
            changed["stream_options"] = _with_usage(call.fields)
        return control.with_changes(call, model, changed)

    def upstream_headers(
        self,
        headers: Mapping[str, str],  # noqa: ARG002 - the contract; this kind passes none on
        key: str | None,
    ) -> Mapping[str, str]:
        """Headers from scratch: nothing of the caller's goes to the provider."""
        return _HEADERS if key is None else _HEADERS | self._key_header(key)

    def _key_header(self, key: str) -> dict[str, str]:
        return {"authorization": f"Bearer {key}"}

    def usage(self, call: ParsedCall, body: bytes) -> Usage | None:
        """What a whole answer reports. Raises UpstreamInvalid for an answer that is none."""
        if call.endpoint is RESPONSES:
            return responses.usage(body)
        answer = _decode_answer(body)
        items = answer.data if call.endpoint is EMBEDDINGS else answer.choices
        if not has_items(items):
            missing = "data" if call.endpoint is EMBEDDINGS else "choices"
            raise UpstreamInvalid(f"The provider's answer has no {missing}.")
        return _read_usage(answer.usage, answer.service_tier)

    def failure_within(
        self,
        body: bytes,  # noqa: ARG002 - the contract; this kind's errors have a status of their own
    ) -> Failure | None:
        """Nothing: a 200 that is no answer is an invalid one."""
        return None

    def stream_reader(self, call: ParsedCall) -> StreamReader:
        """A reader for one streamed answer."""
        if call.endpoint is RESPONSES:
            return responses.ResponsesReader(self.classify_error)
        return OpenAIStreamReader(self.classify_error, hide_usage=not call.include_usage)

    def limit_readings(
        self,
        headers: Mapping[str, str],
        wall: float,  # noqa: ARG002 - the contract; this kind writes durations, not dates
    ) -> list[LimitReading]:
        """What ``x-ratelimit-*`` says; values of no known form are absent."""
        readings = []
        for limit, name in self.limit_headers:
            limit_header, remaining_header, reset_header = _rate_headers(name)
            capacity = parse_amount(headers.get(limit_header)) or None
            remaining = parse_amount(headers.get(remaining_header))
            if capacity is not None or remaining is not None:
                reset_seconds = parse_duration(headers.get(reset_header))
                readings.append(LimitReading(limit, capacity, remaining, reset_seconds))
        return readings

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        """What an unsuccessful answer means. ``headers`` have lower-case names."""
        return self.classify_error(status, headers, read_error(body))

    def classify_error(self, status: int, headers: Mapping[str, str], error: ErrorText) -> Failure:
        """The same of an error that has been read; status 0: inside a stream."""
        status = status or _status_in_stream(error)
        if status == 429 and "resource_unavailable" in (error.code, error.type):
            # OpenAI's guide "Flex processing": that tier has no capacity; no limit is used up.
            status = 503
        if error.type in _NO_QUOTA or error.code in _NO_QUOTA:
            return Failure(FailureKind.FATAL)
        if status != 429:
            failure = classify_status(status, headers, error)
            if failure.kind is FailureKind.REJECTED and exceeds_context(error):
                return Failure(FailureKind.REJECTED, exceeds_context=True)
            return failure
        if is_zero_limit(error):
            return Failure(FailureKind.FATAL)
        if error.message.startswith("Request too large"):
            return Failure(FailureKind.REJECTED, exceeds_context=True)
        return classify_rate(headers, error, _LIMIT_OF_TYPE.get(error.type))


class OpenAIStreamReader(EventReader):
    """Chat chunks, up to ``data: [DONE]``."""

    overhead_bytes = 400  # ids, fingerprint, obfuscation: a chunk of one token weighs 150 to 350

    def __init__(self, classify: Classify, *, hide_usage: bool) -> None:
        super().__init__()
        self._classify = classify
        self._hide_usage = hide_usage
        self._has_nulls = False

    def _ordinary_deltas(self, ready: bytes) -> int:
        if not (ready.startswith(b"data: {") and ready.endswith(b"}\n\n")):
            return 0
        events = ready.count(b"\n\n")
        if events > 1 and events != ready.count(b"}\n\ndata: {") + 1:
            return 0
        if ready.find(b'"error"') >= 0:
            return 0
        # A quote inside a text is escaped, so these quotes are those of a field's name.
        usages = ready.count(b'"usage"')
        if usages == 0:
            return events
        self._has_nulls = True
        return events if usages == ready.count(_NO_USAGE) else 0

    def _read(self, event: Event) -> bool:
        if event.data == b"[DONE]":
            if self._deltas == 0:
                raise UpstreamInvalid("The provider's stream ended without any choice.")
            self.finished = True
            return True
        try:
            chunk = _CHUNK.decode(event.data or b"")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise invalid_event() from None
        if _is_given(chunk.error):
            error = read_error(event.data or b"")
            self.failure = self._classify(0, {}, error)
            return False
        usage = _read_usage(chunk.usage, chunk.service_tier)
        self._usage = usage or self._usage
        self._has_nulls |= usage is None and (event.data or b"").find(_NO_USAGE) >= 0
        if has_items(chunk.choices):
            self._deltas += 1
            return True
        if _is_given(chunk.choices) and not is_list(chunk.choices):
            raise invalid_event()
        return usage is None or not self._hide_usage

    def _trimmed(self, passed: bytes) -> bytes:
        if self._hide_usage and self._has_nulls:
            return passed.replace(b"," + _NO_USAGE, b"")
        return passed


@cache
def _rate_headers(name: str) -> tuple[str, str, str]:
    """What a provider says of one limit: how much it is, what is left, when it is full again."""
    return f"x-ratelimit-limit-{name}", f"x-ratelimit-remaining-{name}", f"x-ratelimit-reset-{name}"


def _choices(fields: Mapping[str, msgspec.Raw]) -> int:
    asked = control.read_choices(fields)
    return max(asked, control.read_choices(fields, "best_of")) if "best_of" in fields else asked


def _tokens_output_max(fields: Mapping[str, msgspec.Raw]) -> int | None:
    newer = control.read_tokens(fields, "max_completion_tokens")
    older = control.read_tokens(fields, "max_tokens")
    if newer is None or older is None:
        return older if newer is None else newer
    return max(newer, older)  # which of them counts is the provider's choice: plan for the worse


def _with_usage(fields: Mapping[str, msgspec.Raw]) -> bytes:
    raw = fields.get("stream_options")
    options: dict[str, bytes | msgspec.Raw] = {}
    if raw is not None:
        options.update(_STREAM_OPTIONS_FIELDS.decode(raw) or {})
    options["include_usage"] = b"true"
    return join_fields(options)


def _decode_answer(body: bytes) -> _Answer:
    try:
        if not body.isascii():
            body.decode()
        return _ANSWER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UpstreamInvalid("The provider's answer is not the JSON of its protocol.") from None


def _is_given(raw: msgspec.Raw) -> bool:
    return bytes(raw) not in {b"", b"null"}


def _read_usage(raw: msgspec.Raw, service_tier: object) -> Usage | None:
    """A usage report; None where there is none, or one that cannot be true."""
    if not _is_given(raw):
        return None
    try:
        wire = _USAGE.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    prompt, completion = wire.prompt_tokens_details, wire.completion_tokens_details
    cached = (prompt.cached_tokens if prompt else None) or 0
    return Usage(
        tokens_input=wire.prompt_tokens,
        tokens_output=wire.completion_tokens or 0,
        tokens_input_cached=min(cached, wire.prompt_tokens),
        tokens_reasoning=(completion.reasoning_tokens if completion else None) or 0,
        service_tier=control.tier_said(service_tier),
    )


def _status_in_stream(error: ErrorText) -> int:
    if error.code.isdecimal() and 400 <= int(error.code) < 600:
        return int(error.code)
    return _STATUS_OF_TYPE.get(error.code) or _STATUS_OF_TYPE.get(error.type, 500)
