"""What bodies and answers of the protocol hold: the document of what is served shows these.

Handlers read bodies field by field (``request.Fields``), so that each refusal names its field;
which fields there are they have from here.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from penstock.http.query import UNPROCESSABLE, Query
from penstock.jobs.door import AFTER_SECONDS_MAX
from penstock.jobs.shapes import PageLimit
from penstock.jobs.states import State

IDS_MAX: Final = 1000
LIMIT_MAX: Final = 1000
OFFSET_MAX: Final = 10_000
MODES_MAX: Final = 16
BATCH_MAX: Final = 100

Multitask: TypeAlias = Literal["reject", "enqueue", "interrupt", "rollback"]
IfNotExists: TypeAlias = Literal["reject", "create"]
OnDisconnect: TypeAlias = Literal["cancel", "continue"]
Status: TypeAlias = Literal["idle", "busy", "interrupted", "error"]
SortBy: TypeAlias = Literal["created_at", "updated_at", "thread_id", "status"]

_Mode: TypeAlias = Annotated[str, Meta(pattern=r"^[a-z-]{1,32}\Z")]
_CHECKPOINT_ID: Final = r"^[A-Za-z0-9-]{1,64}\Z"
_CheckpointId: TypeAlias = Annotated[str, Meta(pattern=_CHECKPOINT_ID)]
_Before: TypeAlias = Annotated[
    str,
    Meta(
        pattern=_CHECKPOINT_ID,
        description="a checkpoint's id: letters, digits and hyphens",
        extra=UNPROCESSABLE,
    ),
]
_Skipped: TypeAlias = Annotated[
    int, Meta(ge=0, le=999, description="how many are left out before", extra=UNPROCESSABLE)
]
_RunState: TypeAlias = Annotated[State | None, Meta(extra=UNPROCESSABLE)]
_Uuid: TypeAlias = Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
_Object: TypeAlias = dict[str, Any]
_Limit: TypeAlias = Annotated[int, Meta(ge=1, le=LIMIT_MAX)]
_Offset: TypeAlias = Annotated[int, Meta(ge=0, le=OFFSET_MAX)]
_After: TypeAlias = Annotated[float, Meta(ge=0, le=AFTER_SECONDS_MAX)]


class Checkpoint(msgspec.Struct):
    """A point of a thread, whole; of subgraphs none can be named."""

    checkpoint_id: _CheckpointId | None = None
    checkpoint_ns: str | None = None
    checkpoint_map: Any = None
    thread_id: str | None = None


class RunsQuery(Query, frozen=True):
    """Which runs of a thread are wanted, the newest first."""

    limit: PageLimit = 10
    offset: _Skipped = 0
    status: _RunState = None


class StreamQuery(Query, frozen=True):
    """What a stream tells of a run."""

    stream_mode: Annotated[
        str | None, Meta(description="the one mode whose events are told; default: all there are")
    ] = None


class JoinQuery(Query, frozen=True):
    """What becomes of a run when who waits for it hangs up."""

    cancel_on_disconnect: bool = False


class JoinStreamQuery(StreamQuery, frozen=True):
    """The same of a stream, and what it tells of the run."""

    cancel_on_disconnect: bool = False


class CancelQuery(Query, frozen=True):
    """How a run is ended, and whether the answer waits for its end."""

    action: Annotated[Literal["interrupt", "rollback"], Meta(extra=UNPROCESSABLE)] = "interrupt"
    wait: bool = False


class StateQuery(Query, frozen=True):
    """What is shown of a state."""

    subgraphs: bool = False


class HistoryQuery(Query, frozen=True):
    """Which states of a thread are wanted, the newest first."""

    limit: PageLimit = 10
    before: _Before | None = None


class Body(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A body: a field that nobody knows is refused, and null is as if a field were not there."""


