"""The query of a request, read as a struct says.

A handler says with ``asking`` what its query may hold, and is given that, read. Its Door finds the
struct at the handler, and the document of what is served shows it: so what is described is what is
read. A struct that forbids unknown fields refuses what it does not know and what is named twice;
others ignore the one, as their protocols do, and take the last of the other.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar, get_args, get_origin
from urllib.parse import parse_qs, parse_qsl

import msgspec
from msgspec import inspect

from penstock.errors import InvalidRequest, Unprocessable
from penstock.http.exchange import Exchange
from penstock.units import Outcome

FIELDS_MAX: Final = 16
UNPROCESSABLE: Final = {"error": Unprocessable}
"""``extra`` of a parameter whose wrong values are answered with 422, as its protocol does."""

_KIND: Final = "query_kind"
_NUMBER: Final = re.compile(r"[0-9]{1,18}\Z")
_TRUE: Final = frozenset({"1", "true", "True"})


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """What a query may hold: numbers within bounds, texts, closed lists of words, and booleans,
    of which all that is not said to be true is false. Each has a default.
    """


class NoQuery(Query, frozen=True, forbid_unknown_fields=True):
    """Nothing may be asked for."""


_D = TypeVar("_D")
_Q = TypeVar("_Q", bound=Query)
_Method: TypeAlias = Callable[[_D, Exchange, _Q], Awaitable[Outcome]]
_Handler: TypeAlias = Callable[[_D, Exchange], Coroutine[Any, Any, Outcome]]


def asking(kind: type[_Q]) -> Callable[[_Method[_D, _Q]], _Handler[_D]]:
    """Of a door's method: the query is read as ``kind`` and handed to it."""
    reader = QueryReader(kind)

    def asked(method: _Method[_D, _Q]) -> _Handler[_D]:
        @functools.wraps(method)
        async def handle(door: _D, exchange: Exchange) -> Outcome:
            return await method(door, exchange, reader.read(exchange.scope["query_string"]))

        vars(handle)[_KIND] = kind
        return handle

    return asked


def query_kind(handler: object) -> type[Query] | None:
    """What the query of a handler is read as; None where it looks at none."""
    kind: type[Query] | None = getattr(handler, _KIND, None)
    return kind


class QueryReader(Generic[_Q]):
    """Reads queries as one struct; what can be found out of that is found out once."""

    def __init__(self, kind: type[_Q]) -> None:
        self._nothing = kind()
        self._kind = kind
        self._is_strict = kind.__struct_config__.forbid_unknown_fields
        self._parameters = {one.name: _Parameter(one) for one in msgspec.structs.fields(kind)}

    def read(self, query: bytes) -> _Q:
        """The query as the struct. Raises InvalidRequest."""
        if not query:
            return self._nothing
        given = self._given(query.decode("latin-1"))
        values = {
            name: parameter.value(given[name])
            for name, parameter in self._parameters.items()
            if name in given
        }
        return self._kind(**values)

    def _given(self, text: str) -> Mapping[str, str]:
        if self._is_strict:
            return self._strictly(text)
        try:
            parsed = parse_qs(text, max_num_fields=FIELDS_MAX)
        except ValueError:
            raise InvalidRequest(f"The query must have at most {FIELDS_MAX} parameters.") from None
        return {name: values[-1] for name, values in parsed.items()}

    def _strictly(self, text: str) -> Mapping[str, str]:
        try:
            pairs = parse_qsl(
                text, keep_blank_values=True, strict_parsing=bool(text), max_num_fields=FIELDS_MAX
            )
        except ValueError:
            raise InvalidRequest("The query is not of the form name=value&name=value.") from None
        found: dict[str, str] = {}
        for name, value in pairs:
            if name not in self._parameters:
                known = ", ".join(sorted(self._parameters))
                there = f"there are: {known}" if known else "there are none here"
                raise InvalidRequest(f"This query parameter is not known; {there}.")
            if name in found:
                raise InvalidRequest(f"The query names '{name}' twice.", param=name)
            found[name] = value
        return found


class _Parameter:
    """One parameter: its type, and in words what that is for who gets it wrong."""

    def __init__(self, field: msgspec.structs.FieldInfo) -> None:
        self.name = field.encode_name
        self._type = field.type
        self._error, description = InvalidRequest, ""
        kind = inspect.type_info(field.type)
        while isinstance(kind, inspect.UnionType | inspect.Metadata):
            if isinstance(kind, inspect.UnionType):
                (kind,) = [one for one in kind.types if not isinstance(one, inspect.NoneType)]
            else:
                self._error = (kind.extra or {}).get("error", self._error)
                description = (kind.extra_json_schema or {}).get("description", description)
                kind = kind.type
        self._kind = kind
        self._rule = _rule(kind, field.type) or description

    def value(self, text: str) -> Any:
        """The value that a text stands for. Raises InvalidRequest."""
        if isinstance(self._kind, inspect.BoolType):
            return text in _TRUE
        is_number = isinstance(self._kind, inspect.IntType) and _NUMBER.match(text)
        try:
            return msgspec.convert(int(text) if is_number else text, self._type)
        except msgspec.ValidationError:
            raise self._error(f"'{self.name}' must be {self._rule}.", param=self.name) from None


def _rule(kind: inspect.Type, hint: Any) -> str:
    """What a value must be; of a text only its description says so."""
    if isinstance(kind, inspect.IntType):
        return f"a number from {kind.ge} to {kind.le}"
    words = _literals(hint)
    if isinstance(kind, inspect.EnumType):
        words = [str(value.value) for value in kind.cls]
    if len(words) == 2:
        return " or ".join(words)
    return "one of " + ", ".join(words) if words else ""


def _literals(hint: Any) -> Sequence[str]:
    """The words of a ``Literal`` in the order in which they were written."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    return next((words for one in get_args(hint) if (words := _literals(one))), ())
