"""The statements of the key store. Values go in as bound parameters only."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

import msgspec

from penstock.store.database import Database

_ALL = "SELECT * FROM keys ORDER BY created_at, key_id"
_IN_FORCE = "SELECT 1 FROM keys WHERE name = :name AND revoked_at IS NULL"
_INSERT = (
    "INSERT INTO keys (key_id, name, digest, tenant, class_default, ceiling, models, chains, "
    "admin, created_at, expires_at, budget) VALUES (:key_id, :name, :digest, :tenant, "
    ":class_default, :ceiling, :models, :chains, :admin, :created_at, :expires_at, :budget)"
)
_REVOKE = "UPDATE keys SET revoked_at = :revoked_at WHERE name = :name AND revoked_at IS NULL"
_ROTATE = (
    "UPDATE keys SET digest_previous = digest, previous_until = :previous_until, digest = :digest "
    "WHERE key_id = :key_id AND revoked_at IS NULL"
)
_VERSION = "SELECT version FROM keys_state"
_COUNT_UP = "UPDATE keys_state SET version = version + 1"
_PEPPER = "SELECT pepper_fingerprint FROM keys_state"
_PEPPER_FIRST = "INSERT INTO keys_state VALUES (1, 0, :fingerprint) ON CONFLICT DO NOTHING"


class KeyGrant(msgspec.Struct, frozen=True):
    """What a key may do, in the words of ``[keys.NAME]``."""

    tenant: str
    class_default: str = "standard"
    ceiling: str = "interactive"
    models: tuple[str, ...] | None = None  # None: all
    chains: tuple[str, ...] | None = None  # None: all
    admin: bool = False
    budget_day_usd: float | None = None
    budget_month_usd: float | None = None
    budget_day_tokens: int | None = None
    budget_month_tokens: int | None = None
    budget_hard: bool = True


class StoredKey(msgspec.Struct, frozen=True):
    """One key as it is stored. Times are Unix seconds."""

    key_id: str
    name: str
    digest: str
    grant: KeyGrant
    created_at: float
    revoked_at: float | None = None
    expires_at: float | None = None
    digest_previous: str | None = None
    previous_until: float | None = None

    def in_force(self, now: float) -> bool:
        """Whether it may be used at ``now``."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class KeyRows:
    """Reads and writes the rows of one open database."""

    def __init__(self, database: Database) -> None:
        self._database = database

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

    def insert(self, key: StoredKey) -> bool:
        """Add a key, unless one of its name is in force; whether it was added."""
        with self._database.write() as connection:
            if connection.execute(_IN_FORCE, {"name": key.name}).fetchone() is not None:
                return False
            connection.execute(_INSERT, _parameters(key))
            connection.execute(_COUNT_UP)
            return True

    def revoke(self, name: str, revoked_at: float) -> bool:
        """End the key in force of that name; whether there was one."""
        with self._database.write() as connection:
            parameters = {"name": name, "revoked_at": revoked_at}
            if not connection.execute(_REVOKE, parameters).rowcount:
                return False
            connection.execute(_COUNT_UP)
            return True

    def rotate(self, key_id: str, digest: str, previous_until: float) -> bool:
        """Give a key a new secret; the one before counts until then. Whether it was in force."""
        with self._database.write() as connection:
            parameters = {"key_id": key_id, "digest": digest, "previous_until": previous_until}
            if not connection.execute(_ROTATE, parameters).rowcount:
                return False
            connection.execute(_COUNT_UP)
            return True


_BUDGET = (
    "budget_day_usd",
    "budget_month_usd",
    "budget_day_tokens",
    "budget_month_tokens",
    "budget_hard",
)


def _parameters(key: StoredKey) -> dict[str, Any]:
    grant = key.grant
    return {
        "key_id": key.key_id,
        "name": key.name,
        "digest": key.digest,
        "tenant": grant.tenant,
        "class_default": grant.class_default,
        "ceiling": grant.ceiling,
        "models": _names_out(grant.models),
        "chains": _names_out(grant.chains),
        "admin": int(grant.admin),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "budget": json.dumps({name: getattr(grant, name) for name in _BUDGET}),
    }


def _stored_key(row: sqlite3.Row) -> StoredKey:
    return StoredKey(
        key_id=row["key_id"],
        name=row["name"],
        digest=row["digest"],
        grant=KeyGrant(
            tenant=row["tenant"],
            class_default=row["class_default"],
            ceiling=row["ceiling"],
            models=_names_in(row["models"]),
            chains=_names_in(row["chains"]),
            admin=bool(row["admin"]),
            **json.loads(row["budget"]),
        ),
        created_at=row["created_at"],
        revoked_at=row["revoked_at"],
        expires_at=row["expires_at"],
        digest_previous=row["digest_previous"],
        previous_until=row["previous_until"],
    )


def _names_out(names: tuple[str, ...] | None) -> str | None:
    return None if names is None else json.dumps(names)


def _names_in(names: str | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(json.loads(names))
