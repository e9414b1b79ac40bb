"""What clients of the protocol ask for: bodies read strictly, each field by its name.

A field that is known and not served is refused by name (501), one that nobody knows is, too
(422): ignored in silence it would change what a run means. What only the graph understands
(``input``, ``config``, ``command``, ``context``) passes to the worker as the bytes that came.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec

from penstock.errors import InvalidRequest, NotServed, Unprocessable
from penstock.jobs.agent.shapes import (
    LIMIT_MAX,
    MODES_MAX,
    OFFSET_MAX,
    Checkpoint,
    IfNotExists,
    Multitask,
    OnDisconnect,
    RunBody,
    fields_of,
)
from penstock.jobs.door import AFTER_SECONDS_MAX
from penstock.providers.request import split_fields

METADATA_BYTES_MAX: Final = 16 * 1024

NAMESPACE: Final = uuid.UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8")
"""Of assistants' ids: the UUID of version 5 of a chain's name in it."""

_TO_WORKER: Final = ("input", "command", "config", "context", "stream_subgraphs")
_TO_WORKER_TOO: Final = ("interrupt_before", "interrupt_after", "durability")
# ``stream_resumable`` and ``on_completion`` change nothing: every stream can be resumed here, and
# a run without a thread leaves none behind.
_NOT_SERVED: Final = frozenset({"feedback_keys", "langsmith_tracer", "strict_resume"})
_MODE: Final = re.compile(r"[a-z-]{1,32}\Z")
_CHECKPOINT_ID: Final = re.compile(r"[A-Za-z0-9-]{1,64}\Z")

_T = TypeVar("_T")


class RunRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One run that is wanted. ``to_worker`` is the worker's body but for the thread's id."""

    assistant: str
    to_worker: dict[str, msgspec.Raw]
    metadata: bytes
    modes: list[str]
    multitask: str
    creates_thread: bool
    cancels_on_disconnect: bool
    after_seconds: float
    webhook: str | None


def read_run(body: bytes) -> RunRequest:
    """A body of one of the routes that create runs. Raises InvalidRequest, NotServed."""
    fields = Fields(body, _FIELDS)
    for name in sorted(_NOT_SERVED & fields.given.keys()):
        if fields.given[name] not in (b"[]", b"false", b"{}"):
            raise NotServed(f"'{name}' is not served.", param=name)
    modes = fields.read("stream_mode", str | list[str], "a stream mode or several") or "values"
    modes = [modes] if isinstance(modes, str) else modes
    if len(modes) > MODES_MAX or not all(_MODE.match(mode) for mode in modes):
        raise InvalidRequest("'stream_mode' must name stream modes.", param="stream_mode")
    names = (*_TO_WORKER, *_TO_WORKER_TOO)
    to_worker = {name: fields.given[name] for name in names if name in fields.given}
    during = fields.read("checkpoint_during", bool, "true or false")
    if during is not None and "durability" not in to_worker:
        to_worker["durability"] = msgspec.Raw(b'"async"' if during else b'"exit"')
    checkpoint_id = _checkpoint_id(fields)
    if checkpoint_id is not None:
        to_worker["checkpoint_id"] = msgspec.Raw(msgspec.json.encode(checkpoint_id))
    to_worker["stream_mode"] = msgspec.Raw(msgspec.json.encode(modes))
    after_seconds = fields.read("after_seconds", float, "a number of seconds") or 0.0
    if not 0 <= after_seconds <= AFTER_SECONDS_MAX:
        raise InvalidRequest(
            f"'after_seconds' must be from 0 to {AFTER_SECONDS_MAX:g}.", param="after_seconds"
        )
    return RunRequest(
        assistant=fields.needed("assistant_id", str, "a string"),
        to_worker=to_worker,
        metadata=metadata_of(fields),
        modes=modes,
        multitask=fields.read(
            "multitask_strategy", Multitask, "reject, enqueue, interrupt or rollback"
        )
        or "enqueue",
        creates_thread=fields.read("if_not_exists", IfNotExists, "reject or create") == "create",
        cancels_on_disconnect=fields.read("on_disconnect", OnDisconnect, "cancel or continue")
        == "cancel",
        after_seconds=after_seconds,
        webhook=fields.read("webhook", str, "a URL"),
    )


_FIELDS: Final = fields_of(RunBody) | _NOT_SERVED


