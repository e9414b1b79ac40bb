"""What the gateway and the dispatcher ask of a provider kind.

An adapter turns bytes into values and back; it opens nothing and keeps nothing between calls
except a stream's own reader. Bodies pass through byte for byte wherever nothing must change.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol

import msgspec

from penstock.units import ChargeModel, LimitName, LimitReading, Usage


class Endpoint(StrEnum):
    """The calls that are served, by the path that both caller and provider know them under."""

    CHAT = "/v1/chat/completions"
    COMPLETIONS = "/v1/completions"
    EMBEDDINGS = "/v1/embeddings"
    RESPONSES = "/v1/responses"
    MESSAGES = "/v1/messages"
    COUNT_TOKENS = "/v1/messages/count_tokens"

    @property
    def dialect(self) -> str:
        """What a provider speaks or does not: calls of one dialect go to the same deployments."""
        return _DIALECTS[self]


CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, MESSAGES, COUNT_TOKENS = Endpoint
"""Its members, for the paths of every call: to find one in its class takes fifteen times as long
(0.2 us in CPython 3.11)."""

_DIALECTS = {
    CHAT: "openai",
    EMBEDDINGS: "openai",
    COMPLETIONS: "completions",
    RESPONSES: "responses",
    MESSAGES: "anthropic",
    COUNT_TOKENS: "count_tokens",
}


class ParsedCall(msgspec.Struct, frozen=True):
    """What the gateway needs to know of a request body; the rest stays as it came.

    ``fields`` holds each top-level field as raw JSON, in the caller's order; ``body`` is the
    request as it came. ``priority`` and ``service_tier`` are the caller's wishes for a class,
    ``sub_tenant`` whom it names as its own user, ``cache_key`` which of its calls share a
    prompt. ``background`` and ``previous_response_id`` belong to ``/v1/responses``;
    ``fallbacks`` is false where the caller wants this model or none. ``deadline`` is what its
    metadata say of one, ``window_seconds`` how long it may take, ``continuation_id`` which of its
    runs it belongs to; none of them is trusted with more than that. ``sends_tier`` says
    that the deployment it goes to may be asked for that ``service_tier``.
    """

    endpoint: Endpoint
    model: str
    stream: bool
    body: bytes
    fields: dict[str, msgspec.Raw]
    tokens_output_max: int | None = None
    choices: int = 1
    include_usage: bool = False
    priority: int | None = None
    service_tier: str | None = None
    sub_tenant: str | None = None
    cache_key: str | None = None
    background: bool = False
    previous_response_id: str | None = None
    fallbacks: bool = True
    deadline: str | None = None
    window_seconds: float | None = None
    continuation_id: str = ""
    sends_tier: bool = False


class FailureKind(StrEnum):
    """What an answer other than success means for the unit, and for the limits."""

    REJECTED = "rejected"  # the caller's fault: passed on, never retried
    AUTH = "auth"  # our provider key was refused: the operator's matter
    FATAL = "fatal"  # no quota at all (credit, spend cap): waiting does not help
    RATE = "rate"  # a rate limit: requeued in place
    DAY = "day"  # a daily limit: that deployment pauses until its reset
    OVERLOADED = "overloaded"  # the provider's own load (529, 503): requeued, backs off
    UNAVAILABLE = "unavailable"  # 5xx otherwise: requeued, backs off
    TIMED_OUT = "timed_out"  # took longer than it may: not sent again, backs off
    INVALID = "invalid"  # an answer that is none: sent to another deployment only


class Failure(msgspec.Struct, frozen=True):
    """An unsuccessful answer, classified."""

    kind: FailureKind
    retry_after_seconds: float | None = None
    limit: LimitName | None = None  # the limit that the provider named, if it named one
    exceeds_context: bool = False  # rejected because the model's context is too small for it


class StreamReader(Protocol):
    """Reads one answer's stream as it passes: counts, and hides what was not asked for."""

    @property
    def usage(self) -> Usage | None:
        """What the provider reported so far; None while it has reported nothing."""

    @property
    def finished(self) -> bool:
        """Whether the protocol's own end (``[DONE]``, ``message_stop``) has passed."""

    @property
    def tokens_output_seen(self) -> int:
        """An estimate of the output tokens that have passed, for streams that break off."""

    @property
    def failure(self) -> Failure | None:
        """The provider's error inside a stream that began well (Anthropic ``event: error``).

        Its event is not passed on, nor is what follows: the dispatcher may try again where
        nothing was sent, and renders the error itself where something was.
        """

    @property
    def failure_event(self) -> bytes:
        """That error's event as it came, for a failure that is the caller's to read."""

    @property
    def failure_body(self) -> bytes:
        """The same as the body of an answer that has not begun."""

    @property
    def response_id(self) -> str | None:
        """The id of a response that the provider may keep; None in other protocols."""

    @property
    def events_seen(self) -> int:
        """How many events have passed: the next one's ``sequence_number``."""

    def feed(self, chunk: bytes) -> bytes:
        """Take what came, give what goes to the caller; may hold back a part of an event.

        Raises UpstreamInvalid where a line passes 1 MiB or an event 4 MiB.
        """

    def flush(self) -> bytes:
        """What is still held back when the provider has closed, if it is whole.

        The torn half of an event is dropped (``finished`` is false then), so that an error
        event of ours starts on a line of its own.
        """


class Adapter(Protocol):
    """One provider kind.

    ``wire`` is the protocol whose shape it speaks ("openai" or "anthropic"); ``catalogue`` holds
    limits that the provider publishes for everybody, by the beginning or end of a model's name.
    """

    kind: str
    wire: str
    endpoints: frozenset[Endpoint]
    charge: ChargeModel

    def catalogue(self, model: str) -> dict[LimitName, float]:
        """The limits that the provider publishes for every account; empty where it does not."""

    def url(self, base_url: str, endpoint: Endpoint, model: str, version: str | None) -> str:
        """Where to send a call. ``base_url`` has no slash at its end; ``version`` is Azure's."""

    def parse(self, endpoint: Endpoint, body: bytes) -> ParsedCall:
        """Read the control fields. Raises InvalidRequest naming the field and the rule."""

    def upstream_body(self, call: ParsedCall, model: str) -> bytes:
        """The body to send: the same bytes where nothing must change."""

    def upstream_headers(self, headers: Mapping[str, str], key: str | None) -> Mapping[str, str]:
        """Headers to send, built from scratch; ``headers`` (lower-case) are the caller's."""

    def usage(self, call: ParsedCall, body: bytes) -> Usage | None:
        """What a whole answer reports. Raises UpstreamInvalid for an answer that is none."""

    def failure_within(self, body: bytes) -> Failure | None:
        """The error that a 200 holds in the place of an answer; None where it holds none."""

    def stream_reader(self, call: ParsedCall) -> StreamReader:
        """A reader for one streamed answer."""

    def limit_readings(self, headers: Mapping[str, str], wall: float) -> list[LimitReading]:
        """What the answer's headers say of the limits; ``wall`` is Unix time, for reset dates."""

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        """What an unsuccessful answer means. ``headers`` have lower-case names."""
