"""The keys that operators create: what is stored, who sees it when, and what refuses to open."""

from __future__ import annotations

import re
import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.config.model import KeyRights
from penstock.errors import PenstockError, StoreError
from penstock.http.auth import digest
from penstock.store import database, pepper
from penstock.store.keys import (
    KeyStore,
    NoSuchKey,
    Snapshot,
    key_digest,
    stored_key_count,
)

RIGHTS = KeyRights(tenant="team")
Opener = Callable[..., KeyStore]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def opened(directory: Path) -> Iterator[Opener]:
    """Opens the store as one more process would; all are closed at the end."""
    stores: list[KeyStore] = []

    def open_store(environment: dict[str, str] | None = None) -> KeyStore:
        stores.append(KeyStore(directory, environment or {}))
        return stores[-1]

    yield open_store
    for store in stores:
        store.close()


def _names(snapshot: Snapshot) -> list[str]:
    return [key.name for key in snapshot.keys]


def test_a_key_has_a_prefix_a_public_id_and_256_random_bits(opened: Opener) -> None:
    store = opened()
    made = [store.create(f"k{number}", RIGHTS) for number in range(3)]
    ids = [key.key_id for key in store.all()]

    assert all(re.fullmatch(r"psk_[0-9a-f]{12}_[0-9a-f]{64}", key) for key in made)
    assert ids == [key.split("_")[1] for key in made]
    assert len({key.split("_")[2] for key in made}) == 3


def test_the_door_finds_a_stored_key_by_its_digest(opened: Opener) -> None:
    store = opened()
    key = store.create("ci", RIGHTS)
    snapshot = store.snapshot()

    assert snapshot.keys[0].digest == digest(key, snapshot.pepper)
    assert snapshot.keys[0].digest == key_digest(key, snapshot.pepper)


def test_no_file_of_the_store_holds_the_key_and_none_is_open_to_others(
    opened: Opener, directory: Path
) -> None:
    store = opened()
    secret = store.create("ci", RIGHTS).rpartition("_")[2]
    files = list(directory.iterdir())

    assert {"penstock.db", "pepper"} <= {file.name for file in files}
    assert not any(secret.encode() in file.read_bytes() for file in files)
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_what_a_key_may_do_comes_back_as_it_was_given(opened: Opener) -> None:
    rights = KeyRights(
        tenant="team", class_default="batch", ceiling="standard", models=["a", "b"], chains=[],
        admin=True,
    )  # fmt: skip
    opened().create("ci", rights)

    assert opened().snapshot().keys[0].rights == rights


def test_a_running_service_sees_creation_and_revocation_by_another_process(opened: Opener) -> None:
    service, command = opened(), opened()

    assert _names(service.snapshot()) == []
    assert not service.changed()

    command.create("ci", RIGHTS)
    assert service.changed()
    assert _names(service.snapshot()) == ["ci"]
    assert not service.changed()

    command.revoke("ci")
    assert service.changed()
    assert _names(service.snapshot()) == []


def test_asking_for_the_keys_of_a_store_that_is_not_there_makes_none(
    opened: Opener, directory: Path
) -> None:
    store = opened()

    assert store.snapshot().keys == ()
    assert not store.changed()
    assert not directory.exists()


def test_a_store_that_was_replaced_or_removed_is_seen(opened: Opener, directory: Path) -> None:
    service = opened()
    opened().create("ci", RIGHTS)
    assert _names(service.snapshot()) == ["ci"]

    for file in directory.iterdir():
        file.unlink()
    assert service.changed()
    assert _names(service.snapshot()) == []

    opened().create("other", RIGHTS)
    assert service.changed()
    assert _names(service.snapshot()) == ["other"]


def test_a_name_is_taken_until_its_key_is_revoked(opened: Opener, directory: Path) -> None:
    store = opened()
    first = store.create("ci", RIGHTS)
    with pytest.raises(PenstockError, match="there is a key ci already"):
        store.create("ci", RIGHTS)

    store.revoke("ci")
    second = store.create("ci", RIGHTS)

    assert first != second
    assert [key.revoked_at is None for key in store.all()] == [False, True]
    assert stored_key_count(directory) == 1


