"""No key gives away more than it has: what an admin key makes, changes or rotates is within it.

An admin key may be held to some models, chains and classes like any other. Without this rule it
would make itself a key that is not, or take over one by giving it a new secret.

What is not compared: the tenant and ``acts_for``, since to decide for every tenant is what an
admin is; and budgets, which bound what a key spends, not what it may do. When a key ends is
compared for admin keys only: one that ends today may make a service's key for a year, but no
admin's.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, Final

from penstock.config.model import ClassTable, KeyRights
from penstock.errors import Forbidden
from penstock.http.auth import Principal

_ALL: Final = ("ceiling", "models", "chains", "expires_at")
_WAY_OUT: Final = "Take an admin key that may itself, or 'penstock keys' beside the store."


def check_within(
    maker: Principal,
    rights: KeyRights,
    expires_at: float | None,
    classes: Mapping[str, ClassTable],
    fields: Collection[str] = _ALL,
) -> None:
    """Raises Forbidden where one of these fields gives a key more than its maker has.

    ``expires_at`` is in Unix seconds; None is never.
    """
    if "ceiling" in fields and _rank(rights.ceiling, classes) < _rank(maker.ceiling, classes):
        raise _beyond("ceiling", f"{rights.ceiling}, and its maker's is {maker.ceiling}")
    for name, own, wanted in (
        ("models", maker.models, rights.models),
        ("chains", maker.chains, rights.chains),
    ):
        if name not in fields or own is None:
            continue
        if wanted is None:
            raise _beyond(name, "all, and its maker may use some")
        if more := sorted(set(wanted) - own):
            raise _beyond(name, f"{', '.join(more)}, which its maker may not use")
    outlives = (expires_at or math.inf) > (maker.expires_at or math.inf)
    if "expires_at" in fields and rights.admin and outlives:
        raise _beyond("expires_in_seconds", "an admin key that would outlive its maker")


def _rank(name: str, classes: Mapping[str, ClassTable]) -> float:
    """A class that a key names and the configuration has no more is the least urgent."""
    return classes[name].rank if name in classes else math.inf


def compared(fields: Mapping[str, Any]) -> Collection[str]:
    """Those of a change's fields that are compared."""
    return [name for name in _ALL if name in fields]


def _beyond(name: str, what: str) -> Forbidden:
    return Forbidden(
        f"'{name}' would be {what}: no key makes one that may more than itself. {_WAY_OUT}",
        param=name,
        code="exceeds_maker",
    )
