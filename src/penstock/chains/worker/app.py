"""The worker's ASGI application: the LangServe protocol for its chains, on a private socket.

Routes are ``/{chain}/{endpoint}`` and ``/{chain}/c/{config_hash}/{endpoint}``. The only caller
is the front, which has checked the key, the route and the body's size, and names the run in a
signed header. Plain ASGI without a framework: there are six endpoints, and each is a table
entry.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec

from penstock.chains.spec import OUTCOME_HEADER, REQUEST_ID_HEADER
from penstock.chains.worker.chain import Chain
from penstock.chains.worker.config_hash import BadConfigHash, config_of
from penstock.chains.worker.faults import ChainNotLoaded, InvalidInput
from penstock.chains.worker.request_body import parse
from penstock.chains.worker.runs import Order, Runs, identity_of_item
from penstock.errors import CallError, Forbidden, InternalError, InvalidRequest, NotFound, NotServed
from penstock.http.error_body import ErrorShape, render
from penstock.http.run_identity import HEADER, verify
from penstock.http.sse import comment, event
from penstock.units import Outcome, RunIdentity

logger = logging.getLogger(__name__)

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]

BATCH_INPUTS_MAX = 1000
PING_SECONDS = 15.0
"""How long a stream may be silent; also how long its status is held back for a first chunk."""

END = b"event: end\n\n"
"""Without data: the JavaScript client would take data for a chunk."""

NOT_SERVED = frozenset({"stream_log", "stream_events"})

T = TypeVar("T")


class HungUp(Exception):
    """The front has closed the connection; there is nobody to answer."""


class Request(msgspec.Struct):
    """One request: its route, its run, its body."""

    method: str
    chain_name: str
    config_hash: str
    endpoint: str
    identity: RunIdentity
    request_id: str
    body: bytes


class App:
    """ASGI application over the loaded chains. ``failed`` names those that could not be."""

    def __init__(
        self, chains: Mapping[str, Chain], failed: frozenset[str], runs: Runs, run_key: bytes
    ) -> None:
        self._chains = chains
        self._failed = failed
        self._runs = runs
        self._run_key = run_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        request_id = headers.get(REQUEST_ID_HEADER, "")
        answer = Answer(send, request_id)
        try:
            request = await self._request(scope, headers, receive, request_id)
            await while_connected(receive, self._answer(request, answer))
        except HungUp:
            return
        except CallError as error:
            await answer.error(error)
        except Exception:
            logger.exception("request %s failed", request_id)
            await answer.error(InternalError(f"a fault of ours; request id {request_id}"))

    async def _request(
        self, scope: Scope, headers: Mapping[str, str], receive: Receive, request_id: str
    ) -> Request:
        identity = verify(headers.get(HEADER, ""), self._run_key)
        if identity is None:
            raise Forbidden("the run's identity is missing or not signed by this service")
        name, *rest = scope["path"].strip("/").split("/")
        config_hash = ""
        if len(rest) == 3 and rest[0] == "c":
            config_hash = rest[1]
        elif len(rest) != 1:
            raise NotFound("no such route under this chain")
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise HungUp
            body += message.get("body", b"")
            more = message.get("more_body", False)
        return Request(
            method=scope["method"],
            chain_name=name,
            config_hash=config_hash,
            endpoint=rest[-1],
            identity=identity,
            request_id=request_id,
            body=bytes(body),
        )

    async def _answer(self, request: Request, answer: Answer) -> None:
        chain = self._chain(request.chain_name)
        posts = {"invoke": self._invoke, "batch": self._batch, "stream": self._stream}
        schemas = {"input_schema", "output_schema", "config_schema"}
        if request.endpoint in NOT_SERVED:
            raise NotServed(f"{request.endpoint} is not served; use stream or invoke")
        allowed = "POST" if request.endpoint in posts else "GET"
        if request.endpoint not in posts and request.endpoint not in schemas:
            raise NotFound("no such endpoint; there are invoke, batch, stream and three schemas")
        if request.method != allowed:
            answer.headers["allow"] = allowed
            raise InvalidRequest(f"{request.endpoint} takes {allowed}", status=405)
        if request.endpoint in posts:
            await posts[request.endpoint](chain, request, answer)
        else:
            settings = self._settings(chain, request, None)
            schema = chain.json_schema(request.endpoint.removesuffix("_schema"), settings)
            await answer.json(msgspec.json.encode(schema))

    def _chain(self, name: str) -> Chain:
        chain = self._chains.get(name)
        if chain is not None:
            return chain
        if name in self._failed:
            raise ChainNotLoaded(f"the chain {name!r} failed to load; see the log")
        raise NotFound("no such chain")

    def _settings(self, chain: Chain, request: Request, config: Any) -> Any:
        try:
            from_hash = config_of(request.config_hash)
        except BadConfigHash as error:
            raise InvalidRequest("Invalid config hash", code="invalid_config_hash") from error
        return chain.rules.settings(from_hash, config, tenant=request.identity.tenant)

    def _order(self, chain: Chain, request: Request) -> Order:
        body = parse(request.body)
        if "input" not in body:
            raise InvalidInput.missing("input")
        settings = self._settings(chain, request, body.get("config"))
        return Order(
            chain=chain,
            input=chain.input(body["input"], settings),
            settings=settings,
            identity=identity_of_item(request.identity, settings, 0),
            request_id=request.request_id,
        )

    async def _invoke(self, chain: Chain, request: Request, answer: Answer) -> None:
        order = self._order(chain, request)
        result = await self._runs.invoke(order)
        document: dict[str, Any] = {
            "output": msgspec.Raw(result.output),
            "metadata": {"run_id": order.identity.run_id, "feedback_tokens": []},
        }
        if result.events is not None:
            document["callback_events"] = result.events
        await answer.json(msgspec.json.encode(document))

    async def _batch(self, chain: Chain, request: Request, answer: Answer) -> None:
        orders = self._orders(chain, request)
        bounds = [order.settings.concurrency_max for order in orders]
        concurrency_max = min((bound for bound in bounds if bound), default=None)
        results = await self._runs.batch(orders, concurrency_max)
        run_ids = [order.identity.run_id for order in orders]
        document: dict[str, Any] = {
            "output": [msgspec.Raw(result.output) for result in results],
            "metadata": {
                "responses": [{"run_id": run_id, "feedback_tokens": []} for run_id in run_ids],
                "run_ids": run_ids,
            },
        }
        if chain.table.include_callback_events:
            document["callback_events"] = [result.events or [] for result in results]
        await answer.json(msgspec.json.encode(document))

    def _orders(self, chain: Chain, request: Request) -> list[Order]:
        body = parse(request.body)
        if "inputs" not in body:
            raise InvalidInput.missing("inputs")
        inputs = body["inputs"]
        if not isinstance(inputs, list):
            raise InvalidInput("inputs must be a list")
        if len(inputs) > BATCH_INPUTS_MAX:
            raise InvalidInput(
                f"a batch of {len(inputs)} inputs; at most {BATCH_INPUTS_MAX}: send several"
            )
        configs = body.get("config")
        one_each: list[Any] | None = configs if isinstance(configs, list) else None
        if one_each is not None and len(one_each) != len(inputs):
            raise InvalidInput(
                f"Number of configs ({len(one_each)}) must match number of inputs ({len(inputs)})"
            )
        orders = []
        for index, value in enumerate(inputs):
            config = configs if one_each is None else one_each[index]
            settings = self._settings(chain, request, config)
            if one_each is None and index > 0:
                # One config for all names one run: the first.
                settings.run_id = None
            orders.append(
                Order(
                    chain=chain,
                    input=chain.input(value, settings),
                    settings=settings,
                    identity=identity_of_item(request.identity, settings, index),
                    request_id=request.request_id,
                )
            )
        return orders

    async def _stream(self, chain: Chain, request: Request, answer: Answer) -> None:
        order = self._order(chain, request)
        metadata = msgspec.json.encode({"run_id": order.identity.run_id})
        began = False
        try:
            async with aclosing(self._runs.stream(order)) as chunks:
                async for chunk in pinged(chunks):
                    await answer.start_stream()
                    if chunk is None:
                        await answer.write(comment("ping"))
                        continue
                    if not began:
                        began = True
                        await answer.write(event("metadata", metadata))
                    await answer.write(event("data", chunk))
        except CallError as error:
            if not answer.started:
                raise
            await answer.write(event("error", _late(error)))
        else:
            await answer.start_stream()
            if not began:
                await answer.write(event("metadata", metadata))
            await answer.write(END)
        await answer.finish()


class Answer:
    """Writes one answer to the front."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.started = False
        self.headers: dict[str, str] = {}

    async def json(self, body: bytes) -> None:
        """A whole answer of status 200."""
        await self._whole(200, Outcome.SUCCESS, {"content-type": "application/json"}, body)

    async def error(self, error: CallError) -> None:
        """A whole answer that is an error; late in a stream, its last event."""
        if self.started:
            await self.write(event("error", _late(error)))
            await self.finish()
            return
        status, headers, body = render(error, ErrorShape.PROBLEM, self._request_id)
        if isinstance(error, InvalidInput):
            # The protocol's clients look for pydantic's list here, not for RFC 9457's text.
            body = msgspec.json.encode({**msgspec.json.decode(body), "detail": error.details})
        await self._whole(status, error.outcome, {**headers, **self.headers}, body)

    async def start_stream(self) -> None:
        """Send the head of an event stream, unless it was sent."""
        if not self.started:
            headers = {
                "content-type": "text/event-stream",
                "cache-control": "no-cache",
                "x-accel-buffering": "no",
            }
            await self._head(200, Outcome.SUCCESS, headers)

    async def write(self, data: bytes) -> None:
        """A part of the body; waits while the front does not take it."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def finish(self) -> None:
        """The end of the body."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _whole(
        self, status: int, outcome: Outcome, headers: Mapping[str, str], body: bytes
    ) -> None:
        await self._head(status, outcome, {**headers, "content-length": str(len(body))})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def _head(self, status: int, outcome: Outcome, headers: Mapping[str, str]) -> None:
        self.started = True
        all_headers = {**headers, OUTCOME_HEADER: outcome.value}
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [
                    (name.encode("latin-1"), value.encode("latin-1"))
                    for name, value in all_headers.items()
                ],
            }
        )


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """``work``'s result; when the front hangs up, ``work`` is cancelled and HungUp raised."""

    async def hung_up() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    task = asyncio.create_task(work)
    watcher = asyncio.create_task(hung_up())
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise HungUp
    finally:
        watcher.cancel()
        task.cancel()
        await asyncio.wait({task, watcher})


async def pinged(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes | None]:
    """The chunks, and None whenever there was none for PING_SECONDS."""
    upcoming: asyncio.Task[bytes] | None = None
    try:
        while True:
            if upcoming is None:
                upcoming = asyncio.create_task(_next(chunks))
            await asyncio.wait({upcoming}, timeout=PING_SECONDS)
            if not upcoming.done():
                yield None
                continue
            finished, upcoming = upcoming, None
            try:
                chunk = finished.result()
            except StopAsyncIteration:
                return
            yield chunk
    finally:
        if upcoming is not None:
            upcoming.cancel()
            await asyncio.wait({upcoming})


async def _next(chunks: AsyncIterator[bytes]) -> bytes:
    return await anext(chunks)


def _late(error: CallError) -> bytes:
    return msgspec.json.encode(
        {"status_code": error.status, "message": error.message, "code": error.code}
    )
