"""One attempt of a job: a request to a door of this process, and what its answer means.

An answer of 200 is the result. Of the others, those that say "not now" (a worker died, a
provider is down, a queue is full) break the attempt off, and another may follow; those that
would come again (the chain raised, the input is wrong, the key may not) end the job. A run over
its time limit ends it, too: it would be over it again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import msgspec

from penstock.http.auth import Principal
from penstock.http.exchange import Inside
from penstock.http.inside import InsideAnswer, InsideCalls
from penstock.jobs.frames import Frames
from penstock.jobs.states import Happening
from penstock.store.jobs import Job

Emit = Callable[[str | None, bytes], Awaitable[None]]
"""Tells one event of the job's stream: its name and its data."""

ERROR_BYTES_MAX: Final = 256 * 1024
FINAL_CODES: Final = frozenset(
    {
        "chain_failed",
        "not_served",
        "request_exceeds_limit",
        "upstream_auth",
        "upstream_invalid",
        "upstream_quota_exhausted",
    }
)
"""Codes of failures that would come again, whatever their status."""
TIMEOUT_CODES: Final = frozenset({"chain_timeout"})


class Ending(msgspec.Struct, frozen=True):
    """How an attempt ended. ``body`` is the result where it succeeded."""

    happening: Happening
    status: int | None = None
    content_type: str = "application/json"
    body: bytes | None = None
    code: str | None = None
    message: str | None = None


class Attempt(msgspec.Struct, frozen=True):
    """What is to be done: the job (its ``attempts`` is this one's number), in whose name.

    ``arrival`` is when the job arrived, in monotonic seconds.
    """

    job: Job
    body: bytes
    principal: Principal
    arrival: float

    @property
    def inside(self) -> Inside:
        """Who asks, for the doors of this process."""
        return Inside(self.principal, self.job.job_id, self.job.attempts, self.arrival)


class Executor(Protocol):
    """Carries out the attempts of one kind of job.

    Cancelled when the job is, or when the service stops. What it raises is a fault of ours.
    """

    async def __call__(self, attempt: Attempt, emit: Emit) -> Ending:
        """Carry out one attempt."""


class RequestExecutor:
    """Makes the job's request. A stream's events are told as they come."""

    def __init__(self, calls: InsideCalls, result_bytes_max: int) -> None:
        self._calls = calls
        self._result_bytes_max = result_bytes_max

    async def __call__(self, attempt: Attempt, emit: Emit) -> Ending:
        """One request, one ending."""
        job = attempt.job
        async with self._calls.open("POST", job.path, attempt.body, attempt.inside) as answer:
            content_type = answer.headers.get("content-type", "")
            if answer.status == 200 and content_type.startswith("text/event-stream"):
                return await self._streamed(attempt, answer, emit)
            if answer.status == 200:
                body = await answer.body(self._result_bytes_max)
                if body is None:
                    return too_large(self._result_bytes_max)
                return Ending(Happening.SUCCEEDED, 200, content_type, body)
            body = await answer.body(ERROR_BYTES_MAX)
            return refused(answer.status, body or b"")

    async def _streamed(self, attempt: Attempt, answer: InsideAnswer, emit: Emit) -> Ending:
        """Tell each event; the stream's own ``error`` event is how a late failure looks."""
        job = attempt.job
        began = {"run_id": job.job_id, "attempt": job.attempts}
        await emit("metadata", msgspec.json.encode(began))
        frames = Frames(self._result_bytes_max)
        failure: Ending | None = None
        async for piece in answer.pieces():
            for name, data in frames.feed(piece):
                if name == "error":
                    failure = late_failure(data)
                elif name not in ("metadata", "end"):
                    await emit(name, data)
        if failure is not None:
            return failure
        if not answer.is_whole or frames.too_large:
            return Ending(
                Happening.BROKEN_OFF,
                code="stream_broken",
                message="The stream of the run broke off before its end.",
            )
        return Ending(Happening.SUCCEEDED, 200, body=None)


class _Error(msgspec.Struct):
    code: str | None = None
    message: str | None = None


class _Problem(msgspec.Struct):
    error: _Error | None = None
    type: str = ""
    detail: msgspec.Raw = msgspec.Raw(b"null")


class _Late(msgspec.Struct):
    status_code: int = 500
    message: str = ""
    code: str = ""


def refused(status: int, body: bytes) -> Ending:
    """What an answer that is no success means. ``body`` is one of ours, or a provider's."""
    code, message = "", ""
    try:
        problem = msgspec.json.decode(body, type=_Problem)
        if problem.error is not None:
            code, message = problem.error.code or "", problem.error.message or ""
        elif problem.type.startswith("urn:penstock:error:"):
            code = problem.type.rpartition(":")[2]
            message = _text(problem.detail)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    return failed(status, code, message)


def late_failure(data: bytes) -> Ending:
    """What an ``error`` event in a stream means."""
    try:
        late = msgspec.json.decode(data, type=_Late)
    except (msgspec.DecodeError, UnicodeDecodeError):
        late = _Late()
    return failed(late.status_code, late.code, late.message)


def failed(status: int, code: str, message: str) -> Ending:
    """The ending of an attempt that failed with this status and code."""
    if code in TIMEOUT_CODES:
        happening = Happening.TIMED_OUT
    elif code in FINAL_CODES or (status < 500 and status not in (408, 429)):
        happening = Happening.FAILED
    else:
        happening = Happening.BROKEN_OFF
    return Ending(
        happening,
        status,
        code=code or "failed",
        message=message or f"The run was answered with status {status}.",
    )


def too_large(bytes_max: int) -> Ending:
    """The result has no place."""
    return Ending(
        Happening.FAILED,
        413,
        code="result_too_large",
        message=f"The result is larger than {bytes_max} bytes, [jobs] result_bytes_max.",
    )


def _text(raw: msgspec.Raw) -> str:
    try:
        return msgspec.json.decode(raw, type=str)
    except msgspec.DecodeError:
        return "The input was refused."
