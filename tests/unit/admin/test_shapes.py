"""What is said of keys and tenants is what is shown of them: all of it, in its order."""

from __future__ import annotations

import msgspec
import pytest

from penstock.admin.shapes import KeyShown, SpentShown, SpentSum, TenantShown
from penstock.config.model import KeyRights, TenantTable
from penstock.store.changes import shown_key
from penstock.store.keys import StoredKey
from penstock.store.tenants import StoredTenant, tenant_view

NOTHING = SpentSum(calls=0, tokens=0, usd=0.0)
SPENT = msgspec.to_builtins(SpentShown(day=NOTHING, month=NOTHING))


@pytest.mark.parametrize(
    "rights",
    [
        KeyRights(tenant="team"),
        KeyRights(tenant="team", models=["m"], chains=[], acts_for=["*"], budget_day_usd=1.5),
    ],
)
def test_a_key(rights: KeyRights) -> None:
    key = StoredKey("id", "name", "digest", rights, created_at=1.5, expires_at=2.5)
    shown = {**shown_key(key), "spent": SPENT}

    assert [*shown] == [*KeyShown.__struct_encode_fields__]
    assert msgspec.to_builtins(msgspec.convert(shown, KeyShown)) == shown


@pytest.mark.parametrize("stored", [None, StoredTenant("team", {"rpm": None}, 2.5)])
def test_a_tenant(stored: StoredTenant | None) -> None:
    file = {"team": TenantTable(weight=2.0, rpm=60.0, concurrency=3)}
    shown = {**tenant_view("team", file, stored), "spent": SPENT}

    assert [*shown] == [*TenantShown.__struct_encode_fields__]
    assert msgspec.to_builtins(msgspec.convert(shown, TenantShown)) == shown
