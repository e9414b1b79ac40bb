"""Every key that there is, those of the configuration and those of the store, as one list."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from penstock.config.load import Loaded
from penstock.config.model import Budgeted, Config, KeyRights
from penstock.http.auth import Principal, digest
from penstock.store.budgets import Budget, Scope
from penstock.store.keys import Snapshot


def principals_of(loaded: Loaded, stored: Snapshot) -> Iterator[tuple[str, Principal]]:
    """The digest of each key, and what it may do."""
    for name, table in loaded.config.keys.items():
        yield digest(loaded.secrets.keys[name], stored.pepper), _principal(name, table)
    for key in stored.keys:
        principal = msgspec.structs.replace(
            _principal(key.key_id, key.rights), expires_at=key.expires_at
        )
        if key.digest_previous is not None and key.previous_until is not None:
            until = min(key.previous_until, key.expires_at or key.previous_until)
            yield key.digest_previous, msgspec.structs.replace(principal, expires_at=until)
        yield key.digest, principal


def _principal(key_id: str, allowed: KeyRights) -> Principal:
    """What a key may do, wherever it stands: the file and the store say it in the same words."""
    return Principal(
        key_id=key_id,
        tenant=allowed.tenant,
        class_default=allowed.class_default,
        ceiling=allowed.ceiling,
        models=None if allowed.models is None else frozenset(allowed.models),
        chains=None if allowed.chains is None else frozenset(allowed.chains),
        acts_for=frozenset(allowed.acts_for),
        admin=allowed.admin,
    )


def budgets_of(config: Config, stored: Snapshot) -> dict[Scope, Budget]:
    """What each key and each tenant may spend."""
    found: dict[Scope, Budget] = {}
    for tenant, tenant_table in config.tenants.items():
        found["tenant", tenant] = _budget(tenant_table)
    for name, table in config.keys.items():
        found["key", name] = _budget(table)
    for key in stored.keys:
        found["key", key.key_id] = _budget(key.rights)
    return found


def _budget(allowed: Budgeted) -> Budget:
    return Budget(
        day_usd=allowed.budget_day_usd,
        month_usd=allowed.budget_month_usd,
        day_tokens=allowed.budget_day_tokens,
        month_tokens=allowed.budget_month_tokens,
        hard=allowed.budget_hard,
    )
