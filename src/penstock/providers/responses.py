"""OpenAI's Responses API, as far as a call and its answer go (``/v1/responses``).

Source: OpenAI's API reference, "Responses" and "Responses streaming events", and the types of its
SDK (3.54). A stream's events are named, numbered (``sequence_number`` from 0) and end with
``response.completed``, ``response.incomplete`` or ``response.failed``; there is no ``[DONE]``,
though some who speak the same send one. Usage stands in the last event. Each of the events that
frame an answer repeats the whole response, instructions and tools included, in one line: the
caps on lines and events are those of a whole answer in a stream, wider than a chat chunk's.

``background`` is not sent on: the wait happens here. ``conversation`` names state that the
provider keeps for the one key that all tenants share, so it is refused; ``previous_response_id``
does, too, and passes only to those who own that response (the gateway's matter).
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from penstock.errors import NotServed, UpstreamInvalid
from penstock.providers import control
from penstock.providers.base import Endpoint, ParsedCall
from penstock.providers.failures import ErrorText
from penstock.providers.request import read_field, require_kind, split_fields
from penstock.providers.sse import Event
from penstock.providers.stream import Classify, EventReader, invalid_event, is_list
from penstock.units import Usage

EVENT_BYTES_MAX = 16 * 1024 * 1024
RESPONSE_ID_LENGTH_MAX = 128

_CONTROL = frozenset(
    {
        "model", "input", "stream", "max_output_tokens", "background", "conversation",
        "previous_response_id", "priority", "service_tier", "user", "safety_identifier",
        "prompt_cache_key", "disable_fallbacks", "metadata", "background_options",
    }
)  # fmt: skip
_STATUS_OF_CODE = {
    "server_error": 500,
    "vector_store_timeout": 500,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "overloaded_error": 503,
    "service_unavailable": 503,
    "timeout": 504,
}
_ENDS = frozenset({"response.completed", "response.incomplete"})
_COUNT = Annotated[int, Meta(ge=0, le=10**9)]
_RESPONSE_ID = msgspec.json.Decoder(
    Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:-]{1,128}\Z")] | None
)


class _InputDetails(msgspec.Struct):
    cached_tokens: _COUNT | None = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: _COUNT | None = None


class _UsageWire(msgspec.Struct):
    input_tokens: _COUNT
    output_tokens: _COUNT | None = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


class _Error(msgspec.Struct):
    code: Any = None
    message: Any = None


class _Answer(msgspec.Struct):
    id: Any = None
    output: msgspec.Raw = msgspec.Raw()
    usage: msgspec.Raw = msgspec.Raw()
    error: _Error | None = None
    service_tier: Any = None


class _StreamEvent(msgspec.Struct):
    type: str
    response: msgspec.Raw = msgspec.Raw()
    error: _Error | None = None
    code: Any = None
    message: Any = None


_OWN: dict[str, Any] = {
    "id": "resp_unknown",
    "object": "response",
    "created_at": 0,
    "incomplete_details": None,
    "model": "",
    "output": [],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
}
"""What a response of ours says, where its provider has said nothing."""

_USAGE = msgspec.json.Decoder(_UsageWire | None)
_ANSWER = msgspec.json.Decoder(_Answer)
_STREAM_EVENT = msgspec.json.Decoder(_StreamEvent)


def parse(body: bytes) -> ParsedCall:
    """Read the control fields. Raises InvalidRequest naming the field and the rule, NotServed."""
    fields = split_fields(body, _CONTROL)
    model = control.read_model(fields)
    require_kind(fields, "input", b'"[', "a string or an array of items")
    if bytes(fields.get("conversation", b"null")) != b"null":
        raise NotServed(
            "'conversation' is not served: send the items, or 'previous_response_id'.",
            param="conversation",
        )
    call = ParsedCall(
        endpoint=Endpoint.RESPONSES,
        model=model,
        stream=control.read_flag(fields, "stream"),
        body=body,
        fields=fields,
        tokens_output_max=control.read_tokens(fields, "max_output_tokens"),
        include_usage=True,  # the protocol reports usage whether asked or not
        background=control.read_flag(fields, "background"),
        previous_response_id=read_field(
            fields, "previous_response_id", _RESPONSE_ID, "the id of a response, or null"
        ),
    )
    return control.with_wishes(call)


def changes(call: ParsedCall) -> dict[str, bytes]:
    """The fields to set before sending: the provider's own id of the response before."""
    raw = call.fields.get("previous_response_id")
    wanted = msgspec.json.encode(call.previous_response_id)
    return {} if raw is None or bytes(raw) == wanted else {"previous_response_id": wanted}


