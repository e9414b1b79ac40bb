"""The statements of the key store. Values go in as bound parameters only."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Row, text

from penstock.store.database import Database
from penstock.store.keys import KeyGrant, StoredKey

_ALL = text("SELECT * FROM keys ORDER BY created_at, key_id")
_IN_FORCE = text("SELECT 1 FROM keys WHERE name = :name AND revoked_at IS NULL")
_INSERT = text(
    "INSERT INTO keys (key_id, name, digest, tenant, class_default, ceiling, models, chains, "
    "admin, created_at) VALUES (:key_id, :name, :digest, :tenant, :class_default, :ceiling, "
    ":models, :chains, :admin, :created_at)"
)
_REVOKE = text("UPDATE keys SET revoked_at = :revoked_at WHERE name = :name AND revoked_at IS NULL")
_VERSION = text("SELECT version FROM keys_state")
_COUNT_UP = text("UPDATE keys_state SET version = version + 1")
_PEPPER = text("SELECT pepper_fingerprint FROM keys_state")
_PEPPER_FIRST = text("INSERT INTO keys_state VALUES (1, 0, :fingerprint) ON CONFLICT DO NOTHING")


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
            return int(connection.execute(_VERSION).scalar_one())

    def pepper_fingerprint(self) -> str | None:
        """Of the pepper that the digests were made with; None before the first key."""
        with self._database.read() as connection:
            found = connection.execute(_PEPPER).scalar_one_or_none()
        return None if found is None else str(found)

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
            if connection.execute(_IN_FORCE, {"name": key.name}).first() is not None:
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
    }


def _stored_key(row: Row[Any]) -> StoredKey:
    return StoredKey(
        key_id=row.key_id,
        name=row.name,
        digest=row.digest,
        grant=KeyGrant(
            tenant=row.tenant,
            class_default=row.class_default,
            ceiling=row.ceiling,
            models=_names_in(row.models),
            chains=_names_in(row.chains),
            admin=bool(row.admin),
        ),
        created_at=row.created_at,
        revoked_at=row.revoked_at,
    )


def _names_out(names: tuple[str, ...] | None) -> str | None:
    return None if names is None else json.dumps(names)


def _names_in(names: str | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(json.loads(names))