class RunBody(Body, kw_only=True):
    """A run that is wanted. ``input``, ``command``, ``config`` and ``context`` are the graph's."""

    assistant_id: str
    input: Any = None
    command: _Object | None = None
    config: _Object | None = None
    context: _Object | None = None
    metadata: _Object | None = None
    stream_mode: _Mode | Annotated[list[_Mode], Meta(max_length=MODES_MAX)] | None = None
    stream_subgraphs: bool | None = None
    stream_resumable: bool | None = None
    interrupt_before: Literal["*"] | list[str] | None = None
    interrupt_after: Literal["*"] | list[str] | None = None
    durability: Literal["sync", "async", "exit"] | None = None
    checkpoint: Checkpoint | None = None
    checkpoint_id: _CheckpointId | None = None
    checkpoint_during: bool | None = None
    multitask_strategy: Multitask | None = None
    if_not_exists: IfNotExists | None = None
    on_disconnect: OnDisconnect | None = None
    on_completion: Any = None
    after_seconds: _After | None = None
    webhook: str | None = None


RunBatch: TypeAlias = Annotated[list[RunBody], Meta(max_length=BATCH_MAX)]


class ThreadBody(Body, kw_only=True):
    """A thread that is wanted."""

    thread_id: _Uuid | None = None
    metadata: _Object | None = None
    if_exists: Literal["raise", "do_nothing"] | None = None


class ThreadChange(Body, kw_only=True):
    """What is added to a thread's metadata."""

    metadata: _Object | None = None


class ThreadSearch(Body, kw_only=True):
    """Which threads are wanted."""

    metadata: _Object | None = None
    ids: Annotated[list[str], Meta(max_length=IDS_MAX)] | None = None
    status: Status | None = None
    limit: _Limit | None = None
    offset: _Offset | None = None
    sort_by: SortBy | None = None
    sort_order: str | None = None
    select: list[str] | None = None


class StateChange(Body, kw_only=True):
    """Values that a thread's state gets, as if a node had given them."""

    values: Any = None
    as_node: str | None = None
    checkpoint_id: _CheckpointId | None = None
    checkpoint: Checkpoint | _CheckpointId | None = None


class StateWanted(Body, kw_only=True):
    """Which state of a thread is wanted."""

    checkpoint: Checkpoint | _CheckpointId | None = None
    subgraphs: bool | None = None


class HistoryWanted(Body, kw_only=True):
    """Which states of a thread are wanted, the newest first."""

    limit: _Limit | None = None
    before: Checkpoint | _CheckpointId | None = None


class AssistantSearch(Body, kw_only=True):
    """Which assistants are wanted."""

    graph_id: str | None = None
    name: str | None = None
    metadata: _Object | None = None
    limit: _Limit | None = None
    offset: _Offset | None = None
    sort_by: Any = None
    sort_order: Any = None
    select: list[str] | None = None


class RunShown(msgspec.Struct, kw_only=True):
    """A run."""

    run_id: str
    thread_id: str
    assistant_id: str
    created_at: str
    updated_at: str
    status: State
    metadata: _Object
    multitask_strategy: Multitask
    kwargs: _Object


class ThreadShown(msgspec.Struct, kw_only=True):
    """A thread; ``values`` and ``interrupts`` are its graph's."""

    thread_id: str
    created_at: str
    updated_at: str
    metadata: _Object
    status: Status
    config: _Object
    values: Any
    interrupts: Any


class StateShown(msgspec.Struct, kw_only=True):
    """A state of a thread."""

    values: Any
    next: list[str]
    tasks: list[_Object]
    metadata: _Object
    created_at: str | None
    checkpoint: _Object | None
    parent_checkpoint: _Object | None
    interrupts: list[Any]


class AssistantShown(msgspec.Struct, kw_only=True):
    """A chain as an assistant."""

    assistant_id: str
    graph_id: str
    name: str
    description: str | None
    version: int
    config: _Object
    context: _Object
    metadata: _Object
    created_at: str
    updated_at: str


def fields_of(body: type[Body]) -> frozenset[str]:
    """The names of a body's fields."""
    return frozenset(body.__struct_fields__)
