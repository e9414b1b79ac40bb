"""The service does not start with a route that nobody guards."""

from __future__ import annotations

import pytest
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from penstock.errors import InvalidRequest
from penstock.http.entrance import check_one_reading, require_doors


async def _unguarded(request: object) -> PlainTextResponse:
    return PlainTextResponse("open")


@pytest.mark.parametrize(
    "route", [Route("/open", _unguarded), Mount("/mounted", _unguarded), Mount("/m", routes=[])]
)
def test_a_route_without_a_door_is_named_and_refused(route) -> None:
    with pytest.raises(TypeError, match=route.path):
        require_doors([route])


@pytest.mark.parametrize("name", [b"authorization", b"x-api-key", b"openai-organization"])
def test_who_asks_is_said_once_or_twice_the_same(name) -> None:
    """Whoever stands in front may have read the other one."""
    check_one_reading(
        [(name, b"one"), (b"priority", b"u=1"), (name, b"one"), (b"priority", b"u=2")]
    )
    with pytest.raises(InvalidRequest, match=name.decode()) as refused:
        check_one_reading([(name, b"one"), (name, b"two")])
    assert "one" not in refused.value.message.split()
