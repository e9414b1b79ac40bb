"""What stands where under ``/admin``. All of it needs an admin key."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import msgspec
from starlette.routing import Route

from penstock.admin.answers import StoreUnavailable, respond_json
from penstock.admin.keys import KeyChange, KeysDoor, NewKey, Rotation
from penstock.admin.query import query_of
from penstock.admin.tenants import TenantsDoor
from penstock.config.model import TenantTable
from penstock.errors import InvalidRequest, StoreError
from penstock.http.door import Access, Desk, Door, DoorBodies, ErrorShape, Handler
from penstock.http.exchange import Exchange
from penstock.store.reader import Reader
from penstock.store.usage import GROUPS, UsageSum, moment, sums_csv, usage
from penstock.units import Outcome

_T = TypeVar("_T")


class AdminDoor:
    """Answers operators. ``limits`` gives the present state of every deployment's limits."""

    def __init__(
        self, reader: Reader, limits: Callable[[], Any], wall: Callable[[], float]
    ) -> None:
        self._reader = reader
        self._limits = limits
        self._wall = wall

    async def usage(self, exchange: Exchange) -> Outcome:
        """Sums of the ledger, as JSON or CSV."""
        query = query_of(exchange, ("group_by", "since", "until", "format"))
        group_by = query.get("group_by", "tenant")
        if group_by not in GROUPS:
            raise InvalidRequest(
                f"'group_by' must be one of {', '.join(GROUPS)}.", param="group_by"
            )
        since = self._moment(query.get("since", "30d"), "since")
        until = self._moment(query["until"], "until") if "until" in query else math.inf
        form = query.get("format", "json")
        if form not in ("json", "csv"):
            raise InvalidRequest("'format' must be json or csv.", param="format")
        asked = self._reader.submit(partial(usage, group_by=group_by, since=since, until=until))
        sums: list[UsageSum] = await stored(asyncio.wrap_future(asked))
        exchange.response_headers["cache-control"] = "no-store"
        if form == "csv":
            await exchange.respond(200, sums_csv(sums).encode(), "text/csv; charset=utf-8")
        else:
            body = {"group_by": group_by, "usage": sums}
            await exchange.respond(200, msgspec.json.encode(body))
        return Outcome.SUCCESS

    async def limits(self, exchange: Exchange) -> Outcome:
        """Each deployment's limits: configured or learnt, and what is left of them."""
        query_of(exchange, ())
        await respond_json(exchange, {"deployments": self._limits()})
        return Outcome.SUCCESS

    def _moment(self, text: str, name: str) -> float:
        try:
            return moment(text, self._wall())
        except ValueError as error:
            raise InvalidRequest(f"'{name}' {error}.", param=name) from None


async def stored(waiting: asyncio.Future[_T]) -> _T:
    """What the store answers. Raises StoreUnavailable."""
    try:
        return await waiting
    except StoreError as error:
        raise StoreUnavailable(str(error)) from None


def admin_routes(admin: AdminDoor, keys: KeysDoor, tenants: TenantsDoor, desk: Desk) -> list[Route]:
    """Every route of this door."""

    def route(
        path: str, handler: Handler, method: str, request: type[msgspec.Struct] | None = None
    ) -> Route:
        door = Door(
            handler,
            access=Access.ADMIN,
            shape=ErrorShape.PROBLEM,
            door="admin",
            desk=desk,
            bodies=DoorBodies(request),
        )
        return Route(path, door, methods=[method])

    return [
        route("/admin/usage", admin.usage, "GET"),
        route("/admin/limits", admin.limits, "GET"),
        route("/admin/tenants", tenants.list, "GET"),
        route("/admin/tenants/{name:path}", tenants.get, "GET"),
        route("/admin/tenants/{name:path}", tenants.put, "PUT", TenantTable),
        route("/admin/tenants/{name:path}", tenants.patch, "PATCH", TenantTable),
        route("/admin/tenants/{name:path}", tenants.delete, "DELETE"),
        route("/admin/keys", keys.list, "GET"),
        route("/admin/keys", keys.create, "POST", NewKey),
        route("/admin/keys/{name:path}/rotate", keys.rotate, "POST", Rotation),
        route("/admin/keys/{name:path}", keys.get, "GET"),
        route("/admin/keys/{name:path}", keys.change, "PATCH", KeyChange),
        route("/admin/keys/{name:path}", keys.revoke, "DELETE"),
    ]
