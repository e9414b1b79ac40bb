"""``/v1/files`` and ``/v1/batches``, as the SDKs of OpenAI call them."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Final

import msgspec
from starlette.routing import Route

from penstock.errors import InvalidRequest
from penstock.http.door import Access, Desk, Door, DoorBodies, ErrorShape, Handler
from penstock.http.exchange import Exchange
from penstock.http.query import asking
from penstock.jobs import files as filing
from penstock.jobs.batches import Batches, BatchOrder
from penstock.jobs.batches import document as batch_document
from penstock.jobs.door import ClassOf, idempotency_of, principal_of
from penstock.jobs.engine import worded
from penstock.jobs.files import READ_BYTES, Files
from penstock.jobs.multipart import boundary_of
from penstock.jobs.shapes import (
    BatchesQuery,
    BatchPage,
    BatchShown,
    FileDeleted,
    FilePage,
    FileShown,
    FilesQuery,
    FileUpload,
)
from penstock.units import Outcome

PREFIXES: Final = ("", "/openai")
WINDOW_SECONDS_MAX: Final = 30 * 86_400
METADATA_KEYS_MAX: Final = 16
METADATA_KEY_CHARACTERS_MAX: Final = 64
METADATA_VALUE_CHARACTERS_MAX: Final = 512
MULTIPART_BYTES_MAX: Final = 64 * 1024
"""What an upload has beyond its file's bytes."""
BYTES: Final = "application/octet-stream"

_WINDOW: Final = re.compile(r"([1-9][0-9]{0,4})([mhd])\Z")
_WINDOW_SECONDS: Final = {"m": 60, "h": 3600, "d": 86_400}
_CHAIN: Final = re.compile(r"/chains/([A-Za-z0-9._:@-]{1,128})/invoke\Z")


class BatchRequest(msgspec.Struct):
    """``POST /v1/batches``."""

    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: dict[str, str] | None = None


