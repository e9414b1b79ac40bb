"""The document says of each route what the route says of itself."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta
from starlette.routing import Route

from penstock.config.model import ServerTable
from penstock.http.auth import Authenticator
from penstock.http.door import Access, Desk, Door, DoorBodies, ErrorShape, Handler
from penstock.http.exchange import Exchange
from penstock.http.openapi import openapi_document
from penstock.http.query import Query, asking
from penstock.telemetry.metrics import Metrics
from penstock.units import Outcome


class Wanted(msgspec.Struct):
    """A body."""

    name: str
    count: int = 1


class Uploaded(msgspec.Struct):
    """A form."""

    file: str
    code: Annotated[str, Meta(pattern=r"^[a-z]+\Z")] | None = None


class Asked(Query, frozen=True):
    """A query."""

    limit: Annotated[int, Meta(ge=1, le=9, description="how many")] = 5
    order: Literal["up", "down"] | None = None
    after: Annotated[str | None, Meta(description="the last one")] = None


class Changed(msgspec.Struct):
    """A change, of which what is not named stays."""

    count: int = 1


@pytest.fixture
def paths() -> dict[str, Any]:
    desk = Desk(Authenticator({}, b"pepper" * 8), ServerTable(), Metrics())

    async def handler(exchange: Exchange) -> Outcome:
        await exchange.respond(200, b"{}")
        return Outcome.SUCCESS

    class Lists:
        @asking(Asked)
        async def list(self, exchange: Exchange, _query: Asked) -> Outcome:
            return await handler(exchange)

    def route(
        path: str,
        access: Access,
        shape: ErrorShape | None,
        method: str = "POST",
        answering: Handler = handler,
        **options: Any,
    ) -> Route:
        door = Door(answering, access=access, shape=shape, door="here", desk=desk, **options)
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
        route(
            "/lists/{name}",
            Access.KEY,
            None,
            "GET",
            Lists().list,
            bodies=DoorBodies(answers={200: Wanted}, other=("text/csv",)),
        ),
        route(
            "/files",
            Access.KEY,
            None,
            bodies=DoorBodies(Uploaded, is_form=True, other=("text/plain",)),
        ),
        route("/admin", Access.ADMIN, None),
        route("/admin", Access.ADMIN, None, "PATCH", bodies=DoorBodies(Changed)),
    ]
    document = json.loads(openapi_document(routes))
    schemas = document["components"]["schemas"]
    assert schemas["Wanted"]["required"] == ["name"]
    assert schemas["Wanted"]["properties"]["count"]["default"] == 1
    assert "default" not in schemas["Changed"]["properties"]["count"]
    assert "Asked" not in schemas
    (pattern, _) = schemas["Uploaded"]["properties"]["code"]["anyOf"]
    assert pattern == {"type": "string", "pattern": "^[a-z]+$"}, "JSON Schema has no end but $"
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


def test_what_a_query_may_hold_is_said(paths: dict[str, Any]) -> None:
    name, limit, order, after = paths["/lists/{name}"]["get"]["parameters"]

    assert (name["in"], name["required"]) == ("path", True)
    assert limit == {
        "name": "limit",
        "in": "query",
        "required": False,
        "description": "how many",
        "schema": {"type": "integer", "minimum": 1, "maximum": 9, "default": 5},
    }
    assert order["schema"] == {"enum": ["down", "up"]}
    assert after["schema"] == {"type": "string"}


def test_a_form_is_said_to_be_one(paths: dict[str, Any]) -> None:
    (form,) = paths["/files"]["post"]["requestBody"]["content"].items()

    assert form == ("multipart/form-data", {"schema": {"$ref": "#/components/schemas/Uploaded"}})


def test_an_answer_may_be_no_json(paths: dict[str, Any]) -> None:
    lists = paths["/lists/{name}"]["get"]["responses"]
    files = paths["/files"]["post"]["responses"]

    assert lists["200"]["content"].keys() == {"application/json", "text/csv"}
    assert files.keys() == {"200", "default"}
    assert files["200"]["content"].keys() == {"text/plain"}


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
