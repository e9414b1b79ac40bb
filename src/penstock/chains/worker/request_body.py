"""Reads a request's JSON body within bounds: one place, before anything else looks at it.

msgspec refuses what the standard library's parser lets through to cause errors later: NaN,
1e999, lone surrogates, bytes that are no UTF-8. What it would take long to decode is counted
before, at C speed: many values, and numbers with a long exponent, which cost it 10 µs each.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any

import msgspec

from penstock.chains.worker.faults import InvalidInput
from penstock.providers.request import outside_strings

DEPTH_MAX = 64
NODES_MAX = 100_000
LONG_EXPONENTS_MAX = 1000

_LONG_EXPONENT = re.compile(rb"[eE][+-]?[0-9]{3}")


def parse(body: bytes, kwargs_known: Collection[str] = ()) -> dict[str, Any]:
    """The body as an object; ``kwargs_known`` may stand in its ``kwargs``. Raises InvalidInput."""
    _check_cost(body)
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput.invalid_json() from error
    if not isinstance(document, dict):
        raise InvalidInput("the body must be a JSON object")
    _check_bounds(document)
    # Stock clients always send this field, mostly empty.
    kwargs = document.get("kwargs")
    unknown = kwargs
    if isinstance(kwargs, list):
        unknown = any(kwargs)
    elif isinstance(kwargs, dict):
        unknown = kwargs.keys() - set(kwargs_known)
    if unknown:
        raise InvalidInput("kwargs are not supported: put options into config.configurable")
    return document


def kwargs_of(document: dict[str, Any]) -> dict[str, Any]:
    """The ``kwargs`` of a parsed body that names some, else none."""
    kwargs = document.get("kwargs")
    return kwargs if isinstance(kwargs, dict) else {}


def _check_cost(body: bytes) -> None:
    """Refuse what certainly breaks the rules below, before anything is made of it."""
    outside = outside_strings(body)
    if outside.count(b",") > NODES_MAX or outside.count(b"[") + outside.count(b"{") > NODES_MAX:
        raise _too_many_values()
    if len(_LONG_EXPONENT.findall(outside)) > LONG_EXPONENTS_MAX:
        raise InvalidInput(
            f"the body holds more than {LONG_EXPONENTS_MAX} numbers with three-digit exponents"
        )


def _check_bounds(document: Any) -> None:
    level, nodes, depth = [document], 0, 0
    while level:
        depth += 1
        nodes += len(level)
        if depth > DEPTH_MAX:
            raise InvalidInput(f"the body is nested deeper than {DEPTH_MAX} levels")
        if nodes > NODES_MAX:
            raise _too_many_values()
        level = [child for value in level for child in _children(value)]


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _too_many_values() -> InvalidInput:
    return InvalidInput(f"the body holds more than {NODES_MAX} values")
