"""A run seen from inside: LangChain's events and logs, as its streams tell them.

Both come from LangChain itself; nothing is revived on the way (its own log did so until
CVE-2025-68664 was mended). What has no JSON form becomes null rather than the end of the stream:
a chain's steps hand each other what they like, and only its output is a promise.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any, Literal

from penstock.chains.worker.codec import NotEncodable, encode
from penstock.chains.worker.faults import InvalidInput
from penstock.chains.worker.runs import Order, closed_at_once

FILTERS = tuple(
    f"{verb}_{kind}" for verb in ("include", "exclude") for kind in ("names", "types", "tags")
)
FILTER_ENTRIES_MAX = 64

OWN_METADATA_PREFIX = "__"

SECOND_CANCELLATION_SECONDS = 0.05

Version = Literal["v1", "v2"]

# Both are what the protocol's clients ask for; that LangChain has newer ones is no news here.
warnings.filterwarnings("ignore", message="astream_log is deprecated")
warnings.filterwarnings("ignore", message="astream_events version 'v1'")


def filters_of(body: Mapping[str, Any]) -> dict[str, list[str]]:
    """The six filters that a body may hold. Raises InvalidInput."""
    filters = {}
    for name in FILTERS:
        entries = body.get(name)
        if entries is None:
            continue
        if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
            raise InvalidInput(f"{name} must be a list of strings, or null")
        if len(entries) > FILTER_ENTRIES_MAX:
            raise InvalidInput(f"{name} has {len(entries)} entries; at most {FILTER_ENTRIES_MAX}")
        filters[name] = entries
    return filters


def version_of(value: Any) -> Version:
    """The schema of events that a client asks for; v2 where it says nothing."""
    if value is None:
        return "v2"
    if value not in ("v1", "v2"):
        raise InvalidInput("kwargs.version must be 'v1' or 'v2'")
    version: Version = value
    return version


async def events(
    order: Order, filters: Mapping[str, Any], version: Version
) -> AsyncGenerator[bytes, None]:
    """The run's events, each with its name, its data and its place in the tree of runs."""
    told: AsyncIterator[Any] = order.chain.runnable.astream_events(
        order.input, order.config(), version=version, **filters
    )
    if version == "v1":
        told = _leaving_cancels(told)
    async with closed_at_once(told):
        async for event in told:
            metadata = {
                key: value
                for key, value in event.get("metadata", {}).items()
                if not key.startswith(OWN_METADATA_PREFIX)
            }
            plain: dict[str, Any] = {**event, "metadata": metadata}
            try:
                yield encode(plain)
            except NotEncodable:
                yield encode({**plain, "data": _encodable(event["data"])})


async def log_patches(order: Order, filters: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
    """The run's log: JSON patches which, one after the other, make up its whole state."""
    told = _leaving_cancels(
        order.chain.runnable.astream_log(order.input, order.config(), **filters)
    )
    async with closed_at_once(told):
        async for patch in told:
            try:
                yield encode({"ops": patch.ops})
            except NotEncodable:
                yield encode({"ops": [_encodable(op) for op in patch.ops]})


async def _leaving_cancels(told: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
    """The same, but whoever leaves it cancels the run.

    LangChain's log, and the first version of events, which is made of it, wait for the run to end
    when they are left. A task that waits so passes on a second cancellation. What is held between
    the two tasks is bounded as little as within LangChain's own, which never waits for its reader.
    """
    items: asyncio.Queue[Any] = asyncio.Queue()
    end = object()

    async def take() -> None:
        try:
            async for item in told:
                items.put_nowait(item)
        finally:
            items.put_nowait(end)

    task = asyncio.create_task(take())
    try:
        while (item := await items.get()) is not end:
            yield item
        await task
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=SECOND_CANCELLATION_SECONDS)
        task.cancel()
        await asyncio.wait({task})


def _encodable(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Each field as it is, or null where it has no JSON form."""
    kept = {}
    for name, value in fields.items():
        try:
            encode(value)
        except NotEncodable:
            value = None  # noqa: PLW2901 - the same field, in the form that it can have
        kept[name] = value
    return kept
