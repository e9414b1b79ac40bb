"""Uploaded files and what batches leave: bytes in a directory beside the database, rows in it.

A file is written under a name that nobody knows yet, synced, and then made known by its row. A
crash in between leaves bytes without a row. They look like those of an upload under way, in this
process or in one that stops while this one starts, so ``sweep`` waits until nothing has been
written to them for an hour.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO, Final

from penstock.config.model import BatchesTable
from penstock.errors import CallError, InvalidRequest, NotFound, QueueFull, Unprocessable
from penstock.jobs.multipart import Multipart, Part
from penstock.jobs.shapes import FileShown
from penstock.store.batches import BatchStore, FileRow
from penstock.store.jobs import Idempotency, IdempotencyConflict

FIELD_BYTES_MAX: Final = 1024
FILENAME_CHARACTERS_MAX: Final = 255
READ_BYTES: Final = 64 * 1024
DAY_SECONDS: Final = 86_400.0
LEFT_SECONDS: Final = 3600.0
"""After so long without a write, bytes without a row are those of no upload any more."""
_ID: Final = re.compile(r"file-[0-9a-f]{32}\Z")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


def new_file_id() -> str:
    """128 random bits."""
    return f"file-{secrets.token_hex(16)}"


class Files:
    """The files of all tenants in ``directory``. ``table`` is replaced on a reload."""

    def __init__(
        self, directory: Path, store: BatchStore, table: BatchesTable, wall: Callable[[], float]
    ) -> None:
        self.table = table
        self._directory = directory
        self._store = store
        self._wall = wall

    def path(self, file_id: str) -> Path:
        """Where a file's bytes are. Raises NotFound for what is no id of ours."""
        if not _ID.match(file_id):
            raise _no_such_file()
        return self._directory / file_id

    def open_new(self, file_id: str) -> BinaryIO:
        """A file to write from its beginning; nobody knows it yet."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(
            self.path(file_id), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
        )
        return os.fdopen(descriptor, "wb")

    async def upload(
        self, tenant: str, boundary: bytes, pieces: AsyncIterator[bytes], key: str | None
    ) -> FileRow:
        """Store one uploaded file as it comes. ``key`` is the request's idempotency key.

        Raises InvalidRequest, QueueFull where the tenant has no room left, Unprocessable.
        """
        room = self.table.tenant_bytes_max - await asyncio.wrap_future(self._store.bytes_of(tenant))
        file_id = new_file_id()
        upload = _Upload(self.open_new(file_id), room)
        try:
            with upload.file:
                reader = Multipart(boundary)
                async for piece in pieces:
                    for told in reader.feed(piece):
                        upload.take(told)
                upload.check(is_complete=reader.is_complete)
                await asyncio.to_thread(_synced, upload.file)
            now = self._wall()
            row = FileRow(
                file_id=file_id,
                tenant=tenant,
                filename=upload.filename,
                purpose="batch",
                bytes=upload.size,
                created_at=now,
                expires_at=now + self.table.keep_days * DAY_SECONDS,
            )
            idempotency = None if key is None else Idempotency(key, upload.digest.digest())
            stored = await asyncio.wrap_future(self._store.add_file(row, idempotency))
        except IdempotencyConflict:
            self.path(file_id).unlink(missing_ok=True)
            raise Unprocessable(
                "This Idempotency-Key was used for another request; take a new one.",
                code="idempotency_key_reused",
            ) from None
        except BaseException:
            self.path(file_id).unlink(missing_ok=True)
            raise
        if stored.file_id != file_id:
            self.path(file_id).unlink(missing_ok=True)
        return stored

    async def get(self, tenant: str, file_id: str) -> FileRow:
        """A tenant's file. Raises NotFound, the same for one of another tenant."""
        row = await asyncio.wrap_future(self._store.file(tenant, file_id))
        if row is None:
            raise _no_such_file()
        return row

    async def page(
        self, tenant: str, purpose: str | None, after: str | None, limit: int
    ) -> list[FileRow]:
        """A tenant's files, the newest first."""
        return await asyncio.wrap_future(self._store.files(tenant, purpose, after, limit))

    async def delete(self, tenant: str, file_id: str) -> None:
        """Remove a file. Raises NotFound, and InvalidRequest (409) while a batch reads it."""
        await self.get(tenant, file_id)
        if not await asyncio.wrap_future(self._store.remove_file(tenant, file_id)):
            raise InvalidRequest(
                "A batch that has not ended reads this file: cancel the batch first.",
                status=409,
                code="file_in_use",
            )
        self.path(file_id).unlink(missing_ok=True)

    def content(self, row: FileRow) -> BinaryIO:
        """A file's bytes, to be read. Raises NotFound."""
        try:
            return self.path(row.file_id).open("rb")
        except FileNotFoundError:
            raise _no_such_file() from None

    async def forget_old(self) -> None:
        """Remove what is past its time."""
        for row in await asyncio.wrap_future(self._store.ended_files(self._wall())):
            if await asyncio.wrap_future(self._store.remove_file(row.tenant, row.file_id)):
                self.path(row.file_id).unlink(missing_ok=True)

    async def sweep(self) -> None:
        """Remove bytes that are old and have no row: what was being uploaded at a crash."""
        present = await asyncio.to_thread(self._old, self._wall() - LEFT_SECONDS)
        known = await asyncio.wrap_future(self._store.known_ids()) if present else set()
        for name in present - known:
            self.path(name).unlink(missing_ok=True)

    def _old(self, written_before: float) -> set[str]:
        """The names of the files that were last written to before this moment."""
        if not self._directory.is_dir():
            return set()
        with os.scandir(self._directory) as entries:
            return {
                entry.name
                for entry in entries
                if _ID.match(entry.name) and entry.stat().st_mtime < written_before
            }


