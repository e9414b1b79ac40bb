"""Sends one admitted call's answer, at the model's pace.

A stream is sent piece by piece against a schedule, so that a late wake-up is made up for;
at pace 0 it is sent in one write, since nobody could tell the difference.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import NamedTuple, Protocol

from penstock.sandbox.answers import Answer, Prompt, Rejected
from penstock.sandbox.headers import Headers, Readings
from penstock.sandbox.settings import SandboxSettings
from penstock.sandbox.text import bytes_of, tokens_of_bytes
from penstock.sandbox.wire import Wire
from penstock.simulate.provider_world import Admitted, Denied, ProviderWorld
from penstock.units import ChargeModel

JSON = (b"content-type", b"application/json")
EVENT_STREAM: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
]


class Shape(Protocol):
    """One provider's protocol; the modules ``openai_shape`` and ``anthropic_shape`` are two."""

    NAME: str
    CHARGE: ChargeModel

    def has_key(self, headers: Mapping[bytes, bytes], /) -> str | None:
        """The caller's key, if it sent any."""

    def no_key(self) -> Rejected:
        """What a call without a key is told."""

    def no_model(self, model: str, /) -> Rejected:
        """What a call of an unknown model is told."""

    def read(self, body: bytes, headers: Mapping[bytes, bytes], /) -> Prompt:
        """A request. Raises Rejected."""

    def whole(self, prompt: Prompt, answer: Answer, identifier: str, created: int, /) -> bytes:
        """A complete answer."""

    def events(
        self, prompt: Prompt, answer: Answer, identifier: str, created: int, /
    ) -> Iterator[tuple[str, bytes]]:
        """The stream's events, each with the piece of the answer that it carries."""

    def error_body(self, rejected: Rejected, request_id: str, /) -> bytes:
        """An error as a body."""

    def error_event(self, rejected: Rejected, request_id: str, /) -> bytes:
        """An error after a stream has begun."""

    def denied(self, model: str, refusal: Denied, /) -> Rejected:
        """The provider's own words for a limit that has no room."""

    def injected(self, status: int, /, *, quota: bool = False) -> Rejected:
        """The provider's own words for a failure."""

    def limit_headers(self, readings: Readings, wall: float, /) -> Headers:
        """What every answer says of the limits."""

    def retry_headers(self, seconds: float | None, /) -> Headers:
        """When to come back."""

    def identity_headers(self, request_id: str, /) -> Headers:
        """Who answered, and under what number."""

    def models_body(self, models: tuple[str, ...], /) -> bytes:
        """The list of models."""

    def model_body(self, model: str, /) -> bytes:
        """One model."""


class Reply(NamedTuple):
    """What is to be sent, made when it is needed: ``tokens`` of output, whole or as events."""

    stream: bool
    tokens: int
    whole: Callable[[], bytes]
    events: Callable[[], Iterator[tuple[str, bytes]]]


class Delivery:
    """One admitted call on its way out. ``status`` is 0 until an answer has begun."""

    def __init__(
        self,
        *,
        wire: Wire,
        shape: Shape,
        settings: SandboxSettings,
        world: ProviderWorld,
        admitted: Admitted,
        request_id: str,
    ) -> None:
        self.wire = wire
        self.shape = shape
        self.settings = settings
        self.world = world
        self.admitted = admitted
        self.request_id = request_id
        self.headers: Headers = []
        self.status = 0
        self._loop = asyncio.get_running_loop()

    async def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer."""
        self.status = status
        await self.wire.respond(status, headers, body)

    async def start(self, headers: Headers) -> None:
        """The beginning of a successful answer."""
        self.status = 200
        await self.wire.start(200, headers)

    async def reject(self, rejected: Rejected, headers: Headers) -> None:
        """An error of the provider."""
        body = self.shape.error_body(rejected, self.request_id)
        await self.respond(rejected.status, [*headers, JSON], body)

    async def think(self, tokens: int) -> None:
        """The time until ``tokens`` have been produced, from the start."""
        pace = self.settings.tokens_per_second
        await self.wire.pause(self.settings.latency_seconds + (tokens / pace if pace else 0.0))

    def produce(self, tokens_total: int) -> None:
        """So many tokens of this answer have been produced by now."""
        new = tokens_total - self.admitted.tokens_produced
        if new > 0:
            self.world.produced(self._loop.time(), self.admitted, new)

    async def send(self, reply: Reply) -> None:
        """A complete answer, in the time that it takes to produce."""
        if reply.stream:
            await self.think(0)
            await self.start([*self.headers, *EVENT_STREAM])
            await self.send_events(reply.events(), reply.tokens)
            await self.wire.finish()
        else:
            await self.think(reply.tokens)
            self.produce(reply.tokens)
            await self.respond(200, [*self.headers, JSON], reply.whole())

    async def send_events(self, events: Iterator[tuple[str, bytes]], tokens: int) -> None:
        """Events at their pace; ``tokens`` have been produced at their end."""
        pace = self.settings.tokens_per_second
        if not pace:
            self.produce(tokens)
            await self.wire.write(b"".join(event for _, event in events))
            return
        began, length = self._loop.time(), 0
        # Events that carry no text go out together with the next that does, or with the end.
        waiting: list[bytes] = []
        for piece, event in chain(events, (("", b""),)):
            if piece:
                length += bytes_of(piece)
                produced = tokens_of_bytes(length)
                if waiting:
                    await self.wire.write(b"".join(waiting))
                    waiting.clear()
                await self.wire.pause(began + produced / pace - self._loop.time())
                self.produce(min(produced, tokens))
                await self.wire.write(event)
            else:
                waiting.append(event)
        self.produce(tokens)
        await self.wire.write(b"".join(waiting))
