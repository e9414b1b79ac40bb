"""Reads a request's JSON body within bounds: one place, before anything else looks at it.

msgspec refuses what the standard library's parser lets through to cause errors later: NaN,
1e999, lone surrogates, bytes that are no UTF-8.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from penstock.chains.worker.faults import InvalidInput

DEPTH_MAX = 64
NODES_MAX = 100_000


def parse(body: bytes) -> dict[str, Any]:
    """The body as an object. Raises InvalidInput."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput.invalid_json() from error
    if not isinstance(document, dict):
        raise InvalidInput("the body must be a JSON object")
    _check_bounds(document)
    # Stock clients always send this field, empty; the protocol has no use for it.
    kwargs = document.get("kwargs")
    if any(kwargs) if isinstance(kwargs, list) else kwargs:
        raise InvalidInput("kwargs are not supported: put options into config.configurable")
    return document


def _check_bounds(document: Any) -> None:
    level, nodes, depth = [document], 0, 0
    while level:
        depth += 1
        nodes += len(level)
        if depth > DEPTH_MAX:
            raise InvalidInput(f"the body is nested deeper than {DEPTH_MAX} levels")
        if nodes > NODES_MAX:
            raise InvalidInput(f"the body holds more than {NODES_MAX} values")
        level = [child for value in level for child in _children(value)]


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
