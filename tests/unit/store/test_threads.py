"""Threads at rest: found by their own tenant, by what they hold, and by nobody else."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from penstock.store.reader import Reader
from penstock.store.threads import Search, ThreadStore, TooMuchMetadata
from penstock.store.writer import Writer


@pytest.fixture
def store(writer: Writer, readers: Callable[..., Reader]) -> ThreadStore:
    return ThreadStore(writer, readers())


def found(store: ThreadStore, tenant: str = "acme", **search: object) -> list[str]:
    encoded = msgspec.json.encode(search.pop("metadata", {}))
    wanted = Search(metadata=encoded, **search)
    listed = [thread.thread_id for thread in store.search(tenant, wanted).result()]
    assert store.count(tenant, wanted).result() == len(listed)
    return listed


def test_a_thread_is_made_once_and_belongs_to_its_tenant(store: ThreadStore) -> None:
    first, created = store.create("acme", "t", b'{"a":1}', 1.0).result()
    again, created_again = store.create("acme", "t", b"{}", 2.0).result()
    _, created_elsewhere = store.create("zeta", "t", b"{}", 3.0).result()

    assert (created, created_again, created_elsewhere) == (True, False, True)
    assert first == again
    assert store.get("acme", "t").result() == first
    assert store.get("other", "t").result() is None
    store.delete("zeta", "t").result()
    assert store.get("acme", "t").result() == first


def test_metadata_is_compared_as_values_and_never_read_as_a_statement(store: ThreadStore) -> None:
    store.create("acme", "number", b'{"a":1,"b":"x"}', 1.0).result()
    store.create("acme", "text", b'{"a":"1"}', 2.0).result()
    store.create("zeta", "elsewhere", b'{"a":1}', 3.0).result()

    assert found(store, metadata={"a": 1}) == ["number"]
    assert found(store, metadata={"a": "1"}) == ["text"]
    assert found(store, metadata={"a": 1, "b": "y"}) == []
    assert found(store, metadata={"') OR 1=1 --": 1}) == []
    assert found(store) == ["text", "number"]
    assert found(store, sort_by="thread_id", descending=False) == ["number", "text"]
    assert found(store, ids=["text", "elsewhere"]) == ["text"]
    assert found(store, status="busy") == []


def test_a_change_adds_to_metadata_within_bounds(store: ThreadStore) -> None:
    store.create("acme", "t", b'{"a":1,"b":2}', 1.0).result()
    changed = store.update("acme", "t", 5.0, metadata=b'{"b":3}', status="error").result()
    large = msgspec.json.encode({"c": "x" * 100_000})

    assert changed is not None
    assert msgspec.json.decode(changed.metadata) == {"a": 1, "b": 3}
    assert (changed.status, changed.updated_at) == ("error", 5.0)
    assert store.update("acme", "nothing", 5.0).result() is None
    with pytest.raises(TooMuchMetadata):
        store.update("acme", "t", 6.0, metadata=large).result()
