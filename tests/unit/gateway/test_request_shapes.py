"""What the document of the API says a body must hold is what the parsers ask for."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from penstock.errors import InvalidRequest
from penstock.gateway.request_shapes import REQUESTS
from penstock.providers.base import Endpoint
from penstock.providers.registry import READERS

EXAMPLES: dict[str, Any] = {"model": "m", "messages": [], "input": "x", "prompt": "x"}
WRONG: dict[str, Any] = {"model": 7, "messages": 7, "input": 7, "prompt": 7}


def required(endpoint: Endpoint) -> list[str]:
    return [one.encode_name for one in msgspec.structs.fields(REQUESTS[endpoint]) if one.required]


def refusal(endpoint: Endpoint, body: dict[str, Any]) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        READERS[endpoint].parse(endpoint, msgspec.json.encode(body))
    return caught.value


@pytest.mark.parametrize("endpoint", Endpoint)
def test_what_is_required_is_enough_and_each_of_it_is_asked_for(endpoint: Endpoint) -> None:
    names = required(endpoint)
    body = {name: EXAMPLES[name] for name in names}

    assert READERS[endpoint].parse(endpoint, msgspec.json.encode(body)).model == "m"
    assert len(names) >= 2
    for name in names:
        missing = {other: value for other, value in body.items() if other != name}
        assert refusal(endpoint, missing).param == name
        assert refusal(endpoint, body | {name: WRONG[name]}).param == name


@pytest.mark.parametrize("endpoint", Endpoint)
def test_what_may_be_said_is_read_and_has_a_rule(endpoint: Endpoint) -> None:
    body = {name: EXAMPLES[name] for name in required(endpoint)}
    fields = msgspec.structs.fields(REQUESTS[endpoint])
    optional = {one.encode_name for one in fields if not one.required}
    if endpoint is Endpoint.COUNT_TOKENS:
        optional -= {"stream"}

    for name in optional:
        assert (refusal(endpoint, body | {name: [7]}).param or "").startswith(name), name
