"""The document says of each route what the route says of itself."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from starlette.routing import Route

from penstock.config.model import ServerTable
from penstock.http.auth import Authenticator
from penstock.http.door import Access, Desk, Door, DoorBodies, ErrorShape
from penstock.http.exchange import Exchange
from penstock.http.openapi import openapi_document
from penstock.telemetry.metrics import Metrics
from penstock.units import Outcome


class Wanted(msgspec.Struct):
    """A body."""

    name: str
    count: int = 1


class Changed(msgspec.Struct):
    """A change, of which what is not named stays."""

    count: int = 1


@pytest.fixture
def paths() -> dict[str, Any]:
    desk = Desk(Authenticator({}, b"pepper" * 8), ServerTable(), Metrics())

    async def handler(exchange: Exchange) -> Outcome:
        await exchange.respond(200, b"{}")
        return Outcome.SUCCESS

    def route(
        path: str, access: Access, shape: ErrorShape | None, method: str = "POST", **options: Any
    ) -> Route:
        door = Door(handler, access=access, shape=shape, door="here", desk=desk, **options)
        return Route(path, door, methods=[method])

    routes = [
        route("/open", Access.PUBLIC, ErrorShape.PROBLEM),
        route(
            "/things/{name:path}/turn",
            Access.KEY,
            ErrorShape.OPENAI,
            bodies=DoorBodies(Wanted, {200: Wanted, 202: list[Changed]}),
        ),
        route("/lists", Access.KEY, ErrorShape.OPENAI, bodies=DoorBodies(list[Wanted])),
        route("/admin", Access.ADMIN, None),
        route("/admin", Access.ADMIN, None, "PATCH", bodies=DoorBodies(Changed)),
    ]
    document = json.loads(openapi_document(routes))
    schemas = document["components"]["schemas"]
    assert schemas["Wanted"]["required"] == ["name"]
    assert schemas["Wanted"]["properties"]["count"]["default"] == 1
    assert "default" not in schemas["Changed"]["properties"]["count"]
    found: dict[str, Any] = document["paths"]
    return found


def test_who_may_enter_is_said(paths: dict[str, Any]) -> None:
    assert paths["/open"]["post"]["security"] == []
    assert paths["/things/{name}/turn"]["post"]["security"]
    assert "admin" in paths["/admin"]["post"]["description"]


def test_what_must_be_sent_is_said(paths: dict[str, Any]) -> None:
    turn = paths["/things/{name}/turn"]["post"]

    assert turn["requestBody"]["required"]
    schema = turn["requestBody"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/Wanted"}
    assert [one["name"] for one in turn["parameters"]] == ["name"]
    assert "requestBody" not in paths["/open"]["post"]


def test_what_is_answered_is_said_by_its_status(paths: dict[str, Any]) -> None:
    answers = paths["/things/{name}/turn"]["post"]["responses"]

    shown = {
        status: answers[status]["content"]["application/json"]["schema"]
        for status in answers.keys() - {"default"}
    }
    assert shown == {
        "200": {"$ref": "#/components/schemas/Wanted"},
        "202": {"type": "array", "items": {"$ref": "#/components/schemas/Changed"}},
    }
    assert answers["default"]
    assert paths["/open"]["post"]["responses"].keys() == {"2XX", "default"}


def test_a_list_may_be_sent_and_then_must_be(paths: dict[str, Any]) -> None:
    body = paths["/lists"]["post"]["requestBody"]

    assert body["required"]
    schema = body["content"]["application/json"]["schema"]
    assert schema == {"type": "array", "items": {"$ref": "#/components/schemas/Wanted"}}


def test_how_it_fails_is_said(paths: dict[str, Any]) -> None:
    def schemas(path: str) -> set[str]:
        content = paths[path]["post"]["responses"]["default"]["content"]
        return {one["schema"].get("$ref", "").rpartition("/")[2] for one in content.values()}

    assert schemas("/open") == {"Problem"}
    assert "ProblemWithError" in schemas("/things/{name}/turn")
    assert schemas("/admin") == {"Problem", "AnthropicError"}


def test_a_route_without_a_door_is_no_route() -> None:
    with pytest.raises(TypeError, match="no Door"):
        openapi_document([Route("/x", lambda _request: None)])
