"""The service does not start with a route that nobody guards."""

from __future__ import annotations

import pytest
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from penstock.http.entrance import require_doors


async def _unguarded(request: object) -> PlainTextResponse:
    return PlainTextResponse("open")


@pytest.mark.parametrize(
    "route", [Route("/open", _unguarded), Mount("/mounted", _unguarded), Mount("/m", routes=[])]
)
def test_a_route_without_a_door_is_named_and_refused(route) -> None:
    with pytest.raises(TypeError, match=route.path):
        require_doors([route])
