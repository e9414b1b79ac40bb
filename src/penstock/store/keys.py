"""API keys that an operator creates while the service runs, and what is set of tenants.

A key is ``psk_`` + public id + ``_`` + secret: the prefix can be searched for in logs and
repositories, the id names the key without giving it away, the secret has 256 random bits. Only
an HMAC-SHA256 under the pepper is stored: with so many random bits a slow password hash would
protect nothing more, and cost every request its time.

Two processes share the database. The commands write: short transactions under the write lock.
The service only reads, and asks ``changed()`` about once a second (0.1 ms): each change adds one
to a counter in the same transaction, so a key that is created or revoked, or a limit that is set,
counts within that second. Asking for the keys of a store that does not exist makes none.
"""

from __future__ import annotations

import hmac
import os
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from penstock.config.checked import checked_key
from penstock.config.model import Config, KeyRights
from penstock.errors import PenstockError, StoreError
from penstock.store.database import DATABASE_FILE, Database, file_identity
from penstock.store.key_rows import KeyRows, StoredKey
from penstock.store.pepper import (
    PEPPER_FILE_VARIABLE,
    fingerprint,
    new_content,
    pepper_from,
    pepper_in,
)
from penstock.store.tenants import StoredTenant

__all__ = [
    "FIXED",
    "KeyStore",
    "NoSuchKey",
    "NotStored",
    "Snapshot",
    "StoredKey",
    "changed_key",
    "key_digest",
    "stored_key_count",
]

PREFIX: Final = "psk"
FIXED: Final = {
    "tenant": "a key belongs to one tenant for good, since what it has spent, its jobs, files and "
    "answers are that tenant's",
    "admin": "a key is an admin's from the first or never, since who has a copy of it by now is "
    "not known",
}
"""What of a key no change can name, and why."""
_ID_BYTES: Final = 6
_SECRET_BYTES: Final = 32


class Snapshot(msgspec.Struct, frozen=True):
    """The keys in force at one moment, and the pepper that their digests were made with."""

    pepper: bytes
    keys: tuple[StoredKey, ...] = ()
    tenants: tuple[StoredTenant, ...] = ()

    def __repr__(self) -> str:
        """Without the pepper: this may end in a log or a traceback."""
        return f"Snapshot(keys={len(self.keys)}, tenants={len(self.tenants)})"


def key_digest(key: str, pepper: bytes) -> str:
    """HMAC-SHA256 of a key under the pepper, as 64 hexadecimal characters."""
    return hmac.digest(pepper, key.encode(), "sha256").hex()


