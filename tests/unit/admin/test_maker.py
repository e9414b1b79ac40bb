"""No key gives away more than it has."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from penstock.admin.maker import check_within, compared
from penstock.config.load import load_tables
from penstock.config.model import KeyRights
from penstock.errors import Forbidden
from penstock.http.auth import Principal

CLASSES = load_tables(None).classes
FREE = Principal("boss", "operators", "standard", "interactive", admin=True)
HELD = Principal(
    "boss",
    "operators",
    "batch",
    "standard",
    models=frozenset({"small", "middle"}),
    chains=frozenset(),
    admin=True,
    expires_at=1000.0,
)
WITHIN: dict[str, Any] = {"ceiling": "batch", "models": ["small"], "chains": []}


def rights(**fields: Any) -> KeyRights:
    return msgspec.convert({"tenant": "other", **WITHIN, **fields}, KeyRights)


def test_who_is_held_to_nothing_gives_anything() -> None:
    everything = rights(ceiling="interactive", models=None, chains=None, admin=True)

    check_within(FREE, everything, None, CLASSES)


def test_what_is_within_is_given_to_any_tenant_and_for_any_time() -> None:
    check_within(HELD, rights(acts_for=["*"], budget_day_usd=9), None, CLASSES)
    check_within(HELD, rights(admin=True), 1000.0, CLASSES)


@pytest.mark.parametrize(
    ("fields", "expires_at", "named_field"),
    [
        ({"ceiling": "interactive"}, None, "ceiling"),
        ({"models": None}, None, "models"),
        ({"models": ["small", "large"]}, None, "models"),
        ({"chains": None}, None, "chains"),
        ({"chains": ["haiku"]}, None, "chains"),
        ({"admin": True}, None, "expires_in_seconds"),
        ({"admin": True}, 1000.1, "expires_in_seconds"),
    ],
)
def test_what_is_more_is_refused_by_name(fields, expires_at, named_field) -> None:
    with pytest.raises(Forbidden, match="no key makes one that may more than itself") as refused:
        check_within(HELD, rights(**fields), expires_at, CLASSES)

    assert (refused.value.param, refused.value.code) == (named_field, "exceeds_maker")


def test_of_a_change_only_what_it_names_is_compared() -> None:
    more = rights(ceiling="interactive", models=None)

    check_within(HELD, more, None, CLASSES, compared({"budget_day_usd": 5, "name": "x"}))
    with pytest.raises(Forbidden):
        check_within(HELD, more, None, CLASSES, compared({"models": None}))


def test_a_class_that_is_no_more_is_the_least_urgent() -> None:
    check_within(HELD, rights(ceiling="gone"), None, CLASSES)
    with pytest.raises(Forbidden):
        check_within(msgspec.structs.replace(HELD, ceiling="gone"), rights(), None, CLASSES)
