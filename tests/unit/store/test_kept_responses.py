"""Kept responses at rest: each tenant's own, for as long and as many as is of use."""

from __future__ import annotations

from collections.abc import Callable

from penstock.store.kept_responses import KEEP_SECONDS, KeptRow, ResponseStore
from penstock.store.reader import Reader
from penstock.store.writer import Writer

Readers = Callable[..., Reader]


def found(store: ResponseStore, response_id: str, tenant: str = "a", now: float = 10.0):
    return store.find(tenant, response_id, now).result()


def test_a_response_is_found_by_its_tenant_alone(writer: Writer, readers: Readers) -> None:
    store = ResponseStore(writer, readers())
    store.keep([KeptRow("a", "r1", "one", 1.0), KeptRow("b", "r1", "two", 2.0)], 2.0).result()

    assert "one" == found(store, "r1")
    assert "two" == found(store, "r1", "b")
    assert found(store, "r1", "c") is found(store, "r2") is None


def test_the_last_deployment_that_gave_it_keeps_it(writer: Writer, readers: Readers) -> None:
    store = ResponseStore(writer, readers())
    store.keep([KeptRow("a", "r1", "one", 1.0), KeptRow("a", "r1", "two", 2.0)], 2.0).result()

    assert "two" == found(store, "r1")


def test_what_its_provider_has_forgotten_is_forgotten(writer: Writer, readers: Readers) -> None:
    store = ResponseStore(writer, readers())
    store.keep([KeptRow("a", "r1", "one", 1.0), KeptRow("a", "r2", "one", 9.0)], 9.0).result()

    assert found(store, "r1", now=KEEP_SECONDS + 1.0) == "one"
    assert found(store, "r1", now=KEEP_SECONDS + 1.1) is None
    store.keep([KeptRow("a", "r3", "one", KEEP_SECONDS + 5.0)], KEEP_SECONDS + 5.0).result()
    assert found(store, "r1") is None
    assert "one" == found(store, "r2")


def test_of_too_many_the_oldest_go(writer: Writer, readers: Readers) -> None:
    store = ResponseStore(writer, readers(), rows_max=3)
    for number in range(7):
        store.keep([KeptRow("a", f"r{number}", "one", 1.0 + number)], 9.0).result()

    assert [found(store, f"r{number}") for number in range(7)] == [None] * 4 + ["one"] * 3
