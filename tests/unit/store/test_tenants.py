"""What is set of tenants: above the file, field by field, until it is reset."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.config.load import load_tables
from penstock.config.model import KeyRights, TenantTable
from penstock.errors import PenstockError
from penstock.store.changes import changes
from penstock.store.keys import KeyStore, NothingSet, Snapshot, changed_key
from penstock.store.tenants import StoredTenant, overridden, tenant_view, tenants_in_force

FILE = {"team": TenantTable(weight=2.0, rpm=60.0), "other": TenantTable()}
VALUES = st.none() | st.integers(1, 9).map(float)
Opener = Callable[..., KeyStore]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opener]:
    """Opens the store as one more process would; all are closed at the end."""
    stores: list[KeyStore] = []

    def open_store() -> KeyStore:
        stores.append(KeyStore(tmp_path / "store", {}))
        return stores[-1]

    yield open_store
    for store in stores:
        store.close()


def test_fields_are_set_one_by_one_or_all_anew_and_reset_one_by_one_or_all(opened: Opener) -> None:
    store, service = opened(), opened()
    store.set_tenant("team", {"rpm": 60.0, "tpm": None})
    service.snapshot()

    store.set_tenant("team", {"rpm": 90.0, "weight": 3.0})
    assert service.changed()
    (set_once,) = service.snapshot().tenants
    assert set_once.fields == {"rpm": 90.0, "tpm": None, "weight": 3.0}

    store.reset_tenant("team", ["tpm", "concurrency"])
    assert service.snapshot().tenants[0].fields == {"rpm": 90.0, "weight": 3.0}
    store.set_tenant("team", {"budget_hard": False}, replaces=True)
    assert service.snapshot().tenants[0].fields == {"budget_hard": False}
    store.reset_tenant("team")
    assert service.changed()
    assert service.snapshot().tenants == ()


def test_what_was_not_set_cannot_be_reset(opened: Opener) -> None:
    with pytest.raises(NothingSet, match="penstock tenants show team"):
        opened().reset_tenant("team")
    opened().set_tenant("team", {"rpm": 1.0})
    for name, fields in (("team", ["tpm"]), ("other", [])):
        with pytest.raises(NothingSet):
            opened().reset_tenant(name, fields)


def test_a_name_of_a_tenant_is_data_whatever_it_holds(opened: Opener) -> None:
    hostile = "x'; DROP TABLE tenants; --"
    opened().set_tenant(hostile, {"rpm": 1.0})

    with pytest.raises(PenstockError):
        opened().reset_tenant("' OR '1'='1")
    assert [tenant.name for tenant in opened().tenants()] == [hostile]


@given(st.dictionaries(st.sampled_from(["rpm", "tpm", "budget_day_usd"]), VALUES))
def test_each_field_is_as_it_was_set_else_as_the_file_has_it_and_the_view_says_which(
    fields: dict[str, float | None],
) -> None:
    stored = StoredTenant("team", fields, 1.0)
    held = tenants_in_force(FILE, [stored] if fields else [])
    view = tenant_view("team", FILE, stored if fields else None)

    assert held["other"] == FILE["other"]
    for field in TenantTable.__struct_fields__:
        expected = fields.get(field, getattr(FILE["team"], field))
        source = "file" if field in ("weight", "rpm") else "default"
        assert getattr(held["team"], field) == view[field] == expected
        assert view["sources"][field] == ("store" if field in fields else source)


def test_an_operator_is_told_which_values_of_the_file_do_not_hold() -> None:
    fields = {"rpm": None, "weight": 2.0, "tpm": 5.0}
    (line,) = overridden(FILE, [StoredTenant("team", fields, 1.0)])

    assert line.startswith("tenant team: rpm null, which was set, stands above the file's 60.0; ")
    assert "penstock tenants reset team rpm" in line


def test_a_tenant_that_no_file_names_has_the_defaults_beside_what_was_set() -> None:
    held = tenants_in_force({}, [StoredTenant("new", {"rpm": 5.0}, 1.0)])

    assert held == {"new": TenantTable(rpm=5.0)}


def test_the_log_is_told_what_changed_of_keys_and_tenants_and_no_secret(opened: Opener) -> None:
    store = opened()
    before = store.snapshot()
    made = store.create("ci", KeyRights(tenant="team"))
    after = store.snapshot()
    assert list(changes(None, after, {}, FILE)) == []
    (line,) = changes(before, after, FILE, FILE)
    key_id = made.split("_")[1]
    assert line == f"key ci ({key_id}) of tenant team: is in force"

    def said(first: Snapshot) -> str:
        (line,) = changes(first, store.snapshot(), FILE, FILE)
        return line

    store.change("ci", lambda key: changed_key(key, {"ceiling": "standard"}, load_tables(None)))
    assert said(after) == f'key ci ({key_id}): ceiling "interactive" -> "standard"'
    after = store.snapshot()
    secret = store.rotate("ci").split("_")[2]
    assert "has a new secret" in said(after)
    assert secret not in said(after)
    after = store.snapshot()
    store.revoke("ci")
    assert said(after) == f"key ci ({key_id}): has ended"

    held = tenants_in_force(FILE, [StoredTenant("team", {"rpm": None}, 1.0)])
    assert list(changes(after, after, FILE, held)) == ["tenant team: rpm 60.0 -> null"]