class _Upload:
    """One upload on its way to the disk."""

    def __init__(self, file: BinaryIO, room: int) -> None:
        self.file = file
        self.filename = ""
        self.size = 0
        self.digest = hashlib.sha256(b"/v1/files")
        self._room = room
        self._fields: dict[str, bytes] = {}
        self._part: Part | None = None
        self._has_file = False

    def take(self, told: Part | bytes) -> None:
        """A part, or bytes of it. Raises InvalidRequest, QueueFull."""
        if isinstance(told, Part):
            self._begin(told)
        elif self._part is not None and self._part.name == "file":
            self.size += len(told)
            if self.size > self._room:
                raise QueueFull(
                    "This tenant's files have as many bytes as this service keeps for one; "
                    "delete some that are not needed any more.",
                    code="files_full",
                )
            self.digest.update(told)
            self.file.write(told)
        elif self._part is not None:
            value = self._fields[self._part.name] + told
            if len(value) > FIELD_BYTES_MAX:
                raise InvalidRequest(f"A field has more than {FIELD_BYTES_MAX} bytes.")
            self._fields[self._part.name] = value

    def _begin(self, part: Part) -> None:
        self._part = part
        if part.name != "file":
            self._fields[part.name] = b""
            return
        if self._has_file:
            raise InvalidRequest("An upload holds one file.", param="file")
        self._has_file = True
        self.filename = _CONTROL.sub("", part.filename or "file")[:FILENAME_CHARACTERS_MAX]

    def check(self, *, is_complete: bool) -> None:
        """The whole has come. Raises InvalidRequest."""
        if not is_complete or not self._has_file:
            raise InvalidRequest("The upload must hold a 'file', to its end.", param="file")
        if self._fields.get("purpose") != b"batch":
            raise InvalidRequest(
                "'purpose' must be 'batch': nothing else is kept here.", param="purpose"
            )


def document(row: FileRow) -> FileShown:
    """A file as the OpenAI SDKs know it."""
    return FileShown(
        id=row.file_id,
        object="file",
        bytes=row.bytes,
        created_at=int(row.created_at),
        expires_at=int(row.expires_at),
        filename=row.filename,
        purpose=row.purpose,
        status="processed",
    )


def _no_such_file() -> CallError:
    return NotFound("There is no such file, or it has been removed.", code="file_not_found")


def _synced(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
