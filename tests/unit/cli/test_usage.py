"""``penstock usage``: what the ledger of the store in the current directory says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from penstock.store.database import DATABASE_FILE, Database
from penstock.store.keys import KeyStore
from penstock.store.ledger import CallRow, write_rows

STORE = Path(".penstock")


def record(*key_ids: str) -> None:
    """A call of each key."""
    rows = [
        CallRow(
            request_id="r", arrived_at=1e9, tenant="t", key_id=one, class_name="batch", model="m"
        )
        for one in key_ids
    ]
    with Database(STORE / DATABASE_FILE).write() as connection:
        write_rows(connection, rows)


def test_a_stored_key_is_shown_by_its_name_too_and_one_of_the_file_by_its_name(
    penstock: Callable[..., tuple[int, str, str]],
) -> None:
    penstock("keys", "create", "ci", "--tenant", "team")
    store = KeyStore(STORE)
    key_id = store.all()[0].key_id
    store.close()
    record(key_id, "of-the-file")

    table = penstock("usage", "--group-by", "key", "--since", "2001-01-01")[1]
    named = {line.partition("  ")[0] for line in table.splitlines()[1:]}
    assert named == {f"ci ({key_id})", "of-the-file"}

    sums = json.loads(penstock("usage", "--group-by", "key", "--since", "2001-01-01", "--json")[1])
    assert {one["name"] for one in sums} == {key_id, "of-the-file"}


def test_without_a_store_or_a_call_it_says_so(penstock) -> None:
    code, out, err = penstock("usage")
    assert (code, out) == (2, "")
    assert "there is no store yet" in err

    penstock("keys", "create", "ci", "--tenant", "team")
    assert penstock("usage")[2].startswith("There was no call in that time.")
