"""The journal: a durable run that is attempted again does not pay for its finished calls again.

Every LLM call of a run comes through this door, with the run's signed identity. So the door can
keep what it answered, under (job, digest of the request, ordinal), and answer from that when the
next attempt asks the same. The chain needs no checkpoints and knows nothing of it.

*The ordinal* tells calls apart that are the same to the byte, such as three samples of one
prompt: it is the lowest that no other call of this attempt has. A call that fails gives its
ordinal back, so the SDK's own repetition of it finds the place that it would have had.

*When it is kept*: before the caller can act on it. A whole answer is committed before it is
sent. Of a stream the piece that was read last is held back until the next one comes, and the
very last until the commit: a caller that has seen the end can rely on the journal. Committing
afterwards would leave a gap in which the chain goes on, a crash comes, and a finished call is
paid for twice. What is in flight at a crash is paid for again; nobody can tell whether it was.

*What is not kept*: failures (another attempt may do better), answers over the bounds below, and
anything while the store fails: then the run goes on, and a crash costs more.

Rejected: keeping answers by request alone (a cache: a sampled answer must be new for each
ordinal), a position in the run instead of a digest (parallel branches change order).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable
from typing import Final

from penstock.errors import StoreError
from penstock.gateway.accounts import Accounts
from penstock.gateway.who import Caller, caller_of
from penstock.http.door import Desk, Handler
from penstock.http.exchange import ClientGone, Exchange, give_again
from penstock.http.run_identity import HEADER
from penstock.store.journal import JournalStore, KeptCall
from penstock.units import Outcome, RunIdentity

CALL_BYTES_MAX: Final = 16 * 1024 * 1024
"""An answer that is larger is passed on and not kept."""
JOB_BYTES_MAX: Final = 256 * 1024 * 1024
"""What is kept of one attempt's calls together."""

_log = logging.getLogger("penstock.gateway")


class _Attempt:
    """One attempt of a job: which ordinals its calls have, by digest."""

    def __init__(self) -> None:
        self.taken: dict[bytes, set[int]] = {}
        self.bytes_kept = 0
        self.open_count = 0
        self.was_cut = False

    def take(self, digest: bytes) -> int:
        """The lowest ordinal that is free."""
        taken = self.taken.setdefault(digest, set())
        ordinal = 0
        while ordinal in taken:
            ordinal += 1
        taken.add(ordinal)
        return ordinal

    def give_back(self, digest: bytes, ordinal: int) -> None:
        """That call failed: another may have its place."""
        self.taken[digest].discard(ordinal)


