"""What is asked and answered of jobs, files and batches.

What is answered of jobs is for the document of what is served; ``door.document`` makes it.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from penstock.http.query import Query
from penstock.jobs.lines import BatchProblem
from penstock.jobs.states import State
from penstock.store.batches import OPEN_STATES

PAGE_MAX: Final = 100
PURPOSES: Final = ("batch", "batch_output")
ENDED_STATES: Final = ("completed", "expired", "cancelled")
"""Of a batch that was begun."""

_Number: TypeAlias = Annotated[
    int, Meta(ge=0, le=999_999_999, description="the sequence_number of the last event known")
]
_Purpose: TypeAlias = Annotated[str, Meta(extra_json_schema={"enum": PURPOSES})]
_BatchState: TypeAlias = Annotated[
    str, Meta(extra_json_schema={"enum": (*OPEN_STATES, *ENDED_STATES, "failed")})
]

PageLimit: TypeAlias = Annotated[
    int, Meta(ge=1, le=PAGE_MAX, description="how many are shown, at most")
]
After: TypeAlias = Annotated[
    str | None, Meta(description="the last one of the page before, by its id")
]


class JobsQuery(Query, frozen=True):
    """Which jobs are wanted, the newest first."""

    status: State | None = None
    limit: PageLimit = 20
    after: After = None


class FilesQuery(Query, frozen=True):
    """Which files are wanted, the newest first."""

    purpose: Annotated[str | None, Meta(description=" or ".join(PURPOSES))] = None
    limit: PageLimit = 100
    after: After = None


class BatchesQuery(Query, frozen=True):
    """Which batches are wanted, the newest first."""

    limit: PageLimit = 20
    after: After = None


class ResponseQuery(Query, frozen=True):
    """How a background response is told: whole, or as a stream of what it comes to."""

    stream: bool = False
    starting_after: _Number | None = None


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


class FileUpload(msgspec.Struct):
    """A file of requests, one a line."""

    file: Annotated[str, Meta(extra_json_schema={"format": "binary"})]
    purpose: Literal["batch"]


class FileShown(msgspec.Struct):
    """A file as the OpenAI SDKs know it. Times are Unix seconds."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: _Purpose
    status: Literal["processed"]


class FilePage(msgspec.Struct):
    """Some files, the newest first."""

    object: Literal["list"]
    data: list[FileShown]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeleted(msgspec.Struct):
    """A file that is no more."""

    id: str
    object: Literal["file"]
    deleted: bool


class BatchProblems(msgspec.Struct):
    """Why a batch was not begun."""

    object: Literal["list"]
    data: list[BatchProblem]


class BatchCounts(msgspec.Struct):
    """How many lines a batch has, and what became of them."""

    total: int
    completed: int
    failed: int


class BatchShown(msgspec.Struct, kw_only=True):
    """A batch as the OpenAI SDKs know it. Times are Unix seconds."""

    id: str
    object: Literal["batch"]
    endpoint: str
    errors: BatchProblems | None
    input_file_id: str
    completion_window: str
    status: _BatchState
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: BatchCounts
    metadata: dict[str, str] | None


class BatchPage(msgspec.Struct):
    """Some batches, the newest first."""

    object: Literal["list"]
    data: list[BatchShown]
    first_id: str | None
    last_id: str | None
    has_more: bool