class KeyStore:
    """The keys in one store directory. For one thread at a time.

    ``environment`` may name another pepper file. All methods raise StoreError when the store
    cannot be used.
    """

    def __init__(self, directory: Path, environment: Mapping[str, str] = os.environ) -> None:
        self._directory = directory
        self._file = directory / DATABASE_FILE
        self._environment = environment
        self._rows: KeyRows | None = None
        self._identity: tuple[int, int] | None = None
        # Until there is a store, for this process alone; where it makes the store, ever after:
        # what it has called its tenants' users by then still means them.
        self._content = new_content()
        self._pepper = pepper_from(self._content)
        self._seen: object = None

    def close(self) -> None:
        """Close the database, if it is open."""
        if self._rows is not None:
            self._rows.close()
        self._rows = None

    def snapshot(self) -> Snapshot:
        """The keys in force. A store that does not exist has none."""
        # The state is read before the keys: a change in between is seen again by changed().
        self._seen = self._state()
        in_force = tuple(key for key in self.all() if key.in_force(time.time()))
        return Snapshot(self._pepper, in_force, tuple(self.tenants()))

    def changed(self) -> bool:
        """Whether a key or a tenant was changed since the last snapshot."""
        return self._state() != self._seen

    def create(self, name: str, rights: KeyRights, *, expires_at: float | None = None) -> str:
        """Store a new key and return it: the only time that it can be seen.

        ``expires_at`` (Unix seconds) ends it by itself. Raises NameTaken when a key of that name
        is in force.
        """
        rows = self._open()
        key_id = secrets.token_hex(_ID_BYTES)
        key = _new_key(key_id)
        stored = StoredKey(
            key_id=key_id,
            name=name,
            digest=key_digest(key, self._pepper),
            rights=rights,
            created_at=time.time(),
            expires_at=expires_at,
        )
        rows.insert(stored)
        return key

    def rotate(self, name: str, overlap_seconds: float = 0.0) -> str:
        """Give the key of that name a new secret and return the key, seen only now.

        Its id, its rights and what it has spent stay. The secret before works for so many
        seconds more; one from an earlier rotation ends at once. Raises NoSuchKey when there is
        none in force.
        """
        now = time.time()
        rows = self._open_existing()
        for stored in [] if rows is None else rows.all():
            if stored.name == name and stored.in_force(now):
                key = _new_key(stored.key_id)
                digest = key_digest(key, self._pepper)
                if rows is not None and rows.rotate(stored.key_id, digest, now + overlap_seconds):
                    return key
        raise NoSuchKey(name)

    def change(
        self, name: str, change: Callable[[StoredKey], StoredKey]
    ) -> tuple[StoredKey, StoredKey]:
        """Write what ``change`` makes of the key of that name: as it was, and as it is now.

        Its id, secret, tenant and ``admin`` stay. One that has expired can be changed, too, as to
        expire later. Raises NoSuchKey where none is in force, and NameTaken.
        """
        rows = self._open_existing()
        changed = None if rows is None else rows.change(name, change)
        if changed is None:
            raise NoSuchKey(name)
        return changed

    def revoke(self, name: str) -> None:
        """End the key of that name. Raises PenstockError when there is none in force."""
        rows = self._open_existing()
        if rows is None or not rows.revoke(name, time.time()):
            raise NoSuchKey(name)

    def all(self) -> list[StoredKey]:
        """Every key ever created, revoked ones too, oldest first."""
        rows = self._open_existing()
        return [] if rows is None else rows.all()

    def tenants(self) -> list[StoredTenant]:
        """What was set of each tenant, by name."""
        rows = self._open_existing()
        return [] if rows is None else rows.tenants.all()

    def set_tenant(self, name: str, fields: Mapping[str, Any], *, replaces: bool = False) -> None:
        """Set checked fields of ``[tenants.NAME]``, beside those set before or in their place."""
        self._open().tenants.set(name, fields, time.time(), replaces=replaces)

    def reset_tenant(self, name: str, fields: Collection[str] = ()) -> None:
        """Forget what was set of a tenant: these fields, or all where none is named.

        Raises NothingSet where none of them was.
        """
        rows = self._open_existing()
        if rows is None or not rows.tenants.reset(name, fields, time.time()):
            raise NothingSet(name)

    def _state(self) -> object:
        """Changes whenever the keys do, and when the file is replaced by another."""
        rows = self._open_existing()
        return None if rows is None else (self._identity, rows.version())

    def _open_existing(self) -> KeyRows | None:
        """The open database; None where nobody has made one."""
        identity = file_identity(self._file)
        if identity is None:
            self.close()
            return None
        return self._open()

    def _open(self) -> KeyRows:
        """The open database, made if there is none, reopened if the file is another one now."""
        if self._rows is not None and file_identity(self._file) == self._identity:
            return self._rows
        self.close()
        rows = KeyRows(Database(self._file))
        try:
            self._pepper = self._pepper_of(rows)
        except BaseException:
            rows.close()
            raise
        self._rows = rows
        self._identity = file_identity(self._file)
        return rows

    def _pepper_of(self, rows: KeyRows) -> bytes:
        """The pepper, if it is the one that the database was made with."""
        tied_to = rows.pepper_fingerprint()
        pepper = pepper_in(
            self._directory, self._environment, create=tied_to is None, content=self._content
        )
        if tied_to is None:
            rows.set_pepper_fingerprint(fingerprint(pepper))
            tied_to = rows.pepper_fingerprint()
        if tied_to != fingerprint(pepper):
            raise StoreError(
                f"{self._file}: the stored keys were made with another pepper; restore that "
                f"file ({PEPPER_FILE_VARIABLE} may name it), or move the store away and create "
                "new keys"
            )
        return pepper


def changed_key(key: StoredKey, fields: Mapping[str, Any], config: Config) -> StoredKey:
    """The key with other fields of ``[keys.NAME]``, another ``name`` or ``expires_at``.

    Raises ConfigError.
    """
    changed = {**msgspec.to_builtins(key.rights), **fields}
    name = changed.pop("name", key.name)
    expires_at = changed.pop("expires_at", key.expires_at)
    rights = checked_key(name, changed, config)
    return msgspec.structs.replace(key, name=name, rights=rights, expires_at=expires_at)


def _new_key(key_id: str) -> str:
    return f"{PREFIX}_{key_id}_{secrets.token_hex(_SECRET_BYTES)}"


class NotStored(PenstockError):
    """What is to be changed does not stand in the store."""


class NothingSet(NotStored):
    """Nothing was set of a tenant, or not what is to be forgotten."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"nothing of that was set for the tenant {name}; `penstock tenants show {name}` says "
            "what holds and where it is from (what stands in the file is changed there)"
        )


class NoSuchKey(NotStored):
    """No stored key of that name is in force."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"there is no stored key {name} in force; `penstock keys list` shows those there "
            "are (a key of the configuration file is changed and ended there)"
        )


def stored_key_count(directory: Path) -> int:
    """How many keys are in force in the store of ``directory``; 0 where there is none."""
    store = KeyStore(directory)
    try:
        return len(store.snapshot().keys)
    finally:
        store.close()
