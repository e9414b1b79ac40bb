"""One request on its way through a worker: bytes in, bytes out, and what became of it."""

from __future__ import annotations

import aiohttp
import msgspec
from yarl import URL

from penstock.chains.event_frames import ErrorEvent, EventFrames
from penstock.chains.late_error import late_error
from penstock.chains.process import WorkerProcess
from penstock.chains.spec import OUTCOME_HEADER, REQUEST_ID_HEADER
from penstock.errors import CallError, WorkerLost
from penstock.http.error_body import ErrorShape
from penstock.http.exchange import Exchange
from penstock.http.run_identity import HEADER
from penstock.units import Outcome

PASSED_HEADERS = ("retry-after", "retry-after-ms", "x-should-retry", "allow")
STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
EVENT_STREAM = "text/event-stream"

LOST_MESSAGE = "the worker process of this chain died; the run is lost, others are not affected"


class Ending(msgspec.Struct):
    """What is left to send: a whole answer, or the end of a stream."""

    outcome: Outcome
    whole: tuple[int, bytes, str] | None = None
    last_event: bytes = b""
    torn: bool = False

    async def send(self, exchange: Exchange) -> Outcome:
        """Send it. What was torn is broken off visibly."""
        if self.whole is not None:
            await exchange.respond(*self.whole)
        elif self.torn:
            exchange.abort()
            exchange.finished = True
        else:
            await exchange.write(self.last_event)
            await exchange.finish()
        return self.outcome


class Call:
    """One request on its way through a worker."""

    def __init__(
        self,
        exchange: Exchange,
        chain: str,
        route: str,
        body: bytes,
        identity: str,
        shape: ErrorShape = ErrorShape.PROBLEM,
    ) -> None:
        self.exchange = exchange
        self.torn = False
        self._shape = shape
        self._url = URL.build(scheme="http", host="worker", path=f"/{chain}/{route}", encoded=True)
        self._body = body
        self._headers = {
            "content-type": "application/json",
            HEADER: identity,
            REQUEST_ID_HEADER: exchange.request_id,
        }

    async def through(self, worker: WorkerProcess) -> Ending:
        """Send it and pass the answer on.

        Raises ClientConnectorError when nothing was sent, WorkerLost when it was.
        """
        frames = EventFrames(self._shape)
        try:
            async with worker.session.request(
                self.exchange.scope["method"],
                self._url,
                data=self._body,
                headers=self._headers,
                allow_redirects=False,
            ) as answer:
                self._copy_headers(answer)
                if answer.content_type != EVENT_STREAM:
                    content = await answer.read()
                    return Ending(
                        outcome=_outcome(answer.headers.get(OUTCOME_HEADER, "")),
                        whole=(answer.status, content, answer.headers["content-type"]),
                    )
                await self._stream(answer, frames)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ClientError, ConnectionError) as error:
            self.torn = frames.torn
            raise WorkerLost(LOST_MESSAGE) from error
        return Ending(outcome=_outcome_of_stream(frames.error))

    def broken_off(self, error: CallError) -> Ending:
        """The end of a stream that had begun when ``error`` came."""
        last = late_error(error, self._shape, self.exchange.request_id)
        return Ending(outcome=error.outcome, last_event=last, torn=self.torn)

    async def _stream(self, answer: aiohttp.ClientResponse, frames: EventFrames) -> None:
        await self.exchange.start(answer.status, EVENT_STREAM)
        async for chunk in answer.content.iter_any():
            events = frames.feed(chunk)
            if events:
                await self.exchange.write(events)

    def _copy_headers(self, answer: aiohttp.ClientResponse) -> None:
        headers = self.exchange.response_headers
        for name in PASSED_HEADERS:
            if name in answer.headers:
                headers[name] = answer.headers[name]
        if answer.content_type == EVENT_STREAM:
            headers.update(STREAM_HEADERS)


def _outcome(text: str) -> Outcome:
    try:
        return Outcome(text)
    except ValueError:
        return Outcome.INTERNAL


def _outcome_of_stream(error: ErrorEvent | None) -> Outcome:
    if error is None:
        return Outcome.SUCCESS
    if error.status_code == 429:
        return Outcome.UPSTREAM_RATE_LIMITED
    if error.code.startswith("upstream"):
        return Outcome.UPSTREAM_UNAVAILABLE
    return Outcome.CHAIN_FAILED
