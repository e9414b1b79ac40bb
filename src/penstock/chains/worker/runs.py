"""Executes runs: each in a context of its own, with its time limit, cancelled when asked.

A batch is N runs, not one ``abatch``, which would lose the config of each item and give all one
identity. Batches share a number of places, half of what the worker runs at once, so that a large
batch leaves room for the calls that the front lets in beside it.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

import msgspec
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import RunnableConfig

from penstock.chains.worker.callback_events import EventRecorder
from penstock.chains.worker.chain import Chain
from penstock.chains.worker.codec import encode
from penstock.chains.worker.config_rules import Settings
from penstock.chains.worker.faults import ChainTimedOut, call_error
from penstock.chains.worker.identity import Run, current_run
from penstock.chains.worker.usage import RunUsage
from penstock.errors import CallError, ChainFailed
from penstock.units import RunIdentity

logger = logging.getLogger(__name__)

CHUNKS_BUFFERED_MAX = 16
"""How far a stream's chain may be ahead of its reader."""

T = TypeVar("T")


class Result(msgspec.Struct, frozen=True):
    """A run's encoded output, and its events where the chain tells them."""

    output: bytes
    events: list[msgspec.Raw] | None = None


class Order(msgspec.Struct, frozen=True):
    """One run to execute: all that was asked, checked."""

    chain: Chain
    input: Any
    settings: Settings
    identity: RunIdentity
    request_id: str
    usage: RunUsage = msgspec.field(default_factory=RunUsage)

    def config(self, *callbacks: BaseCallbackHandler) -> RunnableConfig:
        """What the runnable is called with; ``usage`` counts, whoever else listens."""
        config = self.chain.config(self.settings, self.identity.run_id)
        config["callbacks"] = [self.usage, *callbacks]
        return config


async def _output(order: Order) -> Result:
    recorder = EventRecorder() if order.chain.table.include_callback_events else None
    config = order.config() if recorder is None else order.config(recorder)
    output = encode(await order.chain.runnable.ainvoke(order.input, config))
    return Result(output, recorder.events if recorder else None)


Source = Callable[[Order], AsyncGenerator[bytes, None]]
"""How a stream looks at a run: calls the runnable, and yields encoded pieces. Each protocol and
each of its views is one: ``output_chunks`` here, events and logs in ``steps``."""


async def output_chunks(order: Order) -> AsyncGenerator[bytes, None]:
    """The chunks of the run's output."""
    chunks = order.chain.runnable.astream(order.input, order.config())
    async with closed_at_once(chunks):
        async for chunk in chunks:
            yield encode(chunk)


@asynccontextmanager
async def closed_at_once(chunks: AsyncIterator[Any]) -> AsyncIterator[None]:
    """A generator that is left in the middle is to see it now, not when it is collected."""
    try:
        yield
    finally:
        close = getattr(chunks, "aclose", None)
        if close is not None:
            await close()


async def _into(
    items: asyncio.Queue[bytes | CallError | None], source: Source, order: Order
) -> None:
    async with aclosing(source(order)) as pieces:
        async for piece in pieces:
            await items.put(piece)


class Runs:
    """The runs of one worker."""

    def __init__(self, gateway_url: str, runs_max: int) -> None:
        self._gateway_url = gateway_url
        self._batch_places = asyncio.Semaphore(max(1, runs_max // 2))

    async def invoke(self, order: Order) -> Result:
        """The result of one run. Raises CallError."""
        return await self.run(order, _output)

    async def run(self, order: Order, work: Callable[[Order], Coroutine[Any, Any, T]]) -> T:
        """What ``work`` makes of the run, in its context and within its time. Raises CallError."""
        return await _in_context(order, self._guarded(order, work(order)))

    async def batch(self, orders: Sequence[Order], concurrency_max: int | None) -> list[Result]:
        """The results of many runs, in order; the first failure cancels the others."""
        own_places = asyncio.Semaphore(concurrency_max or max(1, len(orders)))

        async def one(order: Order) -> Result:
            async with own_places, self._batch_places:
                return await self.invoke(order)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(order)) for order in orders]
        except BaseExceptionGroup as group_error:
            first = group_error.exceptions[0]
            raise first from group_error
        return [task.result() for task in tasks]

    async def stream(self, order: Order, source: Source) -> AsyncGenerator[bytes, None]:
        """What ``source`` makes of one run, piece by piece. Raises CallError, before or between.

        The chain runs in a task of its own, so that its context variables stay put, and is
        cancelled when the iterator is closed.
        """
        items: asyncio.Queue[bytes | CallError | None] = asyncio.Queue(CHUNKS_BUFFERED_MAX)

        async def produce() -> None:
            end = None
            try:
                await self._guarded(order, _into(items, source, order))
            except CallError as error:
                end = error
            await items.put(end)

        producer = asyncio.create_task(_in_context(order, produce()))
        try:
            while (item := await items.get()) is not None:
                if isinstance(item, CallError):
                    raise item
                yield item
        finally:
            producer.cancel()
            await asyncio.wait({producer})

    async def _guarded(self, order: Order, work: Coroutine[Any, Any, T]) -> T:
        """``work`` within the chain's time limit, with its exceptions as CallErrors."""
        seconds = order.chain.table.timeout_seconds
        limit = asyncio.timeout(seconds)
        task = asyncio.current_task()
        cancellations = task.cancelling() if task else 0
        try:
            async with limit:
                return await work
        except asyncio.CancelledError as error:
            if task and task.cancelling() > cancellations:
                _abandon()
                raise
            # Nobody cancelled this run: the chain raised the exception by itself.
            raise self._told(order, error) from error
        except TimeoutError as error:
            if not limit.expired():
                raise self._told(order, error) from error
            _abandon()
            message = f"the chain took longer than its timeout_seconds = {seconds:g}"
            raise ChainTimedOut(message) from error
        except (Exception, SystemExit) as error:
            raise self._told(order, error) from error

    def _told(self, order: Order, error: BaseException) -> CallError:
        told = call_error(error, self._gateway_url, order.request_id)
        if isinstance(told, ChainFailed):
            logger.error(
                "chain %s failed: request %s, run %s",
                order.chain.name,
                order.request_id,
                order.identity.run_id,
                exc_info=error,
            )
        return told


def identity_of_item(identity: RunIdentity, settings: Settings, index: int) -> RunIdentity:
    """The identity of a batch's item: a run of its own within the same request."""
    if settings.run_id is not None:
        run_id = str(settings.run_id)
    elif index == 0:
        return identity
    else:
        run_id = str(uuid.uuid4())
    return msgspec.structs.replace(identity, run_id=run_id)


async def _in_context(order: Order, work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` in a task whose context knows the run; cancelling this cancels it."""
    run = Run(order.identity)
    context = contextvars.copy_context()
    context.run(current_run.set, run)
    try:
        # Cancelling an await on a task cancels the task, and waits until it has cleaned up.
        return await asyncio.get_running_loop().create_task(work, context=context)
    finally:
        run.ended = True


def _abandon() -> None:
    run = current_run.get()
    if run is not None:
        run.abandoned = True
