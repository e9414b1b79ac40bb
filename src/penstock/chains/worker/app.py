"""The worker's ASGI application: leads each request to its chain and endpoint, on a private socket.

Routes are ``/{chain}/{endpoint}`` and ``/{chain}/c/{config_hash}/{endpoint}``. The only caller
is the front, which has checked the key, the route and the body's size, and names the run in a
signed header. Plain ASGI without a framework: an endpoint is an entry of a table, and each
protocol brings its own entries (``langserve``, ``chat``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec

from penstock.chains.spec import REQUEST_ID_HEADER
from penstock.chains.worker.answer import Answer, Send
from penstock.chains.worker.chain import Chain
from penstock.chains.worker.faults import ChainNotLoaded
from penstock.errors import CallError, Forbidden, InternalError, InvalidRequest, NotFound
from penstock.http.run_identity import HEADER, verify
from penstock.units import RunIdentity

logger = logging.getLogger(__name__)

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]

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


class Endpoint(NamedTuple):
    """What a route leads to: the method that it takes, and what answers it."""

    method: str
    answer: Callable[[Chain, Request, Answer], Coroutine[Any, Any, None]]


class App:
    """ASGI application over the loaded chains. ``failed`` names those that could not be.

    ``status`` is the process's own, which the front asks for, to see that the loop turns.
    """

    def __init__(
        self,
        chains: Mapping[str, Chain],
        failed: frozenset[str],
        endpoints: Mapping[str, Endpoint],
        run_key: bytes,
        status: Callable[[], bytes],
    ) -> None:
        self._chains = chains
        self._failed = failed
        self._endpoints = endpoints
        self._run_key = run_key
        self._status = status

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
            if scope["path"] == "/":
                await answer.json(self._status())
                return
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
        endpoint = self._endpoints.get(request.endpoint)
        if endpoint is None:
            known = ", ".join(sorted(name for name in self._endpoints if name.isidentifier()))
            raise NotFound(f"no such endpoint; there are {known}")
        if request.method != endpoint.method:
            answer.headers["allow"] = endpoint.method
            raise InvalidRequest(f"{request.endpoint} takes {endpoint.method}", status=405)
        await endpoint.answer(chain, request, answer)

    def _chain(self, name: str) -> Chain:
        chain = self._chains.get(name)
        if chain is not None:
            return chain
        if name in self._failed:
            raise ChainNotLoaded(f"the chain {name!r} failed to load; see the log")
        raise NotFound("no such chain")


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
