"""One attempt of a run: asked of a worker, told in events, and what it leaves on its thread."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from penstock.http.inside import InsideAnswer, InsideCalls
from penstock.jobs.execution import (
    ERROR_BYTES_MAX,
    Attempt,
    Emit,
    Ending,
    late_failure,
    refused,
    too_large,
)
from penstock.jobs.frames import Frames
from penstock.jobs.states import Happening
from penstock.store.jobs import Job

RESULT: Final = "result"
"""The worker's last frame; it is for us."""


class RunDetails(msgspec.Struct, frozen=True):
    """What a run is beyond its job. ``deadline`` in Unix seconds; ``is_stateless``: no thread."""

    thread_id: str
    is_stateless: bool
    multitask: str
    metadata: msgspec.Raw
    deadline: float | None = None


class Standing(msgspec.Struct):
    """How a run left its thread, as the worker says; raw JSON is kept as it came."""

    values: msgspec.Raw = msgspec.Raw(b"null")
    interrupts: msgspec.Raw = msgspec.Raw(b"{}")
    is_paused: bool = False


class _Result(msgspec.Struct):
    output: msgspec.Raw = msgspec.Raw(b"null")
    thread: Standing | None = None


Settle = Callable[[Job, str, Standing | None], Any]
"""Awaited with a run that has ended, its thread's new status, and what is shown of it."""


class AgentExecutor:
    """Carries out runs. ``settle`` is told how each left its thread."""

    def __init__(self, calls: InsideCalls, result_bytes_max: int, settle: Settle) -> None:
        self._calls = calls
        self._result_bytes_max = result_bytes_max
        self._settle = settle

    async def __call__(self, attempt: Attempt, emit: Emit) -> Ending:
        """One request to a worker, one ending."""
        job = attempt.job
        details = msgspec.json.decode(job.details, type=RunDetails)
        headers = {}
        if details.deadline is not None:
            left_seconds = max(1, math.ceil(details.deadline - time.time()))
            headers["prefer"] = f"wait={left_seconds}"
        began = {"run_id": job.job_id, "attempt": job.attempts}
        await emit("metadata", msgspec.json.encode(began))
        async with self._calls.open(
            "POST", job.path, attempt.body, attempt.inside, headers
        ) as answer:
            if answer.status != 200:
                body = await answer.body(ERROR_BYTES_MAX)
                ending, standing = refused(answer.status, body or b""), None
            else:
                ending, standing = await self._streamed(answer, emit)
        if not details.is_stateless:
            status = "error"
            if ending.happening is Happening.SUCCEEDED:
                status = "interrupted" if standing and standing.is_paused else "idle"
            await self._settle(job, status, standing)
        return ending

    async def _streamed(self, answer: InsideAnswer, emit: Emit) -> tuple[Ending, Standing | None]:
        frames = Frames(self._result_bytes_max)
        failure: Ending | None = None
        result: _Result | None = None
        async for piece in answer.pieces():
            for name, data in frames.feed(piece):
                if name == "error":
                    failure = late_failure(data)
                elif name == RESULT:
                    result = msgspec.json.decode(data, type=_Result)
                else:
                    await emit(name, data)
        if failure is not None:
            return failure, None
        if frames.too_large:
            return too_large(self._result_bytes_max), None
        if result is None:
            message = "The stream of the run broke off before its end."
            return Ending(Happening.BROKEN_OFF, code="stream_broken", message=message), None
        return Ending(Happening.SUCCEEDED, 200, body=bytes(result.output)), result.thread