class BatchDoor:
    """Handlers. ``endpoints`` are the gateway's that a batch may be for."""

    def __init__(
        self, files: Files, batches: Batches, endpoints: frozenset[str], class_of: ClassOf
    ) -> None:
        self._files = files
        self._batches = batches
        self._endpoints = endpoints
        self._class_of = class_of

    def routes(self, desk: Desk) -> list[Route]:
        """Every route of the door."""
        upload = DoorBodies(FileUpload, {200: FileShown}, is_form=True)
        order = DoorBodies(BatchRequest, {200: BatchShown})
        table: list[tuple[str, str, Handler, DoorBodies]] = [
            ("POST", "/v1/files", self.upload, upload),
            ("GET", "/v1/files", self.list_files, DoorBodies.showing(FilePage)),
            ("GET", "/v1/files/{file}", self.get_file, DoorBodies.showing(FileShown)),
            ("DELETE", "/v1/files/{file}", self.delete_file, DoorBodies.showing(FileDeleted)),
            ("GET", "/v1/files/{file}/content", self.content, DoorBodies(other=(BYTES,))),
            ("POST", "/v1/batches", self.create, order),
            ("GET", "/v1/batches", self.list_batches, DoorBodies.showing(BatchPage)),
            ("GET", "/v1/batches/{batch}", self.get_batch, DoorBodies.showing(BatchShown)),
            ("POST", "/v1/batches/{batch}/cancel", self.cancel, DoorBodies.showing(BatchShown)),
        ]

        def route(method: str, path: str, handler: Handler, bodies: DoorBodies) -> Route:
            door = Door(
                _guarded(handler),
                access=Access.KEY,
                shape=ErrorShape.OPENAI,
                door="batches",
                desk=desk,
                bodies=bodies,
            )
            return Route(path, door, methods=[method])

        return [
            route(method, prefix + path, handler, bodies)
            for prefix in PREFIXES
            for method, path, handler, bodies in table
        ]

    async def upload(self, exchange: Exchange) -> Outcome:
        """``POST /v1/files``."""
        tenant = principal_of(exchange).tenant
        boundary = boundary_of(exchange.headers.get("content-type", ""))
        idempotency = idempotency_of(exchange, "", b"")
        pieces = exchange.upload(self._files.table.file_bytes_max + MULTIPART_BYTES_MAX)
        key = None if idempotency is None else idempotency.key
        row = await self._files.upload(tenant, boundary, pieces, key)
        self._batches.created()
        return await _answer(exchange, filing.document(row))

    @asking(FilesQuery)
    async def list_files(self, exchange: Exchange, query: FilesQuery) -> Outcome:
        """``GET /v1/files``."""
        tenant = principal_of(exchange).tenant
        rows = await self._files.page(tenant, query.purpose, query.after, query.limit + 1)
        shown = [filing.document(row) for row in rows[: query.limit]]
        first_id, last_id = _ends(shown)
        return await _answer(
            exchange, FilePage("list", shown, first_id, last_id, len(rows) > query.limit)
        )

    async def get_file(self, exchange: Exchange) -> Outcome:
        """``GET /v1/files/{id}``."""
        row = await self._files.get(principal_of(exchange).tenant, exchange.path_params["file"])
        return await _answer(exchange, filing.document(row))

    async def delete_file(self, exchange: Exchange) -> Outcome:
        """``DELETE /v1/files/{id}``."""
        file_id = exchange.path_params["file"]
        await self._files.delete(principal_of(exchange).tenant, file_id)
        return await _answer(exchange, FileDeleted(file_id, "file", deleted=True))

    async def content(self, exchange: Exchange) -> Outcome:
        """``GET /v1/files/{id}/content``: the bytes, at the reader's pace."""
        row = await self._files.get(principal_of(exchange).tenant, exchange.path_params["file"])
        with self._files.content(row) as file:
            await exchange.start(200, BYTES)
            while piece := file.read(READ_BYTES):
                await exchange.write(piece)
        await exchange.finish()
        return Outcome.SUCCESS

    async def create(self, exchange: Exchange) -> Outcome:
        """``POST /v1/batches``."""
        principal = principal_of(exchange)
        body = await exchange.body()
        try:
            wanted = msgspec.json.decode(body, type=BatchRequest)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise InvalidRequest(
                "The body must be a JSON object with 'input_file_id', 'endpoint' and "
                "'completion_window' as texts, and 'metadata' with texts as values."
            ) from None
        chain = _CHAIN.match(wanted.endpoint)
        if chain is not None:
            self._class_of(principal, chain[1], {})
        elif wanted.endpoint not in self._endpoints:
            raise InvalidRequest(
                "'endpoint' must be one of " + ", ".join(sorted(self._endpoints)) + ", or "
                "/chains/NAME/invoke.",
                param="endpoint",
            )
        order = BatchOrder(
            principal=principal,
            endpoint=wanted.endpoint,
            input_file_id=wanted.input_file_id,
            window=wanted.completion_window,
            seconds=_window_seconds(wanted.completion_window),
            metadata=_metadata(wanted.metadata),
        )
        row = await self._batches.create(order, idempotency_of(exchange, "/v1/batches", body))
        return await _answer(exchange, batch_document(row))

    @asking(BatchesQuery)
    async def list_batches(self, exchange: Exchange, query: BatchesQuery) -> Outcome:
        """``GET /v1/batches``."""
        tenant = principal_of(exchange).tenant
        rows = await self._batches.page(tenant, query.after, query.limit + 1)
        shown = [batch_document(row) for row in rows[: query.limit]]
        first_id, last_id = _ends(shown)
        return await _answer(
            exchange, BatchPage("list", shown, first_id, last_id, len(rows) > query.limit)
        )

    async def get_batch(self, exchange: Exchange) -> Outcome:
        """``GET /v1/batches/{id}``."""
        tenant = principal_of(exchange).tenant
        row = await self._batches.get(tenant, exchange.path_params["batch"])
        return await _answer(exchange, batch_document(row))

    async def cancel(self, exchange: Exchange) -> Outcome:
        """``POST /v1/batches/{id}/cancel``."""
        await exchange.body()
        tenant = principal_of(exchange).tenant
        row = await self._batches.cancel(tenant, exchange.path_params["batch"])
        return await _answer(exchange, batch_document(row))


def _guarded(handler: Handler) -> Handler:
    """``handler``, whose troubles with the store are told as such."""

    @functools.wraps(handler)
    async def handle(exchange: Exchange) -> Outcome:
        with worded():
            return await handler(exchange)

    return handle


async def _answer(exchange: Exchange, shown: msgspec.Struct) -> Outcome:
    await exchange.respond(200, msgspec.json.encode(shown))
    return Outcome.SUCCESS


def _ends(shown: Sequence[FileShown | BatchShown]) -> tuple[str | None, str | None]:
    """The ids of the first and the last one of a page."""
    return (shown[0].id, shown[-1].id) if shown else (None, None)


def _window_seconds(text: str) -> float:
    match = _WINDOW.match(text)
    seconds = int(match[1]) * _WINDOW_SECONDS[match[2]] if match else 0
    if not 0 < seconds <= WINDOW_SECONDS_MAX:
        raise InvalidRequest(
            "'completion_window' must be a number of m, h or d, such as 24h, at most 30d.",
            param="completion_window",
        )
    return float(seconds)


def _metadata(given: dict[str, str] | None) -> bytes:
    metadata = given or {}
    if (
        len(metadata) > METADATA_KEYS_MAX
        or any(len(key) > METADATA_KEY_CHARACTERS_MAX for key in metadata)
        or any(len(value) > METADATA_VALUE_CHARACTERS_MAX for value in metadata.values())
    ):
        raise InvalidRequest(
            f"'metadata' must have at most {METADATA_KEYS_MAX} keys of "
            f"{METADATA_KEY_CHARACTERS_MAX} characters, with values of "
            f"{METADATA_VALUE_CHARACTERS_MAX}.",
            param="metadata",
        )
    return msgspec.json.encode(given)
