"""``/admin/keys`` and ``/admin/tenants``: who may do what, and what they have spent.

Keys are written as the commands write them, in short transactions beside the service's writer,
and in a thread, since the lock may have to be waited for. The service takes them over before the
answer is sent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from penstock.admin.answers import StoreUnavailable, respond_json
from penstock.admin.query import query_of
from penstock.config.load import checked_key
from penstock.config.model import Config
from penstock.errors import ConfigError, InvalidRequest, NotFound, PenstockError, StoreError
from penstock.http.exchange import Exchange
from penstock.store.budgets import NANO_DOLLARS, Budgets, Scope
from penstock.store.keys import KeyStore, NoSuchKey, StoredKey, granted
from penstock.store.ledger import Spent
from penstock.units import Outcome

SPAN_SECONDS_MAX = 100 * 365 * 86_400
_T = TypeVar("_T")
_Seconds = Annotated[float, Meta(gt=0, le=SPAN_SECONDS_MAX)]


class NewKey(msgspec.Struct, forbid_unknown_fields=True):
    """A key to be made: its name, the fields of ``[keys.NAME]``, and when it ends."""

    name: str
    tenant: str
    class_default: str = msgspec.field(name="class", default="standard")
    ceiling: str = "interactive"
    models: list[str] | None = None
    chains: list[str] | None = None
    admin: bool = False
    budget_day_usd: float | None = None
    budget_month_usd: float | None = None
    budget_day_tokens: int | None = None
    budget_month_tokens: int | None = None
    budget_hard: bool = True
    expires_in_seconds: _Seconds | None = None


class Rotation(msgspec.Struct, forbid_unknown_fields=True):
    """How long the key before it is still good."""

    overlap_seconds: Annotated[float, Meta(ge=0, le=SPAN_SECONDS_MAX)] = 0.0


class KeysDoor:
    """Makes and ends stored keys. ``changed`` has the service go by what is stored now."""

    def __init__(
        self,
        directory: Path,
        budgets: Budgets,
        config: Callable[[], Config],
        changed: Callable[[], None],
    ) -> None:
        self._directory = directory
        self._budgets = budgets
        self._config = config
        self._changed = changed

    async def list(self, exchange: Exchange) -> Outcome:
        """The stored keys, ended ones too, with what they have spent."""
        query_of(exchange, ())
        stored = await self._with_store(lambda store: store.all())
        await respond_json(exchange, {"keys": [self._view(key) for key in stored]})
        return Outcome.SUCCESS

    async def create(self, exchange: Exchange) -> Outcome:
        """Make a key; its answer is the only one that shows it."""
        wish = _decoded(await exchange.body(), NewKey)
        config = self._config()
        fields = {
            name: value
            for name, value in msgspec.to_builtins(wish).items()
            if name not in ("name", "expires_in_seconds") and value is not None
        }
        try:
            grant = granted(checked_key(wish.name, fields, config))
        except ConfigError as error:
            raise InvalidRequest("; ".join(error.problems)) from None
        wall = time.time()
        expires_at = None if wish.expires_in_seconds is None else wall + wish.expires_in_seconds
        key = await self._with_store(
            lambda store: store.create(wish.name, grant, expires_at=expires_at)
        )
        self._changed()
        await respond_json(exchange, {"name": wish.name, "key": key}, 201)
        return Outcome.SUCCESS

    async def rotate(self, exchange: Exchange) -> Outcome:
        """Give a key a new secret; the one before works for ``overlap_seconds`` more."""
        body = await exchange.body()
        rotation = _decoded(body, Rotation) if body else Rotation()
        name = exchange.path_params["name"]
        key = await self._with_store(lambda store: store.rotate(name, rotation.overlap_seconds))
        self._changed()
        await respond_json(exchange, {"name": name, "key": key})
        return Outcome.SUCCESS

    async def revoke(self, exchange: Exchange) -> Outcome:
        """End a key. Running calls are finished, new ones are refused."""
        name = exchange.path_params["name"]
        await self._with_store(lambda store: store.revoke(name))
        self._changed()
        await respond_json(exchange, {"name": name, "revoked": True})
        return Outcome.SUCCESS

    async def tenants(self, exchange: Exchange) -> Outcome:
        """Each tenant with its weight, its budget and what it has spent."""
        query_of(exchange, ())
        tables = self._config().tenants
        names = sorted({*tables, *self._budgets.names("tenant")})
        views = []
        for name in names:
            table = tables.get(name)
            settings = {} if table is None else msgspec.to_builtins(table)
            views.append({"name": name, **settings, "spent": self._spent(("tenant", name))})
        await respond_json(exchange, {"tenants": views})
        return Outcome.SUCCESS

    def _view(self, key: StoredKey) -> dict[str, Any]:
        grant = msgspec.to_builtins(key.grant)
        return {
            "name": key.name,
            "id": key.key_id,
            **{"class" if name == "class_default" else name: grant[name] for name in grant},
            "created_at": key.created_at,
            "expires_at": key.expires_at,
            "revoked_at": key.revoked_at,
            "previous_until": key.previous_until,
            "spent": self._spent(("key", key.key_id)),
        }

    def _spent(self, scope: Scope) -> dict[str, Any]:
        counter = self._budgets.counter(scope)
        return {"day": _sums(counter.spent_day), "month": _sums(counter.spent_month)}

    async def _with_store(self, ask: Callable[[KeyStore], _T]) -> _T:
        """What the key store answers. Raises StoreUnavailable, NotFound, InvalidRequest."""

        def asked() -> _T:
            store = KeyStore(self._directory)
            try:
                return ask(store)
            finally:
                store.close()

        try:
            return await asyncio.to_thread(asked)
        except StoreError as error:
            raise StoreUnavailable(str(error)) from None
        except NoSuchKey as error:
            raise NotFound(str(error)) from None
        except PenstockError as error:
            raise InvalidRequest(str(error), status=409) from None


def _decoded(body: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # The words of the decoder name fields and types, never values.
        raise InvalidRequest(f"The body is not what this takes: {error}.") from None


def _sums(spent: Spent) -> dict[str, Any]:
    return {
        "calls": spent.calls,
        "tokens": spent.tokens,
        "usd": spent.nano_dollars / NANO_DOLLARS,
    }