def usage(body: bytes) -> Usage | None:
    """What a whole answer reports. Raises UpstreamInvalid for an answer that is none."""
    answer = _decoded(body)
    if not is_list(answer.output):
        raise UpstreamInvalid("The provider's answer has no output.")
    return _read_usage(answer)


def response_id(body: bytes) -> str | None:
    """The id of a whole answer that ``usage`` has accepted."""
    return _known_id(_decoded(body).id)


def created_event() -> bytes:
    """The first event of a stream whose provider has said nothing."""
    return _own_event("response.created", 0, {**_OWN, "status": "in_progress", "error": None})


def failed_event(named: str | None, sequence_number: int, code: str, message: str) -> bytes:
    """The protocol's own end for a stream that cannot go on."""
    known = {"server_error", "rate_limit_exceeded"}
    error = {"code": code if code in known else "server_error", "message": message}
    response = {**_OWN, "id": named or _OWN["id"], "status": "failed", "error": error}
    return _own_event("response.failed", sequence_number, response)


def _own_event(name: str, sequence_number: int, response: dict[str, Any]) -> bytes:
    data = {"type": name, "sequence_number": sequence_number, "response": response}
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(data))


class ResponsesReader(EventReader):
    """The events of one response, up to its end."""

    overhead_bytes = 300  # type, item id, indexes, logprobs, obfuscation
    line_bytes_max = EVENT_BYTES_MAX
    event_bytes_max = EVENT_BYTES_MAX

    def __init__(self, classify: Classify) -> None:
        super().__init__()
        self._classify = classify
        self._response_id: str | None = None
        self._events_seen = 0
        self._error = _Error()

    @property
    def response_id(self) -> str | None:
        """The provider's id of this response, once it has been said."""
        return self._response_id

    @property
    def events_seen(self) -> int:
        """How many events have passed: the next one's ``sequence_number``."""
        return self._events_seen

    @property
    def failure_body(self) -> bytes:
        """The failure as the body of an answer that has not begun."""
        error = {"message": _text(self._error.message), "type": "invalid_request_error"}
        code = _text(self._error.code)
        return msgspec.json.encode({"error": {**error, "param": None, "code": code or None}})

    def _ordinary_deltas(self, ready: bytes) -> int:
        frame = b"event: response.output_text.delta\ndata: {"
        if not (ready.startswith(frame) and ready.endswith(b"}\n\n")):
            return 0
        events = ready.count(b"\n\n")
        if events != ready.count(b"}\n\n" + frame) + 1:
            return 0
        self._events_seen += events
        return events

    def _read(self, event: Event) -> bool:
        if event.data == b"[DONE]":
            return True
        try:
            data = _STREAM_EVENT.decode(event.data or b"")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise invalid_event() from None
        if data.type in {"response.failed", "error"}:
            self._fail(data)
            return False
        self._events_seen += 1
        if data.type.endswith(".delta"):
            self._deltas += 1
        elif data.type in _ENDS:
            answer = _decoded(data.response)
            self._usage = _read_usage(answer)
            self.finished = True
        elif data.type in {"response.created", "response.queued"}:
            self._response_id = _known_id(_decoded(data.response).id)
        return True

    def _fail(self, data: _StreamEvent) -> None:
        error = data.error or _Error(data.code, data.message)
        if data.type == "response.failed":
            error = _decoded(data.response).error or error
        self._error = error
        code = _text(error.code)
        status = _STATUS_OF_CODE.get(code, 400 if code else 500)
        text = ErrorText(message=_text(error.message), type=code, code=code)
        self.failure = self._classify(status, {}, text)


def _decoded(body: bytes | msgspec.Raw) -> _Answer:
    try:
        raw = bytes(body)
        if not raw.isascii():
            raw.decode()
        return _ANSWER.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UpstreamInvalid("The provider's answer is not the JSON of its protocol.") from None


def _known_id(value: object) -> str | None:
    is_id = isinstance(value, str) and 0 < len(value) <= RESPONSE_ID_LENGTH_MAX
    return str(value) if is_id else None


def _text(value: object) -> str:
    return value[:4096] if isinstance(value, str) else ""


def _read_usage(answer: _Answer) -> Usage | None:
    """A usage report; None where there is none, or one that cannot be true."""
    raw = answer.usage
    try:
        wire = _USAGE.decode(raw) if bytes(raw) else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if wire is None:
        return None
    cached = (wire.input_tokens_details.cached_tokens if wire.input_tokens_details else None) or 0
    details = wire.output_tokens_details
    return Usage(
        tokens_input=wire.input_tokens,
        tokens_output=wire.output_tokens or 0,
        tokens_input_cached=min(cached, wire.input_tokens),
        tokens_reasoning=(details.reasoning_tokens if details else None) or 0,
        service_tier=control.tier_said(answer.service_tier),
    )
