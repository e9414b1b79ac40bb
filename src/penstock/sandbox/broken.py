"""Answers that a provider should not give, byte for byte as they have been seen in the wild.

The middle of a plain answer is the middle of its bytes; the middle of a stream is after
half of its events, at the usual pace.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from functools import cache
from typing import TypeAlias

from penstock.sandbox.delivery import EVENT_STREAM, JSON, Delivery, Reply

MEBIBYTE = 1024 * 1024
_PAGE = b"<!DOCTYPE html><html><body><h1>Bad gateway</h1></body></html>"
_HTML = (b"content-type", b"text/html; charset=utf-8")
_RETRY_SECONDS = 0.1
_READ_SECONDS = 0.05
_NONSENSE = [(b"retry-after", b"banana"), (b"retry-after-ms", b"NaN")]
_NO_EVENTS = b'data: {"id": "unfinished\n\nthis line has no field\n::::\ndata\n\n'

_Sender: TypeAlias = Callable[[Delivery, Reply], Awaitable[None]]


async def deliver_broken(fault: str, delivery: Delivery, reply: Reply) -> None:
    """Answer with ``fault``, one of ``faults.FAULTS``."""
    sender = _SENDERS.get(fault)
    if sender is not None:
        await sender(delivery, reply)
    elif fault in _BODIES:
        await _odd_body(fault, delivery, reply)
    else:
        await _status(fault, delivery)


async def _status(fault: str, delivery: Delivery) -> None:
    """An error status, in the provider's own words and headers."""
    number, _, variant = fault.partition("-")
    status = int(number)
    if status == 502:
        await delivery.respond(502, [_HTML], _PAGE)
        return
    headers = delivery.headers
    if variant == "nonsense":
        headers = [*headers, *_NONSENSE]
    elif variant == "bare":
        headers = delivery.shape.identity_headers(delivery.request_id)
    elif status == 429 and not variant:
        headers = [*headers, *delivery.shape.retry_headers(_RETRY_SECONDS)]
    await delivery.reject(delivery.shape.injected(status, quota=variant == "quota"), headers)


async def _odd_body(fault: str, delivery: Delivery, reply: Reply) -> None:
    """A status of 200 and a body that is no answer."""
    await delivery.think(0)
    extra = {
        "html": [_HTML],
        "bad-gzip": [(b"content-encoding", b"gzip")],
        "gzip-bomb": [(b"content-encoding", b"gzip")],
    }.get(fault, [])
    if fault != "html":
        extra = extra + (EVENT_STREAM if reply.stream else [JSON])
    await delivery.respond(200, [*delivery.headers, *extra], _BODIES[fault]())


async def _reset_before(delivery: Delivery, _reply: Reply) -> None:
    await delivery.wire.cut(reset=True)


async def _stall(delivery: Delivery, _reply: Reply) -> None:
    await delivery.wire.pause(None)


async def _half(delivery: Delivery, reply: Reply) -> None:
    """The first half of the answer, with the promise of the rest."""
    tokens = reply.tokens // 2
    if reply.stream:
        events = list(reply.events())
        await delivery.think(0)
        await delivery.start([*delivery.headers, *EVENT_STREAM])
        await delivery.send_events(iter(events[: len(events) // 2]), tokens)
    else:
        body = reply.whole()
        await delivery.think(tokens)
        delivery.produce(tokens)
        await delivery.start([*delivery.headers, JSON, (b"content-length", b"%d" % len(body))])
        await delivery.wire.write(body[: len(body) // 2])


async def _reset_mid(delivery: Delivery, reply: Reply) -> None:
    await _half(delivery, reply)
    # A reset discards what the client has not read: let it have its half first.
    await delivery.wire.pause(_READ_SECONDS)
    await delivery.wire.cut(reset=True)


async def _close_mid(delivery: Delivery, reply: Reply) -> None:
    await _half(delivery, reply)
    await delivery.wire.cut(reset=False)


async def _stall_mid(delivery: Delivery, reply: Reply) -> None:
    await _half(delivery, reply)
    await delivery.wire.pause(None)


async def _ended_early(delivery: Delivery, reply: Reply, last: bytes) -> None:
    """Half an answer, ``last``, and a proper end of the HTTP message."""
    if reply.stream:
        await _half(delivery, reply)
        await delivery.wire.write(last)
        await delivery.wire.finish()
    else:
        body = reply.whole()
        await delivery.send(reply._replace(whole=lambda: body[: len(body) // 2]))


async def _error_mid(delivery: Delivery, reply: Reply) -> None:
    rejected = delivery.shape.injected(529)
    if reply.stream:
        event = delivery.shape.error_event(rejected, delivery.request_id)
        await _ended_early(delivery, reply, event)
    else:
        await delivery.reject(rejected, delivery.headers)


async def _truncated(delivery: Delivery, reply: Reply) -> None:
    await _ended_early(delivery, reply, b'data: {"id":"cut","obj\n\n')


async def _malformed(delivery: Delivery, reply: Reply) -> None:
    await _ended_early(delivery, reply, _NO_EVENTS)


async def _no_usage(delivery: Delivery, reply: Reply) -> None:
    """A whole answer in which the word for usage is another."""
    without = reply._replace(
        whole=lambda: _unused(reply.whole()),
        events=lambda: ((piece, _unused(event)) for piece, event in reply.events()),
    )
    await delivery.send(without)


def _unused(encoded: bytes) -> bytes:
    return encoded.replace(b'"usage":', b'"unused":')


async def _huge_header(delivery: Delivery, reply: Reply) -> None:
    delivery.headers.append((b"x-huge", b"x" * MEBIBYTE))
    await delivery.send(reply)


async def _endless(delivery: Delivery, reply: Reply) -> None:
    """Half an answer again and again, until the client has had enough."""
    await delivery.think(0)
    await delivery.start([*delivery.headers, *(EVENT_STREAM if reply.stream else [JSON])])
    chunk = b" " * 4096
    if reply.stream:
        chunk = next((event for piece, event in reply.events() if piece), chunk)
    while True:
        await delivery.wire.pause(0.0001)
        await delivery.wire.write(chunk)
        await asyncio.sleep(0)


@cache
def _gzip_bomb() -> bytes:
    return gzip.compress(b" " * (64 * MEBIBYTE), compresslevel=9)


_BODIES: dict[str, Callable[[], bytes]] = {
    "html": lambda: _PAGE,
    "empty": lambda: b"",
    "null": lambda: b"null",
    "bad-utf8": lambda: b'{"id":"\xff\xfe\xfd","choices":[]}',
    "bad-gzip": lambda: b"this is not gzip",
    "gzip-bomb": _gzip_bomb,
    "huge-line": lambda: b'data: {"id":"' + b"x" * (16 * MEBIBYTE) + b'"}\n\n',
}

_SENDERS: dict[str, _Sender] = {
    "reset-before": _reset_before,
    "stall": _stall,
    "reset-mid-stream": _reset_mid,
    "close-mid-stream": _close_mid,
    "stall-mid-stream": _stall_mid,
    "error-mid-stream": _error_mid,
    "truncated-json": _truncated,
    "malformed-sse": _malformed,
    "no-usage": _no_usage,
    "huge-header": _huge_header,
    "endless": _endless,
}
