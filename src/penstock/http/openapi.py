"""What is served, as an OpenAPI document: made from the routes themselves, so it cannot lag.

A route says its path and methods; its door who may enter, how an error looks, what its handler
reads of a query and, where they have been declared, what a body must hold and what is answered.
What the provider or a chain answers is their own affair, and is not described.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from starlette.routing import BaseRoute, Route

from penstock import __version__
from penstock.http.door import Access, Desk, Door
from penstock.http.entrance import require_doors
from penstock.http.error_body import PROBLEM_CONTENT_TYPE, ErrorShape
from penstock.http.exchange import Exchange
from penstock.units import Outcome

OPENAPI_VERSION: Final = "3.1.0"
_PARAMETER: Final = re.compile(r"\{(\w+)(?::\w+)?\}")
_TEMPLATE: Final = "#/components/schemas/{name}"


class Problem(msgspec.Struct):
    """An error by RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    instance: str


class ErrorObject(msgspec.Struct):
    """What OpenAI's clients read."""

    message: str
    type: str
    param: str | None
    code: str | None


class ProblemWithError(Problem):
    """The same with the object that OpenAI's clients read."""

    error: ErrorObject


class AnthropicErrorObject(msgspec.Struct):
    """What Anthropic's clients read."""

    type: str
    message: str


class AnthropicError(msgspec.Struct):
    """An error as Anthropic's API has it."""

    type: str
    error: AnthropicErrorObject


_PROBLEMS: Final[dict[ErrorShape | None, type[msgspec.Struct]]] = {
    ErrorShape.PROBLEM: Problem,
    ErrorShape.OPENAI: ProblemWithError,
    # An error of the entrance, which knows no door yet, has OpenAI's shape there, too.
    ErrorShape.ANTHROPIC: Problem,
    None: Problem,
}


def with_document(routes: list[Route], desk: Desk) -> list[Route]:
    """The routes, and one for everybody that describes them all: ``GET /openapi.json``."""

    async def describe(exchange: Exchange) -> Outcome:
        await exchange.respond(200, document)
        return Outcome.SUCCESS

    shape = ErrorShape.PROBLEM
    door = Door(describe, access=Access.PUBLIC, shape=shape, door="status", desk=desk, logged=False)
    described = [*routes, Route("/openapi.json", door, methods=["GET"])]
    document = openapi_document(described)
    return described


