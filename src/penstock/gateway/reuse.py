"""Calls that need not be made: answers given again, and one call for several who ask the same.

Opt-in. The operator names models and keys in ``[cache]``, whose answers are then kept and given
again for as long as it says; a caller names a call by ``Idempotency-Key``, and gets for the same
key, body and path the same answer. In both cases whoever asks what is being asked already joins
that call (``shared``): a client that tries again joins its first attempt while it lasts.

*The same* is the same to the byte, field by field, whatever their order: path, tenant, Anthropic's
version and beta headers, and all fields but those that speak to us alone. Nothing is ever shared
between tenants. Calls of different classes are not joined: the more urgent would wait with the
other. Only answers that went well to their end are kept.

A shared call is made through the same door as any other, from inside, so that it waits, is
settled, counted and written down as any other, once, and under its first caller's name; whoever
else had its answer stands in the ledger as ``joined`` or ``cached``, without tokens or cost.

Rejected: answers for prompts that are merely alike (wrong answers that nobody can explain),
sharing by default (two samples of one prompt are two), a memory of failures.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Callable
from typing import Final

import msgspec

from penstock.config.model import CacheTable
from penstock.errors import InternalError, InvalidRequest, StoreError, Unprocessable
from penstock.gateway.accounts import Account
from penstock.gateway.notices import NOTICE_START, STREAM_HEADERS
from penstock.gateway.shared import Reading, SharedCall
from penstock.gateway.who import Caller
from penstock.http.door import while_connected
from penstock.http.exchange import Exchange, Inside, give_again
from penstock.http.inside import InsideCalls
from penstock.providers.base import ParsedCall
from penstock.providers.control import OURS
from penstock.store.answers import Answers, AnswersInMemory, AnswersInStore, Bounds, KeptAnswer
from penstock.store.reader import Reader
from penstock.store.writer import Writer
from penstock.units import Outcome

IDEMPOTENT_SECONDS: Final = 600.0
"""How long an answer is kept for its ``Idempotency-Key``: longer than SDKs try again."""
IDEMPOTENT_BYTES_MAX: Final = 16 * 1024 * 1024

_IDEMPOTENCY_KEY: Final = re.compile(r"[!-~]{1,255}\Z")
_VERSIONS: Final = ("anthropic-version", "anthropic-beta")
_NOT_PASSED_IN: Final = frozenset(
    {
        "host", "content-length", "transfer-encoding", "connection", "expect", "authorization",
        "x-api-key", "idempotency-key", "cache-control", "x-request-id",
    }
)  # fmt: skip
_NOT_PASSED_OUT: Final = frozenset(
    {"content-type", "content-length", "x-request-id", "request-id", "x-content-type-options"}
)

_log = logging.getLogger("penstock.gateway")


class Wanted(msgspec.Struct, frozen=True):
    """What a call may have from others, and give to them.

    ``asked`` is the digest of what is asked, ``place`` where a call in flight is found,
    ``kept_as`` what its answer is kept under. ``is_fresh``: neither is looked at.
    """

    call: ParsedCall
    caller: Caller
    class_name: str
    asked: bytes
    place: bytes
    kept_as: bytes
    answers: Answers
    is_fresh: bool


class Reuse:
    """Stands before the queue. ``table`` is replaced on a reload."""

    def __init__(
        self,
        inside: InsideCalls,
        table: CacheTable,
        writer: Writer,
        reader: Reader,
        wall: Callable[[], float],
    ) -> None:
        self._inside = inside
        bounds = Bounds(table.ttl_seconds, table.bytes_max)
        self._answers: Answers = AnswersInMemory(bounds)
        if table.storage == "store":
            self._answers = AnswersInStore(writer, reader, bounds, wall)
        self._idempotent = AnswersInMemory(Bounds(IDEMPOTENT_SECONDS, IDEMPOTENT_BYTES_MAX))
        self._wall = wall
        self._in_flight: dict[bytes, SharedCall] = {}
        self.adopt(table)

    def adopt(self, table: CacheTable) -> None:
        """Go by this table from now on; where answers are kept stays."""
        self._table = table
        self._models, self._keys = frozenset(table.models), frozenset(table.keys)
        self._answers.bounds = Bounds(table.ttl_seconds, table.bytes_max)

    def concerns(self, exchange: Exchange, model: str, key_id: str) -> bool:
        """Whether this call is one that may be reused: one cheap look for all others."""
        if not (
            model in self._models or key_id in self._keys or "idempotency-key" in exchange.headers
        ):
            return False
        is_shared = exchange.inside is not None and exchange.inside.on_end is not None
        return exchange.recorder is None and not is_shared

    async def answer(
        self,
        exchange: Exchange,
        call: ParsedCall,
        caller: Caller,
        class_name: str,
        account: Account,
    ) -> Outcome | None:
        """Answer from what is there, or make the call for all who ask; None: make it as usual.

        Raises CallError.
        """
        wanted = self._wanted(exchange, call, caller, class_name)
        if wanted is None:
            return None
        if wanted.is_fresh:
            return await self._lead(exchange, wanted)
        kept = await self._find(wanted)
        if kept is not None:
            _note(exchange, account, wanted)
            return await self._replay(exchange, kept)
        shared = self._in_flight.get(wanted.place)
        if shared is None or not shared.may_be_joined:
            return await self._lead(exchange, wanted)
        if shared.asked != wanted.asked:
            raise _reused()
        _note(exchange, account, wanted)
        await _read(exchange, shared, "joined")
        return Outcome.JOINED if shared.outcome is Outcome.SUCCESS else shared.outcome

    def _wanted(
        self, exchange: Exchange, call: ParsedCall, caller: Caller, class_name: str
    ) -> Wanted | None:
        asked = _digest(exchange, call, caller)
        named = exchange.headers.get("idempotency-key")
        if named is not None:
            if not _IDEMPOTENCY_KEY.match(named):
                raise InvalidRequest(
                    "Idempotency-Key must be 1 to 255 visible ASCII characters.",
                    param="Idempotency-Key",
                )
            principal = caller.principal
            place = _hash(b"named", principal.tenant, principal.key_id, named)
            answers: Answers = self._idempotent
            return Wanted(call, caller, class_name, asked, place, place, answers, is_fresh=False)
        wishes = {wish.strip().lower() for wish in _cache_control(exchange).split(",")}
        if "no-store" in wishes:
            return None
        place = _hash(asked, class_name)
        is_fresh = "no-cache" in wishes
        return Wanted(call, caller, class_name, asked, place, asked, self._answers, is_fresh)

    async def _find(self, wanted: Wanted) -> KeptAnswer | None:
        try:
            kept = await wanted.answers.find(wanted.kept_as, self._wall())
        except StoreError as error:
            _log.error("kept answers cannot be read: %s", error)
            return None
        if kept is not None and kept.asked != wanted.asked:
            raise _reused()
        return kept

    async def _replay(self, exchange: Exchange, kept: KeptAnswer) -> Outcome:
        """The answer as it was; a stream all at once."""
        headers = exchange.response_headers
        headers["penstock-cache"] = "hit"
        headers["age"] = str(max(0, int(self._wall() - kept.kept_at)))
        if kept.is_stream:
            headers.update(STREAM_HEADERS)
        await give_again(exchange, kept.body, is_stream=kept.is_stream)
        return Outcome.CACHED

    async def _lead(self, exchange: Exchange, wanted: Wanted) -> Outcome:
        """Make the call, as its first reader; it is counted where it is made, not here."""
        body = await exchange.body()
        exchange.at_end = None
        exchange.is_counted = False
        shared = SharedCall(wanted.asked)
        made = self._make(exchange, wanted, shared, body)
        shared.task = asyncio.get_running_loop().create_task(made)
        if not wanted.is_fresh:
            self._in_flight[wanted.place] = shared
        await _read(exchange, shared, "miss")
        return shared.outcome

    async def _make(
        self, exchange: Exchange, wanted: Wanted, shared: SharedCall, body: bytes
    ) -> None:
        """The one call."""
        if exchange.principal is None:
            raise InternalError("a call was shared without a key")

        def note_end(outcome: Outcome) -> None:
            shared.outcome = outcome

        before = exchange.inside or Inside(exchange.principal, is_patient=False)
        inside = msgspec.structs.replace(before, on_end=note_end)
        headers = {
            name: value for name, value in exchange.headers.items() if name not in _NOT_PASSED_IN
        }
        headers["x-request-id"] = exchange.request_id
        try:
            path = exchange.scope["path"]
            async with self._inside.open("POST", path, body, inside, headers) as answer:
                shared.begin(answer.status, answer.headers)
                async for piece in answer.pieces():
                    await shared.add(piece)
                shared.is_whole = answer.is_whole
            await self._keep(wanted, shared)
        except InternalError as error:
            _log.error("a shared call failed: %s", error.message)
        finally:
            if self._in_flight.get(wanted.place) is shared:
                del self._in_flight[wanted.place]
            shared.end()

    async def _keep(self, wanted: Wanted, shared: SharedCall) -> None:
        """Keep an answer that went well, before its place is given up."""
        pieces = shared.pieces()
        is_good = shared.outcome is Outcome.SUCCESS and shared.status == 200 and shared.is_whole
        if not is_good or pieces is None or wanted.answers.bounds.age_seconds_max <= 0:
            return
        is_stream = shared.headers.get("content-type", "").startswith("text/event-stream")
        if is_stream:
            pieces = [piece for piece in pieces if not piece.startswith(NOTICE_START)]
        answer = KeptAnswer(b"".join(pieces), is_stream, self._wall(), wanted.asked)
        try:
            await wanted.answers.keep(wanted.kept_as, answer)
        except StoreError as error:
            _log.error("an answer cannot be kept: %s", error)


async def _read(exchange: Exchange, shared: SharedCall, how: str) -> None:
    """Pass a shared answer on to one caller."""
    reading = shared.read()
    try:
        whole = await while_connected(exchange, _pass_on(exchange, shared, reading, how))
    finally:
        reading.close()
    if whole is None:
        await exchange.finish()
    else:
        content_type = shared.headers.get("content-type", "application/json")
        await exchange.respond(shared.status, whole, content_type)


async def _pass_on(
    exchange: Exchange, shared: SharedCall, reading: Reading, how: str
) -> bytes | None:
    """A whole answer's body; a stream is passed on up to its end, and gives None."""
    await reading.begun()
    if not shared.status:
        raise InternalError("The call that this one shares was given up.")
    for name, value in shared.headers.items():
        if name not in _NOT_PASSED_OUT:
            exchange.response_headers[name] = value
    exchange.response_headers["penstock-cache"] = how
    content_type = shared.headers.get("content-type", "application/json")
    if not content_type.startswith("text/event-stream"):
        whole = b"".join([piece async for piece in reading.pieces()])
    else:
        whole = None
        await exchange.start(shared.status, content_type)
        async for piece in reading.pieces():
            await exchange.write(piece)
    if not shared.is_whole:
        raise InternalError("The answer that this call shares broke off.")
    return whole


