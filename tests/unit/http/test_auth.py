"""Keys become principals by their whole digest, or nobody."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import Unauthenticated
from penstock.http.auth import KEY_CHARACTERS_MAX, Authenticator, Principal, digest

PEPPER = b"pepper"
ALICE = Principal("alice", "acme", "standard", "interactive")
BOB = Principal("bob", "bobs", "batch", "batch")


@pytest.fixture
def authenticator() -> Authenticator:
    return Authenticator(
        {digest("psk_same_prefix_1", PEPPER): ALICE, digest("psk_same_prefix_2", PEPPER): BOB},
        PEPPER,
    )


def test_keys_with_a_common_prefix_are_told_apart(authenticator) -> None:
    assert authenticator.principal({"x-api-key": "psk_same_prefix_1"}) is ALICE
    assert authenticator.principal({"authorization": "Bearer psk_same_prefix_2"}) is BOB


@given(st.text(max_size=40))
def test_any_other_text_is_nobody_and_is_not_repeated(text: str) -> None:
    authenticator = Authenticator({digest("psk_the_key", PEPPER): ALICE}, PEPPER)
    for headers in ({"x-api-key": text}, {"authorization": f"Bearer {text}"}):
        if text.strip(" \t") == "psk_the_key":
            continue
        with pytest.raises(Unauthenticated) as caught:
            authenticator.principal(headers)
        assert len(text) < 4 or text not in caught.value.message


def test_an_empty_key_is_nobodys_even_where_one_is_configured_by_mistake() -> None:
    """A key that is longer than any of ours is treated as none, so neither may match."""
    authenticator = Authenticator({digest("k" * (KEY_CHARACTERS_MAX + 1), PEPPER): ALICE}, PEPPER)
    with pytest.raises(Unauthenticated):
        authenticator.principal({"x-api-key": "k" * (KEY_CHARACTERS_MAX + 1)})


def test_a_digest_depends_on_the_pepper() -> None:
    assert digest("key", b"one") != digest("key", b"two")
    assert len(digest("key", b"one")) == 64


def test_principals_are_found_by_key_id(authenticator) -> None:
    assert authenticator.by_id("alice", ALICE.tenant) is ALICE
    assert authenticator.by_id("nobody", ALICE.tenant) is None


def test_a_key_acts_for_the_tenants_that_it_names_and_with_a_star_for_all_there_are() -> None:
    some = Principal("some", "web", "batch", "batch", acts_for=frozenset({"a", "new"}))
    every = Principal("every", "ops", "batch", "batch", acts_for=frozenset({"*"}))
    inner = Principal("inner", "workers", "batch", "batch", internal=True)
    keys = {"1": some, "2": every, "3": inner, "4": ALICE}
    authenticator = Authenticator(keys, PEPPER, tenants=["set"])

    assert authenticator.tenants == {"web", "ops", "a", "new", "set", "acme"}
    assert authenticator.by_id("some", "web") is some
    for key_id, tenant in (("some", "a"), ("every", "a"), ("every", "set"), ("every", "acme")):
        found = authenticator.by_id(key_id, tenant)
        assert found is not None
        assert (found.tenant, found.key_id, found.is_delegated) == (tenant, key_id, True)
        assert found.ceiling == "batch"
    for key_id, tenant in (
        ("some", "ops"),
        ("every", "nobody"),
        ("every", "workers"),
        ("every", "*"),
        ("alice", "web"),
    ):
        assert authenticator.by_id(key_id, tenant) is None


def test_a_key_that_has_expired_is_nobodys_from_that_moment_on() -> None:
    now = 100.0
    dated = Principal("dated", "acme", "standard", "interactive", expires_at=101.0)
    known = {digest("psk_dated", PEPPER): dated}
    authenticator = Authenticator(known, PEPPER, lambda: now)

    assert authenticator.principal({"x-api-key": "psk_dated"}) is dated
    now = 101.0
    assert authenticator.by_id("dated", "acme") is None
    with pytest.raises(Unauthenticated):
        authenticator.principal({"x-api-key": "psk_dated"})


def test_a_pseudonym_tells_names_apart_and_needs_the_pepper() -> None:
    one, other = Authenticator({}, b"p"), Authenticator({}, b"q")
    assert one.pseudonym("ada") == one.pseudonym("ada") != one.pseudonym("bob")
    assert one.pseudonym("ada") != other.pseudonym("ada")
    assert 16 == len(one.pseudonym("a" * 600))
