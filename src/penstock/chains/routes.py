"""What stands where under ``/chains``, and what bodies hold there.

A worker reads the bodies; these say in the document of what is served what it takes. What a chain
itself takes and gives is told by ``GET /chains/{name}/input_schema`` and its like.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import Meta
from starlette.routing import Route

from penstock.chains.door import ChainsDoor
from penstock.http.door import Access, Desk, Door, DoorBodies, ErrorShape, Handler
from penstock.http.exchange import Exchange
from penstock.units import Outcome

_Config: TypeAlias = dict[str, Any]
_Nothing: TypeAlias = Annotated[dict[str, Any], Meta(extra_json_schema={"maxProperties": 0})]
_Names: TypeAlias = Annotated[list[str], Meta(max_length=64)]


class _Body(msgspec.Struct, kw_only=True):
    """``after_seconds`` and ``webhook`` are for a run that is asked for asynchronously."""

    kwargs: _Nothing | None = None
    after_seconds: Annotated[float, Meta(ge=0)] | None = None
    webhook: str | None = None


class ChainInput(_Body, kw_only=True):
    """One run."""

    input: Any
    config: _Config | None = None


class ChainInputs(_Body, kw_only=True):
    """Several runs, with one config for all or one for each."""

    inputs: Annotated[list[Any], Meta(max_length=1000)]
    config: _Config | list[_Config] | None = None


class _Version(msgspec.Struct, forbid_unknown_fields=True):
    version: str | None = None


class ChainSteps(msgspec.Struct, kw_only=True):
    """One run whose steps are told."""

    input: Any
    config: _Config | None = None
    kwargs: _Version | None = None
    include_names: _Names | None = None
    include_types: _Names | None = None
    include_tags: _Names | None = None
    exclude_names: _Names | None = None
    exclude_types: _Names | None = None
    exclude_tags: _Names | None = None


class ChainOutput(msgspec.Struct, kw_only=True):
    """What one run came to."""

    output: Any
    metadata: dict[str, Any]
    callback_events: list[Any] | None = None


class ChainOutputs(ChainOutput, kw_only=True):
    """What each of several runs came to."""

    output: list[Any]


class ChainListed(msgspec.Struct):
    """A chain that the key may use, and where its schemas are."""

    name: str
    description: str
    input_schema: str
    output_schema: str
    config_schema: str


class ChainList(msgspec.Struct):
    """The chains that the key may use."""

    chains: list[ChainListed]


class ChainProblem(msgspec.Struct, kw_only=True):
    """An error by RFC 9457. A worker's ``detail`` may be pydantic's list of findings; a refusal
    before the worker has the object that OpenAI's clients read, too.
    """

    type: str
    title: str
    status: int
    detail: str | list[Any]
    instance: str
    error: dict[str, Any] | None = None


_SCHEMA: Final = DoorBodies(None, {200: dict[str, Any]}, ChainProblem)


def chain_routes(
    door: ChainsDoor, around: Callable[[Handler], Handler], later: Any, desk: Desk
) -> list[Route]:
    """Every route of the door. ``later`` is what ``around`` answers with 202."""

    def route(path: str, handler: Handler, bodies: DoorBodies | None, *methods: str) -> Route:
        made = Door(
            handler,
            access=Access.KEY,
            shape=ErrorShape.OPENAI,
            door="chains",
            desk=desk,
            bodies=bodies,
        )
        return Route(path, made, methods=list(methods))

    handler = around(door.handle)
    posted = {
        "invoke": DoorBodies(ChainInput, {200: ChainOutput, 202: later}, ChainProblem),
        "batch": DoorBodies(ChainInputs, {200: ChainOutputs, 202: later}, ChainProblem),
        "stream": DoorBodies(ChainInput, failure=ChainProblem),
        "stream_events": DoorBodies(ChainSteps, failure=ChainProblem),
        "stream_log": DoorBodies(ChainSteps, failure=ChainProblem),
    }
    schemas = ("input_schema", "output_schema", "config_schema")
    listed = DoorBodies(None, {200: ChainList})
    of_chain = "/chains/{name}/"
    return [
        route("/chains", door.list_chains, listed, "GET"),
        *(route(of_chain + rest, _at(rest, handler), posted[rest], "POST") for rest in posted),
        *(route(of_chain + rest, _at(rest, handler), _SCHEMA, "GET") for rest in schemas),
        # What else the protocol has, with a config in the path, and a wrong method.
        route(
            of_chain + "{rest:path}",
            handler,
            DoorBodies(failure=ChainProblem),
            "GET",
            "POST",
            "PUT",
        ),
    ]


def _at(rest: str, handler: Handler) -> Handler:
    async def handle(exchange: Exchange) -> Outcome:
        exchange.path_params = {**exchange.path_params, "rest": rest}
        return await handler(exchange)

    return handle
