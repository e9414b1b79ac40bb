"""The statements of the key store. Values go in as bound parameters only."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from typing import Any

import msgspec

from penstock.config.model import Budgeted, KeyRights
from penstock.errors import PenstockError
from penstock.store.database import Database
from penstock.store.tenants import COUNT_UP, TenantRows

_ALL = "SELECT * FROM keys ORDER BY created_at, key_id"
_NAMED = "SELECT * FROM keys WHERE name = :name AND revoked_at IS NULL"
_TAKEN = "SELECT 1 FROM keys WHERE name = :name AND revoked_at IS NULL AND key_id IS NOT :key_id"
_INSERT = (
    "INSERT INTO keys (key_id, name, digest, tenant, class_default, ceiling, models, chains, "
    "acts_for, admin, created_at, expires_at, budget) VALUES (:key_id, :name, :digest, :tenant, "
    ":class_default, :ceiling, :models, :chains, :acts_for, :admin, :created_at, :expires_at, "
    ":budget)"
)
_REVOKE = "UPDATE keys SET revoked_at = :revoked_at WHERE name = :name AND revoked_at IS NULL"
_ROTATE = (
    "UPDATE keys SET digest_previous = digest, previous_until = :previous_until, digest = :digest "
    "WHERE key_id = :key_id AND revoked_at IS NULL"
)
_CHANGE = (
    "UPDATE keys SET name = :name, class_default = :class_default, ceiling = :ceiling, "
    "models = :models, chains = :chains, acts_for = :acts_for, expires_at = :expires_at, "
    "budget = :budget WHERE key_id = :key_id"
)
_VERSION = "SELECT version FROM keys_state"
_PEPPER = "SELECT pepper_fingerprint FROM keys_state"
_PEPPER_FIRST = "INSERT INTO keys_state VALUES (1, 0, :fingerprint) ON CONFLICT DO NOTHING"


class StoredKey(msgspec.Struct, frozen=True):
    """One key as it is stored. Times are Unix seconds."""

    key_id: str
    name: str
    digest: str
    rights: KeyRights
    created_at: float
    revoked_at: float | None = None
    expires_at: float | None = None
    digest_previous: str | None = None
    previous_until: float | None = None

    def in_force(self, now: float) -> bool:
        """Whether it may be used at ``now``."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class NameTaken(PenstockError):
    """Another key of that name is in force."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"there is a key {name} already; choose another name, or revoke it first with "
            f"`penstock keys revoke {name}`"
        )


class KeyRows:
    """Reads and writes the rows of one open database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.tenants = TenantRows(database)

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def version(self) -> int:
        """How many changes there have been."""
        with self._database.read() as connection:
            return int(connection.execute(_VERSION).fetchone()[0])

    def pepper_fingerprint(self) -> str | None:
        """Of the pepper that the digests were made with; None before the first key."""
        with self._database.read() as connection:
            found = connection.execute(_PEPPER).fetchone()
        return None if found is None else str(found[0])

    def set_pepper_fingerprint(self, fingerprint: str) -> None:
        """Tie the database to a pepper, unless another process has just done so."""
        with self._database.write() as connection:
            connection.execute(_PEPPER_FIRST, {"fingerprint": fingerprint})

    def all(self) -> list[StoredKey]:
        """Every row, oldest first."""
        with self._database.read() as connection:
            return [_stored_key(row) for row in connection.execute(_ALL)]

    def insert(self, key: StoredKey) -> None:
        """Add a key. Raises NameTaken."""
        with self._database.write() as connection:
            if connection.execute(_TAKEN, _parameters(key)).fetchone() is not None:
                raise NameTaken(key.name)
            connection.execute(_INSERT, _parameters(key))
            connection.execute(COUNT_UP)

    def change(
        self, name: str, change: Callable[[StoredKey], StoredKey]
    ) -> tuple[StoredKey, StoredKey] | None:
        """Write what ``change`` makes of the key of that name, but not its secret, tenant and
        ``admin``; the key before and after. None where none is there that is not revoked.

        Raises NameTaken.
        """
        with self._database.write() as connection:
            row = connection.execute(_NAMED, {"name": name}).fetchone()
            if row is None:
                return None
            before = _stored_key(row)
            after = change(before)
            parameters = _parameters(after)
            if connection.execute(_TAKEN, parameters).fetchone() is not None:
                raise NameTaken(after.name)
            connection.execute(_CHANGE, parameters)
            connection.execute(COUNT_UP)
            return before, after

    def revoke(self, name: str, revoked_at: float) -> bool:
        """End the key in force of that name; whether there was one."""
        with self._database.write() as connection:
            parameters = {"name": name, "revoked_at": revoked_at}
            if not connection.execute(_REVOKE, parameters).rowcount:
                return False
            connection.execute(COUNT_UP)
            return True

    def rotate(self, key_id: str, digest: str, previous_until: float) -> bool:
        """Give a key a new secret; the one before counts until then. Whether it was in force."""
        with self._database.write() as connection:
            parameters = {"key_id": key_id, "digest": digest, "previous_until": previous_until}
            if not connection.execute(_ROTATE, parameters).rowcount:
                return False
            connection.execute(COUNT_UP)
            return True


_BUDGET = Budgeted.__struct_fields__


def _parameters(key: StoredKey) -> dict[str, Any]:
    rights = key.rights
    return {
        "key_id": key.key_id,
        "name": key.name,
        "digest": key.digest,
        "tenant": rights.tenant,
        "class_default": rights.class_default,
        "ceiling": rights.ceiling,
        "models": _names_out(rights.models),
        "chains": _names_out(rights.chains),
        "acts_for": json.dumps(rights.acts_for),
        "admin": int(rights.admin),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "budget": json.dumps({name: getattr(rights, name) for name in _BUDGET}),
    }


def _stored_key(row: sqlite3.Row) -> StoredKey:
    return StoredKey(
        key_id=row["key_id"],
        name=row["name"],
        digest=row["digest"],
        rights=KeyRights(
            tenant=row["tenant"],
            class_default=row["class_default"],
            ceiling=row["ceiling"],
            models=_names_in(row["models"]),
            chains=_names_in(row["chains"]),
            acts_for=json.loads(row["acts_for"]),
            admin=bool(row["admin"]),
            **json.loads(row["budget"]),
        ),
        created_at=row["created_at"],
        revoked_at=row["revoked_at"],
        expires_at=row["expires_at"],
        digest_previous=row["digest_previous"],
        previous_until=row["previous_until"],
    )


def _names_out(names: list[str] | None) -> str | None:
    return None if names is None else json.dumps(names)


def _names_in(names: str | None) -> list[str] | None:
    return None if names is None else json.loads(names)
