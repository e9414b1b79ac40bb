"""The sandbox provider as a raw ASGI application: who is asked what, and what is counted.

A call is authenticated, read, given its fault (if any), admitted by the limits of its model,
answered, and counted. An injected failure comes after admission, because a provider charges
for calls that it fails.

Limits are kept for each model and each shape: one sandbox is an OpenAI account and an
Anthropic account side by side.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import parse_qs

import msgspec

from penstock.http.line import Receive, Scope, Send
from penstock.sandbox import (
    anthropic_shape,
    azure,
    completions_shape,
    openai_shape,
    responses_shape,
)
from penstock.sandbox.answers import Rejected, answer_to
from penstock.sandbox.broken import deliver_broken
from penstock.sandbox.delivery import JSON, Delivery, Reply, Shape
from penstock.sandbox.faults import FAULTS, Faults
from penstock.sandbox.headers import Headers
from penstock.sandbox.settings import SandboxSettings
from penstock.sandbox.statistics import RECORDS_MAX, AnswerClass, CallRecord, Statistics, masked
from penstock.sandbox.wire import BodyTooLarge, HungUp, Wire
from penstock.simulate.provider_world import Denied, ProviderCall, ProviderWorld
from penstock.units import Usage

FAULT_HEADER = b"x-sandbox-fault"
CALLS_DEFAULT = 0
RESPONSES_KEPT_MAX = 10_000

_encode = msgspec.json.Encoder().encode


class Asked(NamedTuple):
    """A request that has been read: what it charges, and how it is answered."""

    model: str
    stream: bool
    call: ProviderCall
    reply: Callable[[str, int], Reply]


class FaultPlan(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``POST /faults``."""

    faults: list[str | None]
    calls: int | None = None


Reader: TypeAlias = Callable[[bytes, Mapping[bytes, bytes]], Asked]
Route: TypeAlias = Callable[[Scope, Wire], Awaitable[None]]