class Journal:
    """Stands before the gateway's handlers. All methods belong to the event loop's thread."""

    def __init__(self, store: JournalStore, desk: Desk, accounts: Accounts, run_key: bytes) -> None:
        self._store = store
        self._desk = desk
        self._accounts = accounts
        self._run_key = run_key
        self._attempts: dict[str, dict[int, _Attempt]] = {}

    def around(self, handler: Handler) -> Handler:
        """``handler``, which is asked only what the journal cannot answer."""

        def handle(exchange: Exchange) -> Awaitable[Outcome]:
            principal = exchange.principal
            if principal is None or not principal.internal or HEADER not in exchange.headers:
                return handler(exchange)
            authenticator = self._desk.authenticator
            caller = caller_of(principal, exchange.headers, authenticator, self._run_key)
            if caller.run is None or not caller.run.job_id:
                return handler(exchange)
            return self._answer(exchange, handler, caller, caller.run)

        return handle

    def attempt_ended(self, job_id: str) -> bool:
        """No call of what this job has attempted so far will come any more.

        Says whether one of them is open, or was when its caller was lost.
        """
        attempts = self._attempts.pop(job_id, {})
        return any(attempt.open_count or attempt.was_cut for attempt in attempts.values())

    async def _answer(
        self, exchange: Exchange, handler: Handler, caller: Caller, run: RunIdentity
    ) -> Outcome:
        body = await exchange.body()
        path = exchange.scope["path"].encode()
        digest = hashlib.sha256(path + b"\x00" + body).digest()
        attempt = self._attempts.setdefault(run.job_id, {}).setdefault(run.attempt, _Attempt())
        ordinal = attempt.take(digest)
        kept = await self._find(run, digest, ordinal)
        if kept is not None:
            attempt.bytes_kept += len(kept.body)
            return await self._replay(exchange, caller, run, kept)
        recorder = _Recorder(self, exchange, attempt, (run.job_id, digest, ordinal))
        exchange.recorder = recorder
        attempt.open_count += 1
        attempt.was_cut = False
        try:
            return await handler(exchange)
        except ClientGone:
            attempt.was_cut = True
            raise
        finally:
            attempt.open_count -= 1
            if not recorder.is_finished:
                attempt.give_back(digest, ordinal)

    async def _find(self, run: RunIdentity, digest: bytes, ordinal: int) -> KeptCall | None:
        if run.attempt <= 1:
            return None  # Nothing was finished before the first attempt.
        try:
            return await asyncio.wrap_future(self._store.find(run.job_id, digest, ordinal))
        except StoreError as error:
            _log.error("the journal cannot be read: %s", error)
            return None

    async def _replay(
        self, exchange: Exchange, caller: Caller, run: RunIdentity, kept: KeptCall
    ) -> Outcome:
        """The answer as it was; in the ledger it stands as replayed, and cost nothing."""
        account = self._accounts.open(exchange, caller.principal)
        row = account.row
        row.chain, row.run_id, row.step = run.chain, run.run_id, run.step
        row.class_name = caller.principal.class_default
        exchange.facts.update(
            {
                "class": row.class_name,
                "tenant": row.tenant,
                "run": run.run_id,
                "chain": run.chain,
                "step": run.step,
            }
        )
        exchange.response_headers["penstock-replayed"] = "true"
        if kept.is_stream:
            exchange.response_headers["cache-control"] = "no-cache"
        await give_again(exchange, kept.body, is_stream=kept.is_stream)
        return Outcome.REPLAYED

    async def keep(self, attempt: _Attempt, place: tuple[str, bytes, int], call: KeptCall) -> None:
        """Have an answer on the disk, if it has room."""
        size = len(call.body)
        if size > CALL_BYTES_MAX or attempt.bytes_kept + size > JOB_BYTES_MAX:
            _log.warning("an answer of job %s is too large for the journal", place[0])
            return
        attempt.bytes_kept += size
        try:
            await asyncio.wrap_future(self._store.keep(*place, call))
        except StoreError as error:
            _log.error("the journal cannot be written: %s", error)


class _Recorder:
    """Sees one answer pass; ``is_finished`` once it was a good one, to its end."""

    def __init__(
        self,
        journal: Journal,
        exchange: Exchange,
        attempt: _Attempt,
        place: tuple[str, bytes, int],
    ) -> None:
        self.is_finished = False
        self._journal = journal
        self._exchange = exchange
        self._attempt = attempt
        self._place = place
        self._pieces: list[bytes] = []
        self._bytes = 0
        self._held = b""

    async def whole(self, status: int, body: bytes) -> None:
        """A whole answer is about to be sent."""
        if status == 200:
            self.is_finished = True
            await self._journal.keep(self._attempt, self._place, KeptCall(body, is_stream=False))

    def piece(self, chunk: bytes) -> bytes:
        """A piece of a stream has come: what may be sent now is the one before."""
        held, self._held = self._held, chunk
        self._bytes += len(chunk)
        if self._bytes <= CALL_BYTES_MAX:
            self._pieces.append(chunk)
        else:
            self._pieces.clear()
        return held

    async def last(self) -> bytes:
        """The stream is at its end: what is left to be sent, once it is kept."""
        if "error" not in self._exchange.facts:
            self.is_finished = True
            if self._bytes <= CALL_BYTES_MAX:
                call = KeptCall(b"".join(self._pieces), is_stream=True)
                await self._journal.keep(self._attempt, self._place, call)
        return self._held
