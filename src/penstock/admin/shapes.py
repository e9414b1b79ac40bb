"""What is asked and answered under ``/admin``.

A key and a tenant are shown as the tables of the configuration have them, with more before and
behind: what is said of them here is made from those tables, and is for the document of what is
served.
"""

from __future__ import annotations

from types import GenericAlias
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from penstock.config.model import KeyRights, TenantTable
from penstock.http.query import Query
from penstock.store.tenants import Source
from penstock.store.usage import Group, UsageSum

_Moment: TypeAlias = Annotated[
    str,
    Meta(
        description="a date (2026-11-01), a time (2026-11-01T12:00; UTC where it names no other "
        "zone) or how long ago (30m, 12h, 7d)",
        examples=["7d", "2026-11-01", "2026-11-01T12:00"],
    ),
]


class UsageQuery(Query, frozen=True, forbid_unknown_fields=True):
    """Which sums of the ledger are wanted."""

    group_by: Group = "tenant"
    since: _Moment = "30d"
    until: _Moment | None = None
    format: Literal["json", "csv"] = "json"


class UsageShown(msgspec.Struct):
    """Sums of the ledger, the dearest first; days in their order."""

    group_by: Group
    usage: list[UsageSum]


class SpentSum(msgspec.Struct):
    """What was spent."""

    calls: int
    tokens: int
    usd: float


class SpentShown(msgspec.Struct):
    """What a key or a tenant has spent this day and month (UTC)."""

    day: SpentSum
    month: SpentSum


class KeyMade(msgspec.Struct):
    """A new secret of a key: nothing else ever shows it."""

    name: str
    key: str


class KeyRevoked(msgspec.Struct):
    """A key that has ended."""

    name: str
    revoked: bool


def _with_table(
    name: str,
    words: str,
    before: list[tuple[str, Any]],
    table: type[msgspec.Struct],
    behind: list[tuple[str, Any]],
) -> type[msgspec.Struct]:
    """A struct that has all fields of a table of the configuration, none of them left out."""
    fields = [
        (one.name, one.type, msgspec.field(name=one.encode_name))
        for one in msgspec.structs.fields(table)
    ]
    return msgspec.defstruct(name, [*before, *fields, *behind], namespace={"__doc__": words})


def _list_of(name: str, words: str, field: str, kind: Any) -> type[msgspec.Struct]:
    items = (field, GenericAlias(list, (kind,)))
    return msgspec.defstruct(name, [items], namespace={"__doc__": words})


_Time: TypeAlias = float | None
TenantShown: Final = _with_table(
    "TenantShown",
    "What holds for a tenant, where each value is from, and what it has spent.",
    [("name", str)],
    TenantTable,
    [("sources", dict[str, Source]), ("changed_at", _Time), ("spent", SpentShown)],
)
KeyShown: Final = _with_table(
    "KeyShown",
    "A stored key without its secret, and what it has spent. Times are Unix seconds.",
    [("name", str), ("id", str)],
    KeyRights,
    [
        ("created_at", float),
        ("expires_at", _Time),
        ("revoked_at", _Time),
        ("previous_until", _Time),
        ("spent", SpentShown),
    ],
)
TenantList: Final = _list_of("TenantList", "Each tenant.", "tenants", TenantShown)
KeyList: Final = _list_of("KeyList", "The stored keys, ended ones too.", "keys", KeyShown)


def limits_shown(deployment: Any) -> type[msgspec.Struct]:
    """The answer that shows each deployment's limits; ``deployment`` is what it shows of one."""
    return _list_of("LimitsShown", "Each deployment's limits.", "deployments", deployment)