def _note(exchange: Exchange, account: Account, wanted: Wanted) -> None:
    """What the ledger and the log say of a call that was not made."""
    row, run = account.row, wanted.caller.run
    row.tenant, row.key_id = wanted.caller.principal.tenant, wanted.caller.principal.key_id
    row.class_name, row.model = wanted.class_name, wanted.call.model
    exchange.facts.update({"class": row.class_name, "tenant": row.tenant, "model": row.model})
    exchange.response_headers["penstock-class"] = row.class_name
    if run is not None:
        row.chain, row.run_id, row.step = run.chain, run.run_id, run.step
        exchange.facts.update({"run": run.run_id, "chain": run.chain, "step": run.step})


def _cache_control(exchange: Exchange) -> str:
    return exchange.headers.get("cache-control", "")


def _digest(exchange: Exchange, call: ParsedCall, caller: Caller) -> bytes:
    """What is asked, of whom, in whose name."""
    versions = [exchange.headers.get(name, "") for name in _VERSIONS]
    fields: list[str | bytes] = []
    for name in sorted(call.fields):
        if name not in OURS:
            fields += [name, bytes(call.fields[name])]
    return _hash(caller.principal.tenant, call.endpoint.value, *versions, *fields)


def _hash(*parts: str | bytes) -> bytes:
    """A digest that no other row of parts has."""
    hasher = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        hasher.update(b"%d:" % len(raw))
        hasher.update(raw)
    return hasher.digest()


def _reused() -> Unprocessable:
    return Unprocessable(
        "This Idempotency-Key was used for another request; take a new one for a new request.",
        code="idempotency_key_reused",
    )
