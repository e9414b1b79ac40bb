"""What stands where. Each API also under the prefix that gateways are known by."""

from __future__ import annotations

from functools import partial

import msgspec
from starlette.routing import Route

from penstock.errors import NotServed
from penstock.gateway.calls import GatewayCalls
from penstock.gateway.journal import Journal
from penstock.gateway.models import ModelList
from penstock.gateway.request_shapes import REQUESTS
from penstock.http.door import Access, Desk, Door, DoorBodies, ErrorShape, Handler
from penstock.http.exchange import Exchange
from penstock.providers.base import Endpoint
from penstock.units import Outcome

OPENAI_PREFIXES = ("", "/openai")
ANTHROPIC_PREFIXES = ("", "/anthropic")
OPENAI_ENDPOINTS = (
    Endpoint.CHAT,
    Endpoint.COMPLETIONS,
    Endpoint.EMBEDDINGS,
    Endpoint.RESPONSES,
)
ANTHROPIC_ENDPOINTS = (Endpoint.MESSAGES, Endpoint.COUNT_TOKENS)
NOT_SERVED_OPENAI = (
    "/v1/conversations",
    "/v1/conversations/{rest:path}",
    "/v1/images/{rest:path}",
    "/v1/audio/{rest:path}",
    "/v1/moderations",
    "/v1/responses/compact",
    "/v1/responses/input_tokens",
    "/v1/responses/{response}/input_items",
)
NOT_SERVED_ANTHROPIC = ("/v1/messages/batches", "/v1/messages/batches/{rest:path}")
_METHODS = ("GET", "POST", "DELETE")


def gateway_routes(
    calls: GatewayCalls, models: ModelList, desk: Desk, journal: Journal
) -> list[Route]:
    """Every route of the gateway."""

    def route(
        path: str,
        handler: Handler,
        shape: ErrorShape | None,
        *methods: str,
        request: type[msgspec.Struct] | None = None,
    ) -> Route:
        door = Door(
            handler,
            access=Access.KEY,
            shape=shape,
            door="gateway",
            desk=desk,
            bodies=DoorBodies(request),
        )
        return Route(path, door, methods=list(methods or ("POST",)))

    def call(endpoint: Endpoint) -> Handler:
        return journal.around(partial(calls.answer, endpoint=endpoint))

    openai, anthropic = ErrorShape.OPENAI, ErrorShape.ANTHROPIC
    routes = []
    for prefix in OPENAI_PREFIXES:
        for endpoint in OPENAI_ENDPOINTS:
            asked = REQUESTS[endpoint]
            routes.append(route(prefix + endpoint, call(endpoint), openai, request=asked))
        for path in NOT_SERVED_OPENAI:
            routes.append(route(prefix + path, _not_served(path), openai, *_METHODS))
    for prefix in ANTHROPIC_PREFIXES:
        for endpoint in ANTHROPIC_ENDPOINTS:
            asked = REQUESTS[endpoint]
            routes.append(route(prefix + endpoint, call(endpoint), anthropic, request=asked))
        for path in NOT_SERVED_ANTHROPIC:
            routes.append(route(prefix + path, _not_served(path), anthropic, *_METHODS))
    for prefix in ("", "/openai", "/anthropic"):
        routes.append(route(f"{prefix}/v1/models", models.list, None, "GET"))
        routes.append(route(f"{prefix}/v1/models/{{model:path}}", models.one, None, "GET"))
    return routes


def _not_served(path: str) -> Handler:
    name = path.removesuffix("/{rest:path}")

    async def refuse(_exchange: Exchange) -> Outcome:
        raise NotServed(f"{name} is not served yet; GET /openapi.json says what is.")

    return refuse
