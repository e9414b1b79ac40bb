"""What an operator sets of a tenant while the service runs: weight, limits, budgets.

The file says what somebody wrote down, the store what was set since. Field by field the store
stands above the file, also after a restart and a reload, until the field is reset: whoever lowers
a limit at night must not lose it to a reload of a file that nobody has touched. A field may be
set to None: no such limit, whatever the file says.

The fields lie in one column as a JSON object: the tables of the file are their only definition.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final, Literal, TypeAlias

import msgspec

from penstock.config.model import TenantTable
from penstock.store.database import Database

Source: TypeAlias = Literal["store", "file", "default"]
"""Where a field's value is from; a file that repeats the default says nothing."""

_ALL = "SELECT name, fields, changed_at FROM tenants ORDER BY name"
_ONE = "SELECT name, fields, changed_at FROM tenants WHERE name = :name"
_PUT = "INSERT OR REPLACE INTO tenants VALUES (:name, :fields, :changed_at)"
_REMOVE = "DELETE FROM tenants WHERE name = :name"
COUNT_UP: Final = "UPDATE keys_state SET version = version + 1"
"""What every change does in its own transaction: a running service polls it."""
_DEFAULT = TenantTable()
_FIELDS = TenantTable.__struct_fields__


class StoredTenant(msgspec.Struct, frozen=True):
    """What was set of one tenant. ``fields`` are those of ``[tenants.NAME]``, checked;
    ``changed_at`` is in Unix seconds.
    """

    name: str
    fields: dict[str, Any]
    changed_at: float


class TenantRows:
    """Reads and writes the rows of one open database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[StoredTenant]:
        """Every row, by name."""
        with self._database.read() as connection:
            return [_stored(row) for row in connection.execute(_ALL)]

    def set(
        self, name: str, fields: Mapping[str, Any], now: float, *, replaces: bool = False
    ) -> None:
        """Set these fields, beside those that were set before or in place of them all."""
        with self._database.write() as connection:
            row = None if replaces else connection.execute(_ONE, {"name": name}).fetchone()
            before = {} if row is None else _stored(row).fields
            self._write(connection, name, {**before, **fields}, now)

    def reset(self, name: str, fields: Collection[str], now: float) -> bool:
        """Forget these fields, or all where none is named; whether one of them was set."""
        with self._database.write() as connection:
            row = connection.execute(_ONE, {"name": name}).fetchone()
            before = {} if row is None else _stored(row).fields
            kept = {key: value for key, value in before.items() if fields and key not in fields}
            if kept == before:
                return False
            self._write(connection, name, kept, now)
            return True

    def _write(
        self, connection: sqlite3.Connection, name: str, fields: Mapping[str, Any], now: float
    ) -> None:
        row = {"name": name, "fields": json.dumps(fields), "changed_at": now}
        connection.execute(_PUT if fields else _REMOVE, row if fields else {"name": name})
        connection.execute(COUNT_UP)


def tenants_in_force(
    file: Mapping[str, TenantTable], stored: Iterable[StoredTenant]
) -> dict[str, TenantTable]:
    """The tenants of the file, with what was set since above what stands there."""
    found = dict(file)
    for tenant in stored:
        found[tenant.name] = msgspec.structs.replace(
            file.get(tenant.name, _DEFAULT), **tenant.fields
        )
    return found


def overridden(file: Mapping[str, TenantTable], stored: Iterable[StoredTenant]) -> Iterator[str]:
    """A line for each value of the file that something else stands above."""
    for tenant in stored:
        table = file.get(tenant.name, _DEFAULT)
        for field, value in tenant.fields.items():
            stated = getattr(table, field)
            if stated not in (value, getattr(_DEFAULT, field)):
                yield (
                    f"tenant {tenant.name}: {field} {json.dumps(value)}, which was set, stands "
                    f"above the file's {json.dumps(stated)}; `penstock tenants reset "
                    f"{tenant.name} {field}` has the file hold again"
                )


def tenant_view(
    name: str, file: Mapping[str, TenantTable], stored: StoredTenant | None
) -> dict[str, Any]:
    """What holds for a tenant now, where each field is from, and when it was last set."""
    (table,) = tenants_in_force(
        {name: file.get(name, _DEFAULT)}, () if stored is None else (stored,)
    ).values()
    return {
        "name": name,
        **msgspec.to_builtins(table),
        "sources": {field: _source(field, file.get(name), stored) for field in _FIELDS},
        "changed_at": None if stored is None else stored.changed_at,
    }


def _source(field: str, table: TenantTable | None, stored: StoredTenant | None) -> Source:
    if stored is not None and field in stored.fields:
        return "store"
    if table is not None and getattr(table, field) != getattr(_DEFAULT, field):
        return "file"
    return "default"


def _stored(row: sqlite3.Row) -> StoredTenant:
    return StoredTenant(row["name"], json.loads(row["fields"]), row["changed_at"])