def openapi_document(routes: Sequence[BaseRoute]) -> bytes:
    """The document, as JSON. Raises TypeError where a route leads to no Door."""
    pairs = require_doors(routes)
    kinds = [Problem, ProblemWithError, AnthropicError]
    for _, door in pairs:
        request, answers, failure, *_ = door.bodies
        told = (request, failure, door.query, *answers.values())
        kinds += [kind for kind in told if kind is not None]
    shown, schemas = msgspec.json.schema_components(kinds, ref_template=_TEMPLATE)
    found = _Schemas(kinds, shown)
    _leave_out_defaults(schemas, pairs)
    _word_patterns(schemas)
    # Parameters stand at each operation, not among the schemas.
    parameters = {
        kind: _query_parameters(schemas.pop(found.name_of(kind)))
        for kind in {door.query for _, door in pairs if door.query is not None}
    }
    paths: dict[str, dict[str, Any]] = {}
    for route, door in pairs:
        path = _PARAMETER.sub(r"{\1}", route.path)
        operations = paths.setdefault(path, {})
        for method in sorted((route.methods or set()) - {"HEAD"}):
            # Of two routes with one path the first is served.
            operation = _operation(method, route.path, door, found)
            if door.query is not None and parameters[door.query]:
                operation.setdefault("parameters", []).extend(parameters[door.query])
            operations.setdefault(method.lower(), operation)
    document = {
        "openapi": OPENAPI_VERSION,
        "info": {"title": "Penstock", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }
    return msgspec.json.encode(document)


class _Schemas:
    """The schema of each kind of body or answer; some kinds (lists) cannot be keys of a dict."""

    def __init__(self, kinds: Sequence[Any], schemas: Sequence[dict[str, Any]]) -> None:
        self._pairs = list(zip(kinds, schemas, strict=True))

    def of(self, kind: Any) -> dict[str, Any]:
        return next(schema for known, schema in self._pairs if known is kind)

    def name_of(self, kind: Any) -> str:
        """The component that a struct is."""
        return str(self.of(kind)["$ref"]).rpartition("/")[2]


def _query_parameters(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The fields of a struct as parameters. One that is not given is what a struct has as null."""
    parameters = []
    for name, field in schema["properties"].items():
        shown = dict(field)
        if shown.get("default", ...) is None:
            del shown["default"]
        kinds = [one for one in shown.pop("anyOf", ()) if one != {"type": "null"}]
        shown = {**shown, **kinds[0]} if len(kinds) == 1 else shown
        parameter = {"name": name, "in": "query", "required": False, "schema": shown}
        if "description" in shown:
            parameter["description"] = shown.pop("description")
        parameters.append(parameter)
    return parameters


def _leave_out_defaults(schemas: dict[str, Any], pairs: Sequence[tuple[Route, Door]]) -> None:
    """What a change does not name stays as it is: a client must not send a default for it."""
    for route, door in pairs:
        if _is_struct(door.bodies.request) and {"PATCH", "PUT"} & (route.methods or set()):
            for field in schemas[door.bodies.request.__name__]["properties"].values():
                field.pop("default", None)


def _word_patterns(schema: Any) -> None:
    """The end of a text is ``$`` in the patterns of JSON Schema, where Python's is ``\\Z``."""
    if isinstance(schema, dict) and isinstance(schema.get("pattern"), str):
        schema["pattern"] = re.sub(r"\\Z$", "$", schema["pattern"])
    if isinstance(schema, dict | list):
        for one in schema.values() if isinstance(schema, dict) else schema:
            _word_patterns(one)


def _operation(method: str, path: str, door: Door, schemas: _Schemas) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{method.lower()}{path}").strip("_"),
        "tags": [door.door],
        "security": [] if door.access is Access.PUBLIC else [{"bearer": []}, {"key": []}],
        "responses": {**_answers(door, schemas), "default": _error(door, schemas)},
    }
    if door.access is Access.ADMIN:
        operation["description"] = "Needs a key with 'admin = true'."
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(path)
    ]
    if parameters:
        operation["parameters"] = parameters
    if door.bodies.request is not None:
        operation["requestBody"] = {
            "required": not _is_struct(door.bodies.request)
            or any(field.required for field in msgspec.structs.fields(door.bodies.request)),
            "content": {
                "multipart/form-data" if door.bodies.is_form else "application/json": {
                    "schema": schemas.of(door.bodies.request)
                }
            },
        }
    return operation


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _answers(door: Door, schemas: _Schemas) -> dict[str, Any]:
    """What goes well: by its status where that is declared, else whatever it is."""
    contents: dict[int, dict[str, Any]] = {
        status: {"application/json": {"schema": schemas.of(kind)}}
        for status, kind in door.bodies.answers.items()
    }
    if door.bodies.other:
        contents.setdefault(200, {}).update({kind: {} for kind in door.bodies.other})
    if not contents:
        return {"2XX": {"description": "It went well."}}
    return {
        str(status): {"description": "It went well.", "content": content}
        for status, content in contents.items()
    }


def _error(door: Door, schemas: _Schemas) -> dict[str, Any]:
    """How it fails. A provider's refusal of the caller's request is passed on as it came."""
    problem = schemas.of(door.bodies.failure or _PROBLEMS[door.shape])
    content: dict[str, Any] = {PROBLEM_CONTENT_TYPE: {"schema": problem}}
    if door.shape is ErrorShape.ANTHROPIC or door.shape is None:
        anthropic = _TEMPLATE.format(name=AnthropicError.__name__)
        content["application/json"] = {"schema": {"$ref": anthropic}}
    elif door.shape is ErrorShape.OPENAI:
        content["application/json"] = {"schema": {"type": "object"}}
    return {"description": "It did not; the status and the body say why.", "content": content}