def test_only_a_key_in_force_can_be_revoked(opened: Opener) -> None:
    with pytest.raises(PenstockError, match="no stored key ci"):
        opened().revoke("ci")
    opened().create("ci", RIGHTS)
    opened().revoke("ci")
    with pytest.raises(PenstockError, match="no stored key ci"):
        opened().revoke("ci")


def test_a_name_is_data_whatever_it_holds(opened: Opener) -> None:
    store = opened()
    hostile = "x'; DROP TABLE keys; --"
    store.create(hostile, RIGHTS)

    with pytest.raises(PenstockError):
        store.revoke("' OR '1'='1")
    assert [key.revoked_at for key in store.all() if key.name == hostile] == [None]


def test_a_damaged_database_is_refused_with_a_way_out(opened: Opener, directory: Path) -> None:
    directory.mkdir()
    file = directory / "penstock.db"
    for content in (b"not a database at all" * 500, _damaged_database()):
        file.write_bytes(content)

        with pytest.raises(StoreError, match="damaged; stop all Penstock processes and restore"):
            opened().snapshot()
        assert file.read_bytes() == content


def _damaged_database() -> bytes:
    """A real one with the middle overwritten."""
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE keys (a TEXT UNIQUE)")
    connection.executemany(
        "INSERT INTO keys VALUES (?)", [(f"{number:0500}",) for number in range(99)]
    )
    connection.commit()
    content = bytearray(connection.serialize())
    connection.close()
    content[5000:15000] = b"\xff" * 10000
    # Write and read version 2 say WAL, as the store's own files do.
    content[18:20] = b"\x02\x02"
    return bytes(content)


def test_a_newer_schema_is_refused(opened: Opener, directory: Path) -> None:
    opened().create("ci", RIGHTS)
    with sqlite3.connect(directory / "penstock.db") as connection:
        connection.execute("INSERT INTO schema_version VALUES (999, 0)")
    connection.close()

    with pytest.raises(
        StoreError, match=r"version 999, and this Penstock knows \d+; run the newer"
    ):
        opened().snapshot()


