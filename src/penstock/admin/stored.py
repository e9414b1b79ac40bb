"""How this door asks the key store, reads what it is to write, and shows what was spent.

The store is written as the commands write it, in short transactions beside the service's writer,
and in a thread, since the lock may have to be waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from penstock.admin.answers import StoreUnavailable
from penstock.admin.shapes import SpentShown, SpentSum
from penstock.config.fields import TableReader
from penstock.config.problems import Problems
from penstock.errors import (
    CallError,
    ConfigError,
    InvalidRequest,
    NotFound,
    PenstockError,
    StoreError,
)
from penstock.store.budgets import NANO_DOLLARS, Budgets, Scope
from penstock.store.keys import KeyStore, NotStored
from penstock.store.ledger import Spent

_T = TypeVar("_T")


async def with_store(directory: Path, ask: Callable[[KeyStore], _T]) -> _T:
    """What the key store answers. Raises StoreUnavailable, NotFound, InvalidRequest.

    A CallError that ``ask`` raises is raised on.
    """

    def asked() -> _T:
        store = KeyStore(directory)
        try:
            return ask(store)
        finally:
            store.close()

    try:
        return await asyncio.to_thread(asked)
    except StoreError as error:
        raise StoreUnavailable(str(error)) from None
    except ConfigError as error:
        raise broken_rules(error) from None
    except NotStored as error:
        raise NotFound(str(error)) from None
    except CallError:
        raise
    except PenstockError as error:
        raise InvalidRequest(str(error), status=409) from None


def fields_of(
    body: bytes, kind: type[msgspec.Struct], fixed: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The fields that a body has, under the rules of a struct of the configuration.

    ``fixed`` says why there is no such field. Raises InvalidRequest with all problems.
    """
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # The words of the decoder name places, never values.
        raise InvalidRequest(f"The body is not JSON: {error}.") from None
    if not isinstance(fields, dict):
        raise InvalidRequest("The body must be a JSON object.")
    problems = Problems("the request", {})
    for name in [name for name in fixed or () if name in fields]:
        problems.add(("body", name), (fixed or {})[name], fields.pop(name))
    TableReader(problems).read(fields, kind, ("body",))
    try:
        problems.raise_if_any()
    except ConfigError as error:
        raise broken_rules(error) from None
    return fields


def broken_rules(error: ConfigError) -> InvalidRequest:
    """The rules that a request breaks, in one answer."""
    return InvalidRequest("; ".join(error.problems))


def spent_view(budgets: Budgets, scope: Scope) -> SpentShown:
    """What a key or a tenant has spent this day and month (UTC)."""
    counter = budgets.counter(scope)
    return SpentShown(day=_sums(counter.spent_day), month=_sums(counter.spent_month))


def _sums(spent: Spent) -> SpentSum:
    return SpentSum(spent.calls, spent.tokens, usd=spent.nano_dollars / NANO_DOLLARS)