class Fields:
    """The fields of one body; ``given`` are those that are not null. Raises InvalidRequest."""

    def __init__(
        self, body: bytes, known: frozenset[str], not_served: frozenset[str] = frozenset()
    ) -> None:
        split = split_fields(body or b"{}", known | not_served)
        self.given: Mapping[str, msgspec.Raw] = {
            name: msgspec.Raw(bytes(raw)) for name, raw in split.items() if bytes(raw) != b"null"
        }
        for name in sorted(self.given.keys() & not_served):
            raise NotServed(f"'{name}' is not served.", param=name)
        unknown = sorted(self.given.keys() - known)
        if unknown:
            raise Unprocessable(
                f"There is no field {unknown[0][:64]!r} here; the fields are "
                + ", ".join(sorted(known))
                + ".",
                param=unknown[0][:64],
            )

    def read(self, name: str, kind: Any, wanted: str) -> Any:
        """The field's value; None where it is missing or null. Raises InvalidRequest."""
        raw = self.given.get(name)
        if raw is None:
            return None
        try:
            return msgspec.json.decode(raw, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Unprocessable(f"'{name}' must be {wanted}.", param=name) from None

    def needed(self, name: str, kind: Any, wanted: str) -> Any:
        """The same for a field that must be there."""
        value = self.read(name, kind, wanted)
        if value is None:
            raise Unprocessable(f"'{name}' is needed: {wanted}.", param=name)
        return value

    def limit(self, default: int = 10) -> int:
        """How many are wanted."""
        limit = self.read("limit", int, "a whole number")
        limit = default if limit is None else limit
        if not 1 <= limit <= LIMIT_MAX:
            raise Unprocessable(f"'limit' must be from 1 to {LIMIT_MAX}.", param="limit")
        return int(limit)

    def offset(self) -> int:
        """How many to leave out before."""
        offset = self.read("offset", int, "a whole number") or 0
        if not 0 <= offset <= OFFSET_MAX:
            raise Unprocessable(f"'offset' must be from 0 to {OFFSET_MAX}.", param="offset")
        return int(offset)


def metadata_of(fields: Fields) -> bytes:
    """The ``metadata`` of a body, as JSON. Raises InvalidRequest."""
    metadata = fields.read("metadata", dict[str, msgspec.Raw], "an object") or {}
    encoded = msgspec.json.encode(metadata)
    if len(encoded) > METADATA_BYTES_MAX:
        raise Unprocessable(
            f"'metadata' must have at most {METADATA_BYTES_MAX} bytes.", param="metadata"
        )
    return encoded


def _checkpoint_id(fields: Fields) -> str | None:
    """The checkpoint that a body names in either way."""
    named: str | None = fields.read("checkpoint_id", str, "a checkpoint's id")
    checkpoint = fields.read("checkpoint", Checkpoint, "a checkpoint")
    return checked_checkpoint(named, checkpoint)


def checkpoint_of(fields: Fields, name: str = "checkpoint") -> str | None:
    """The id of the checkpoint in the field ``name``, given whole or by its id alone."""
    given = fields.read(name, str | Checkpoint, "a checkpoint, or its id")
    if isinstance(given, str):
        return checked_checkpoint(given, None)
    return checked_checkpoint(None, given)


def checked_checkpoint(checkpoint_id: str | None, whole: Checkpoint | None) -> str | None:
    """A checkpoint's id that may pass. Raises Unprocessable, NotServed."""
    if whole is not None:
        if whole.checkpoint_ns:
            raise NotServed("Checkpoints of subgraphs are not served.", param="checkpoint_ns")
        checkpoint_id = checkpoint_id or whole.checkpoint_id
    if checkpoint_id is not None and not _CHECKPOINT_ID.match(checkpoint_id):
        raise Unprocessable("A checkpoint's id has letters, digits and hyphens only.")
    return checkpoint_id


def uuid_of(text: str, what: str) -> str:
    """A UUID in its usual form. Raises Unprocessable."""
    try:
        if len(text) <= 64:
            return str(uuid.UUID(text))
    except ValueError:
        pass
    raise Unprocessable(f"The {what} must be a UUID.")


def assistant_id(chain: str) -> str:
    """The stable id of a chain as an assistant."""
    return str(uuid.uuid5(NAMESPACE, chain))
