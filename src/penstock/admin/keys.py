"""``/admin/keys``: who may do what, and what they have spent.

The service takes every change over before the answer is sent.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from penstock.admin.answers import respond_json
from penstock.admin.maker import check_within, compared
from penstock.admin.shapes import KeyMade, KeyRevoked
from penstock.admin.stored import broken_rules, fields_of, spent_view, with_store
from penstock.config.checked import checked_key
from penstock.config.model import Config, Identifier, KeyBounds, KeyRights
from penstock.errors import ConfigError, InternalError
from penstock.http.auth import Principal
from penstock.http.exchange import Exchange
from penstock.http.query import NoQuery, asking
from penstock.store.budgets import Budgets
from penstock.store.changes import shown_key
from penstock.store.keys import FIXED, KeyStore, NoSuchKey, StoredKey, changed_key
from penstock.units import Outcome

SPAN_SECONDS_MAX = 100 * 365 * 86_400
_Seconds = Annotated[
    float, Meta(gt=0, le=SPAN_SECONDS_MAX, description="how long until it ends; null: never")
]

_FIXED = {
    field: f"{reason}; POST /admin/keys makes another key, DELETE /admin/keys/NAME ends this one"
    for field, reason in FIXED.items()
}


class NewKey(KeyRights, frozen=True, kw_only=True):
    """A key to be made: its name, the fields of ``[keys.NAME]``, and when it ends."""

    name: Identifier
    expires_in_seconds: _Seconds | None = None


class KeyChange(KeyBounds, frozen=True, kw_only=True):
    """What is to be changed of a key. What is not named stays as it is."""

    name: Identifier = ""
    expires_in_seconds: _Seconds | None = None


class Rotation(msgspec.Struct, forbid_unknown_fields=True):
    """How long the key before it is still good."""

    overlap_seconds: Annotated[float, Meta(ge=0, le=SPAN_SECONDS_MAX)] = 0.0


class KeysDoor:
    """Makes, changes and ends stored keys. ``changed`` has the service go by what is stored now."""

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

    @asking(NoQuery)
    async def list(self, exchange: Exchange, _query: NoQuery) -> Outcome:
        """The stored keys, ended ones too, with what they have spent."""
        stored = await with_store(self._directory, lambda store: store.all())
        await respond_json(exchange, {"keys": [self._view(key) for key in stored]})
        return Outcome.SUCCESS

    @asking(NoQuery)
    async def get(self, exchange: Exchange, _query: NoQuery) -> Outcome:
        """The key of that name, whether it has expired or not; not one that was revoked."""
        name = exchange.path_params["name"]

        def named(store: KeyStore) -> StoredKey:
            for key in store.all():
                if key.name == name and key.revoked_at is None:
                    return key
            raise NoSuchKey(name)

        await respond_json(exchange, self._view(await with_store(self._directory, named)))
        return Outcome.SUCCESS

    async def create(self, exchange: Exchange) -> Outcome:
        """Make a key; its answer is the only one that shows it."""
        fields = _ending(fields_of(await exchange.body(), NewKey))
        name, expires_at = fields.pop("name"), fields.pop("expires_at", None)
        try:
            rights = checked_key(name, fields, self._config())
        except ConfigError as error:
            raise broken_rules(error) from None
        check_within(_maker(exchange), rights, expires_at, self._config().classes)
        key = await with_store(
            self._directory, lambda store: store.create(name, rights, expires_at=expires_at)
        )
        self._changed()
        exchange.facts["changed"] = f"key {name}"
        await respond_json(exchange, KeyMade(name, key), 201)
        return Outcome.SUCCESS

    async def change(self, exchange: Exchange) -> Outcome:
        """Change what a key may do, its name or its end; its secret and its id stay."""
        fields = _ending(fields_of(await exchange.body(), KeyChange, _FIXED))
        name, config, maker = exchange.path_params["name"], self._config(), _maker(exchange)

        def changed(key: StoredKey) -> StoredKey:
            after = changed_key(key, fields, config)
            check_within(maker, after.rights, after.expires_at, config.classes, compared(fields))
            return after

        _, key = await with_store(self._directory, lambda store: store.change(name, changed))
        self._changed()
        exchange.facts["changed"] = f"key {key.name}"
        await respond_json(exchange, self._view(key))
        return Outcome.SUCCESS

    async def rotate(self, exchange: Exchange) -> Outcome:
        """Give a key a new secret; the one before works for ``overlap_seconds`` more."""
        body = await exchange.body()
        seconds = fields_of(body, Rotation).get("overlap_seconds", 0.0) if body else 0.0
        name, maker = exchange.path_params["name"], _maker(exchange)
        classes = self._config().classes

        def rotated(store: KeyStore) -> str:
            # Whoever gives a key a new secret has it.
            for known in store.all():
                if known.name == name and known.in_force(time.time()):
                    check_within(maker, known.rights, known.expires_at, classes)
            return store.rotate(name, seconds)

        key = await with_store(self._directory, rotated)
        self._changed()
        exchange.facts["changed"] = f"key {name}"
        await respond_json(exchange, KeyMade(name, key))
        return Outcome.SUCCESS

    async def revoke(self, exchange: Exchange) -> Outcome:
        """End a key. Running calls are finished, new ones are refused."""
        name = exchange.path_params["name"]
        await with_store(self._directory, lambda store: store.revoke(name))
        self._changed()
        exchange.facts["changed"] = f"key {name}"
        await respond_json(exchange, KeyRevoked(name, revoked=True))
        return Outcome.SUCCESS

    def _view(self, key: StoredKey) -> dict[str, Any]:
        return {**shown_key(key), "spent": spent_view(self._budgets, ("key", key.key_id))}


def _maker(exchange: Exchange) -> Principal:
    if exchange.principal is None:
        raise InternalError("the admin door was opened without a key")
    return exchange.principal


def _ending(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields with the time at which the key ends instead of how long that is from now."""
    if "expires_in_seconds" in fields:
        seconds = fields.pop("expires_in_seconds")
        fields["expires_at"] = None if seconds is None else time.time() + seconds
    return fields
