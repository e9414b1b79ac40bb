"""What is answered of jobs, for the document of what is served; ``door.document`` makes it."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from penstock.jobs.states import State


class JobFailure(msgspec.Struct):
    """Why a job gave nothing."""

    code: str
    message: str | None
    status: int | None


class JobShown(msgspec.Struct, kw_only=True):
    """A job. Times are Unix seconds."""

    id: str
    object: Literal["job"]
    status: State
    chain: str
    path: str
    class_name: str = msgspec.field(name="class")
    attempts: int
    created_at: float
    started_at: float | None
    finished_at: float | None
    error: JobFailure | None
    events_truncated: bool
    result: Any


class JobPage(msgspec.Struct):
    """Some jobs, the newest first."""

    object: Literal["list"]
    data: list[JobShown]
    has_more: bool


class JobDeleted(msgspec.Struct):
    """A job that is no more."""

    id: str
    object: Literal["job.deleted"]
    deleted: bool


class WebhookSecret(msgspec.Struct):
    """What a tenant's receivers check messages with."""

    secret: str