class Sandbox:
    """The application. ``statistics`` and ``faults`` may be read and set by whoever runs it."""

    def __init__(self, settings: SandboxSettings | None = None) -> None:
        self.settings = settings or SandboxSettings()
        self.statistics = Statistics()
        self.faults = Faults(self.settings.fault_rates, self.settings.seed)
        self._wires: set[Wire] = set()
        self._worlds: dict[tuple[str, str], ProviderWorld] = {}
        self._kept: dict[str, None] = {}
        self._numbers = itertools.count(1)
        self._run = secrets.token_hex(6)
        self._routes = self._all_routes()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One HTTP exchange."""
        if scope["type"] != "http":
            raise RuntimeError(f"the sandbox speaks HTTP, not {scope['type']}")
        wire = Wire(scope, receive, send)
        self._wires.add(wire)
        try:
            route = self._routes.get((scope["method"], scope["path"]), self._otherwise)
            if azure.is_dated(scope["path"], scope["query_string"]):
                route = self._azure(scope["path"])
            await route(scope, wire)
        except HungUp:
            pass
        finally:
            self._wires.discard(wire)
            wire.close()

    def break_off(self) -> None:
        """Drop every connection that waits for an answer."""
        for wire in self._wires:
            wire.abort()

    def world(self, shape: Shape, model: str) -> ProviderWorld:
        """The limits of one model, in one shape."""
        world = self._worlds.get((shape.NAME, model))
        if world is None:
            start = asyncio.get_running_loop().time()
            world = ProviderWorld(self.settings.limits, shape.CHARGE, start)
            self._worlds[shape.NAME, model] = world
        return world

    def _all_routes(self) -> dict[tuple[str, str], Route]:
        routes: dict[tuple[str, str], Route] = {
            ("GET", "/healthz"): self._health,
            ("GET", "/stats"): self._stats,
            ("POST", "/stats/reset"): self._stats_reset,
            ("GET", "/faults"): self._faults_show,
            ("POST", "/faults"): self._faults_plan,
        }
        for prefix in ("", "/openai"):
            for path, shape, reader in self._openai_calls():
                routes["POST", f"{prefix}/v1/{path}"] = self._calls(shape, reader)
        for prefix in ("", "/anthropic"):
            routes["POST", f"{prefix}/v1/messages"] = self._calls(anthropic_shape, _messages)
            routes["POST", f"{prefix}/v1/messages/count_tokens"] = self._count_tokens
        return routes

    def _azure(self, path: str) -> Route:
        """A call by Azure's dated API: the deployment stands in the path."""
        model, called = azure.split(path)
        for name, shape, reader in self._openai_calls():
            if name == called:
                charged = shape if shape is responses_shape else azure.AZURE
                return self._calls(charged, azure.named(model, reader))
        return self._otherwise

    def _openai_calls(self) -> list[tuple[str, Shape, Reader]]:
        return [
            ("chat/completions", openai_shape, partial(_generated, openai_shape)),
            ("embeddings", openai_shape, _embeddings),
            ("completions", completions_shape, partial(_generated, completions_shape)),
            ("responses", responses_shape, self._responses),
        ]

    def _responses(self, body: bytes, headers: Mapping[bytes, bytes]) -> Asked:
        """A response, which may continue another, and is kept so that others may continue it."""
        asked = _generated(responses_shape, body, headers)
        previous = responses_shape.read(body, headers).previous_id
        if previous is not None and previous not in self._kept:
            raise responses_shape.unknown_response(previous)

        def reply(identifier: str, created: int) -> Reply:
            self._kept[f"resp_{identifier}"] = None
            if len(self._kept) > RESPONSES_KEPT_MAX:
                del self._kept[next(iter(self._kept))]
            return asked.reply(identifier, created)

        return asked._replace(reply=reply)

    def _calls(self, shape: Shape, reader: Reader) -> Route:
        async def route(scope: Scope, wire: Wire) -> None:
            record = CallRecord(at=time.time(), path=scope["path"])
            record.user_agent = wire.headers.get(b"user-agent", b"").decode("latin-1")[:200]
            request_id = self._request_id()
            began = asyncio.get_running_loop().time()
            try:
                asked = await self._read(wire, shape, reader, record)
                await self._answer(wire, shape, asked, record, request_id)
            except Rejected as rejected:
                record.status = rejected.status
                await self._reject(wire, shape, rejected, request_id)
            except HungUp:
                record.answer = AnswerClass.CANCELLED
            finally:
                record.duration_seconds = asyncio.get_running_loop().time() - began
                self.statistics.add(record)

        return route

    async def _read(self, wire: Wire, shape: Shape, reader: Reader, record: CallRecord) -> Asked:
        key = shape.has_key(wire.headers)
        if key is None:
            raise shape.no_key()
        record.key = masked(key)
        try:
            body = await wire.body()
        except BodyTooLarge:
            raise Rejected(413, "request_too_large", "Request exceeds the maximum size") from None
        asked = reader(body, wire.headers)
        if asked.model not in self.settings.models:
            raise shape.no_model(asked.model)
        record.model = asked.model
        record.stream = asked.stream
        return asked

    async def _answer(
        self, wire: Wire, shape: Shape, asked: Asked, record: CallRecord, request_id: str
    ) -> None:
        """Answer a call that was understood."""
        fault = self._fault_of(wire)
        loop = asyncio.get_running_loop()
        world = self.world(shape, asked.model)
        headers = shape.identity_headers(request_id)
        decision = world.admit(loop.time(), asked.call)
        # As of admission: that is the moment at which a provider decides, and what a caller
        # that keeps its own account replays from.
        headers += shape.limit_headers(world.remaining(loop.time()), time.time())
        if isinstance(decision, Denied):
            record.answer = AnswerClass.DENIED
            record.limit = decision.limit
            record.status = 429
            headers += shape.retry_headers(decision.retry_after_seconds)
            await self._reject(
                wire, shape, shape.denied(asked.model, decision), request_id, headers
            )
            return
        record.admitted = True
        record.tokens_input = asked.call.tokens_input
        delivery = Delivery(
            wire=wire,
            shape=shape,
            settings=self.settings,
            world=world,
            admitted=decision,
            request_id=request_id,
        )
        delivery.headers = headers
        failed = True
        try:
            reply = asked.reply(request_id[4:], int(time.time()))
            if fault is None:
                record.answer = AnswerClass.SUCCESS
                await delivery.send(reply)
            else:
                record.answer = AnswerClass.FAULT
                record.fault = fault
                await deliver_broken(fault, delivery, reply)
            failed = delivery.status != 200
        except HungUp:
            if fault is None:
                raise
        finally:
            record.status = delivery.status
            record.tokens_output = decision.tokens_produced
            usage = None
            if not failed or decision.tokens_produced:
                usage = Usage(asked.call.tokens_input, decision.tokens_produced)
            world.finished(loop.time(), decision, usage)

    def _fault_of(self, wire: Wire) -> str | None:
        asked = wire.headers.get(FAULT_HEADER)
        try:
            return self.faults.next(None if asked is None else asked.decode("latin-1"))
        except ValueError as problem:
            raise Rejected(400, "invalid_request_error", str(problem)) from None

    async def _reject(
        self,
        wire: Wire,
        shape: Shape,
        rejected: Rejected,
        request_id: str,
        headers: Headers | None = None,
    ) -> None:
        if headers is None:
            headers = shape.identity_headers(request_id)
        body = shape.error_body(rejected, request_id)
        await wire.respond(rejected.status, [*headers, JSON], body)

    async def _count_tokens(self, _scope: Scope, wire: Wire) -> None:
        request_id = self._request_id()
        try:
            if anthropic_shape.has_key(wire.headers) is None:
                raise anthropic_shape.no_key()
            model, tokens = anthropic_shape.count(await wire.body(), wire.headers)
            if model not in self.settings.models:
                raise anthropic_shape.no_model(model)
        except Rejected as rejected:
            await self._reject(wire, anthropic_shape, rejected, request_id)
            return
        headers = anthropic_shape.identity_headers(request_id)
        await wire.respond(200, [*headers, JSON], anthropic_shape.count_body(tokens))

    async def _otherwise(self, scope: Scope, wire: Wire) -> None:
        """The models, which stand under a path of their own; else 404 in the right shape."""
        path: str = scope["path"]
        named = path.startswith("/anthropic/") or b"anthropic-version" in wire.headers
        shape: Shape = anthropic_shape if named else openai_shape
        request_id = self._request_id()
        try:
            body = self._models(shape, scope, wire)
        except Rejected as rejected:
            await self._reject(wire, shape, rejected, request_id)
            return
        await wire.respond(200, [*shape.identity_headers(request_id), JSON], body)

    def _models(self, shape: Shape, scope: Scope, wire: Wire) -> bytes:
        path = scope["path"].removeprefix("/anthropic").removeprefix("/openai")
        if scope["method"] != "GET" or not f"{path}/".startswith("/v1/models/"):
            text = f"Invalid URL ({scope['method']} {scope['path'][:200]})"
            kind = "not_found_error" if shape is anthropic_shape else "invalid_request_error"
            raise Rejected(404, kind, text)
        if shape.has_key(wire.headers) is None:
            raise shape.no_key()
        model = path.removeprefix("/v1/models").removeprefix("/")
        if not model:
            return shape.models_body(self.settings.models)
        if model not in self.settings.models:
            raise shape.no_model(model)
        return shape.model_body(model)

    async def _health(self, _scope: Scope, wire: Wire) -> None:
        await wire.respond(200, [JSON], b'{"status":"ok"}')

    async def _stats(self, scope: Scope, wire: Wire) -> None:
        asked = parse_qs(scope["query_string"].decode("latin-1")).get("calls", ["0"])[-1]
        if not asked.isascii() or not asked.isdigit() or int(asked) > RECORDS_MAX:
            message = f"calls is a number between 0 and {RECORDS_MAX}"
            await wire.respond(400, [JSON], _encode({"error": message}))
            return
        await wire.respond(200, [JSON], _encode(self.stats(int(asked))))

    def stats(self, calls: int = CALLS_DEFAULT) -> dict[str, Any]:
        """What ``GET /stats`` answers; with the last ``calls`` calls."""
        seen = self.statistics
        worlds = self._worlds.items()
        now = asyncio.get_running_loop().time()
        answer: dict[str, Any] = {
            "since": seen.since,
            "calls": seen.calls,
            "by_status": {str(status): count for status, count in seen.by_status.items()},
            "by_answer": seen.by_answer,
            "by_model": seen.by_model,
            "cancelled": seen.by_answer[AnswerClass.CANCELLED],
            "in_flight": sum(world.counters.in_flight for _, world in worlds),
            "faults_injected": self.faults.injected,
            "pools": [
                {
                    "shape": shape,
                    "model": model,
                    "counters": world.counters,
                    "limits": list(world.remaining(now).values()),
                }
                for (shape, model), world in worlds
            ],
        }
        if calls:
            answer["last_calls"] = seen.last(calls)
        return answer

    async def _stats_reset(self, _scope: Scope, wire: Wire) -> None:
        self.statistics.reset()
        self.faults.injected.clear()
        for world in self._worlds.values():
            world.reset_counters()
        await wire.respond(200, [JSON], b"{}")

    async def _faults_show(self, _scope: Scope, wire: Wire) -> None:
        shown = {"known": FAULTS, "planned": list(self.faults.planned), "rates": self.faults.rates}
        await wire.respond(200, [JSON], _encode(shown))

    async def _faults_plan(self, _scope: Scope, wire: Wire) -> None:
        try:
            plan = msgspec.json.decode(await wire.body(), type=FaultPlan)
            self.faults.plan(plan.faults, plan.calls)
        except (msgspec.DecodeError, ValueError, BodyTooLarge) as problem:
            await wire.respond(400, [JSON], _encode({"error": str(problem)}))
            return
        await wire.respond(200, [JSON], _encode({"planned": len(self.faults.planned)}))

    def _request_id(self) -> str:
        return f"req_{self._run}{next(self._numbers):012x}"


def _messages(body: bytes, headers: Mapping[bytes, bytes]) -> Asked:
    return _generated(anthropic_shape, body, headers)


def _generated(shape: Shape, body: bytes, headers: Mapping[bytes, bytes]) -> Asked:
    prompt = shape.read(body, headers)

    def reply(identifier: str, created: int) -> Reply:
        answer = answer_to(prompt)
        return Reply(
            stream=prompt.stream,
            tokens=answer.tokens_output,
            whole=lambda: shape.whole(prompt, answer, identifier, created),
            events=lambda: shape.events(prompt, answer, identifier, created),
        )

    call = ProviderCall(prompt.tokens_input, prompt.tokens_output_max)
    return Asked(prompt.model, prompt.stream, call, reply)


def _embeddings(body: bytes, _headers: Mapping[bytes, bytes]) -> Asked:
    request, tokens = openai_shape.read_embeddings(body)

    def reply(_identifier: str, _created: int) -> Reply:
        return Reply(
            stream=False,
            tokens=0,
            whole=lambda: openai_shape.embeddings_body(request, tokens),
            events=lambda: iter(()),
        )

    return Asked(request.model, stream=False, call=ProviderCall(tokens), reply=reply)
