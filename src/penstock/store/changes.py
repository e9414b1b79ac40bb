"""What an operator has changed, in words for the log: names and numbers, never a secret.

Whoever changed it, by command or by the admin API or by a reload of the file: the service looks
at what holds before and after, so no way of changing something can be left out of the log.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from penstock.config.model import TenantTable
from penstock.store.key_rows import StoredKey
from penstock.store.keys import Snapshot


def changes(
    before: Snapshot | None,
    after: Snapshot,
    tenants_before: Mapping[str, TenantTable],
    tenants_after: Mapping[str, TenantTable],
) -> Iterator[str]:
    """A line for every stored key that was made, changed, or has ended, and for every tenant
    for which something else holds now. None where nothing is known of before.
    """
    if before is not None:
        yield from _changes_of_keys(before, after)
        yield from _changes_of_tenants(tenants_before, tenants_after)


def _changes_of_keys(before: Snapshot, after: Snapshot) -> Iterator[str]:
    old = {key.key_id: key for key in before.keys}
    new = {key.key_id: key for key in after.keys}
    for key_id, key in new.items():
        known = old.get(key_id)
        if known is None:
            yield f"key {key.name} ({key_id}) of tenant {key.rights.tenant}: is in force"
        elif known != key:
            said = [*differences(shown_key(known), shown_key(key))]
            if known.digest != key.digest:
                said.append("has a new secret")
            yield f"key {key.name} ({key_id}): {', '.join(said) or 'its secret before has ended'}"
    for key_id in old.keys() - new.keys():
        yield f"key {old[key_id].name} ({key_id}): has ended"


def _changes_of_tenants(
    before: Mapping[str, TenantTable], after: Mapping[str, TenantTable]
) -> Iterator[str]:
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name, TenantTable()), after.get(name, TenantTable())
        if old != new:
            said = differences(msgspec.to_builtins(old), msgspec.to_builtins(new))
            yield f"tenant {name}: {', '.join(said)}"


def shown_key(key: StoredKey) -> dict[str, Any]:
    """All of a key that may be seen."""
    return {
        "name": key.name,
        "id": key.key_id,
        **msgspec.to_builtins(key.rights),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "previous_until": key.previous_until,
    }


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """What differs between two that have the same fields: ``rpm 60 -> 120``."""
    for name, value in after.items():
        if before[name] != value:
            yield f"{name} {json.dumps(before[name])} -> {json.dumps(value)}"