def test_each_step_of_the_schema_is_taken_once_and_forwards(
    opened: Opener, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened().create("ci", RIGHTS)
    later = (*database.STEPS, ("CREATE TABLE later (a TEXT)",))
    monkeypatch.setattr(database, "STEPS", later)

    assert _names(opened().snapshot()) == ["ci"]
    assert _names(opened().snapshot()) == ["ci"]
    with sqlite3.connect(directory / "penstock.db") as connection:
        versions = connection.execute("SELECT version FROM schema_version").fetchall()
        assert connection.execute("SELECT count(*) FROM later").fetchone() == (0,)
    connection.close()
    assert versions == [(number,) for number in range(1, len(later) + 1)]


def test_a_step_that_fails_leaves_nothing_behind(
    opened: Opener, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened().create("ci", RIGHTS)
    monkeypatch.setattr(
        database, "STEPS", (*database.STEPS, ("CREATE TABLE half (a TEXT)", "CREATE NONSENSE"))
    )
    with pytest.raises(StoreError):
        opened().snapshot()
    monkeypatch.undo()

    assert _names(opened().snapshot()) == ["ci"]
    with sqlite3.connect(directory / "penstock.db") as connection:
        tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
    connection.close()
    assert ("half",) not in tables


def test_a_locked_database_is_an_error_after_the_busy_timeout(
    opened: Opener, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_SECONDS", 0.01)
    store = opened()
    store.create("ci", RIGHTS)
    other = sqlite3.connect(directory / "penstock.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    assert _names(store.snapshot()) == ["ci"]
    with pytest.raises(StoreError, match=r"another process has held the database for 0\.01 s"):
        store.create("more", RIGHTS)
    other.execute("ROLLBACK")
    other.close()
    assert store.create("more", RIGHTS)


def test_a_store_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreError, match="check the directory's owner and mode"):
        KeyStore(tmp_path / "file" / "store", {}).create("ci", RIGHTS)


def test_a_lost_or_exchanged_pepper_is_refused_rather_than_all_keys(
    opened: Opener, directory: Path
) -> None:
    opened().create("ci", RIGHTS)
    file = directory / "pepper"
    content = file.read_bytes()

    file.unlink()
    with pytest.raises(StoreError, match="the pepper cannot be read"):
        opened().snapshot()
    file.write_bytes(b"x" * 64)
    file.chmod(0o600)
    with pytest.raises(StoreError, match="made with another pepper"):
        opened().snapshot()
    file.write_bytes(content)
    assert _names(opened().snapshot()) == ["ci"]
    file.chmod(0o644)
    with pytest.raises(StoreError, match="chmod 600"):
        opened().snapshot()


def test_the_pepper_may_come_from_a_file_elsewhere(
    opened: Opener, directory: Path, tmp_path: Path
) -> None:
    file = tmp_path / "mounted"
    environment = {"PENSTOCK_PEPPER_FILE": str(file)}
    with pytest.raises(StoreError, match="cannot be read"):
        opened(environment).create("ci", RIGHTS)
    file.write_text("short")
    with pytest.raises(StoreError, match="at least 32 characters"):
        opened(environment).create("ci", RIGHTS)
    file.write_text("p" * 32)
    opened(environment).create("ci", RIGHTS)

    assert not (directory / "pepper").exists()
    assert _names(opened(environment).snapshot()) == ["ci"]


def test_of_two_peppers_made_at_once_the_first_one_stays(directory: Path) -> None:
    directory.mkdir()
    pepper.pepper_in(directory, {}, create=True)
    first = (directory / "pepper").read_bytes()
    pepper._make(directory / "pepper", pepper.new_content())

    assert (directory / "pepper").read_bytes() == first
    assert [file.name for file in directory.iterdir()] == ["pepper"]


def test_a_process_that_makes_the_store_keeps_the_pepper_that_it_began_with(
    opened: Opener, directory: Path
) -> None:
    service, command = opened(), opened()
    before = service.snapshot().pepper
    assert not (directory / "pepper").exists()

    service.create("first", RIGHTS)

    assert before == service.snapshot().pepper == command.snapshot().pepper


def test_a_snapshot_shows_no_pepper(opened: Opener) -> None:
    snapshot = opened().snapshot()

    assert snapshot.pepper.hex() not in repr(snapshot)
    assert repr(snapshot.pepper) not in f"{snapshot} {[snapshot]}"


def test_a_rotated_key_keeps_its_id_and_its_secret_before_works_for_the_overlap(
    opened: Opener,
) -> None:
    store, service = opened(), opened()
    first = store.create("ci", RIGHTS)
    service.snapshot()
    second = store.rotate("ci", 60.0)
    assert service.changed()
    (key,) = service.snapshot().keys
    pepper_now = service.snapshot().pepper

    assert second.split("_")[1] == first.split("_")[1] == key.key_id
    assert second != first
    assert key.digest == digest(second, pepper_now)
    assert key.digest_previous == digest(first, pepper_now)
    assert key.previous_until == pytest.approx(key.created_at + 60, abs=30)
    third = store.rotate("ci")
    (key,) = service.snapshot().keys
    assert (key.digest, key.digest_previous) == (
        digest(third, pepper_now),
        digest(second, pepper_now),
    )
    with pytest.raises(NoSuchKey):
        store.rotate("other")


def test_an_expired_key_is_not_in_force_and_keeps_its_budget_until_then(opened: Opener) -> None:
    store = opened()
    rights = KeyRights(tenant="team", budget_month_usd=1.5, budget_day_tokens=7, budget_hard=False)
    store.create("old", rights, expires_at=1.0)
    store.create("new", rights, expires_at=1e12)

    assert _names(store.snapshot()) == ["new"]
    assert store.snapshot().keys[0].rights == rights
    assert [key.expires_at for key in store.all()] == [1.0, 1e12]
    with pytest.raises(NoSuchKey):
        store.rotate("old")
