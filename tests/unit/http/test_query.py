"""A query is read as its struct says, and a wrong value is told by its rule."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from penstock.errors import InvalidRequest, Unprocessable
from penstock.http.query import UNPROCESSABLE, NoQuery, Query, QueryReader, asking, query_kind

TOO_MANY = "&".join(f"name{number}=1" for number in range(17))


class Colour(StrEnum):
    RED = "red"
    GREEN = "green"
    BLUE = "blue"


class Lenient(Query, frozen=True):
    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    skipped: Annotated[int, Meta(ge=0, le=9, extra=UNPROCESSABLE)] | None = None
    colour: Colour | None = None
    order: Literal["up", "down"] = "up"
    place: Annotated[str, Meta(pattern=r"^[a-z]+\Z", description="a place: letters")] | None = None
    name: str | None = None
    wait: bool = False


class Strict(Query, frozen=True, forbid_unknown_fields=True):
    shape: Literal["json", "csv", "xml"] = "json"
    name: str = "here"


LENIENT, STRICT = QueryReader(Lenient), QueryReader(Strict)


@pytest.mark.parametrize(
    ("query", "read"),
    [
        (b"", Lenient()),
        (b"limit=1", Lenient(limit=1)),
        (b"limit=100&limit=007", Lenient(limit=7)),
        (b"skipped=0&colour=blue&order=down", Lenient(skipped=0, colour=Colour.BLUE, order="down")),
        (b"place=home&name=a%20b%00", Lenient(place="home", name="a b\x00")),
        (b"limit=&name=null&unknown=1", Lenient(name="null")),
        *((b"wait=%b" % text, Lenient(wait=True)) for text in (b"1", b"true", b"True")),
        *((b"wait=%b" % text, Lenient()) for text in (b"0", b"false", b"yes", b"")),
    ],
)
def test_what_is_given_stands_in_place_of_the_default(query: bytes, read: Lenient) -> None:
    assert LENIENT.read(query) == read


@pytest.mark.parametrize(
    ("query", "kind", "message"),
    [
        ("limit=0", InvalidRequest, "'limit' must be a number from 1 to 100."),
        ("limit=101", InvalidRequest, "'limit' must be a number from 1 to 100."),
        ("limit=1.0", InvalidRequest, "'limit' must be a number from 1 to 100."),
        ("limit=%2B1", InvalidRequest, "'limit' must be a number from 1 to 100."),
        ("limit=" + quote("٣"), InvalidRequest, "'limit' must be a number from 1 to 100."),
        ("limit=" + 5000 * "9", InvalidRequest, "'limit' must be a number from 1 to 100."),
        ("skipped=-1", Unprocessable, "'skipped' must be a number from 0 to 9."),
        ("colour=pink", InvalidRequest, "'colour' must be one of red, green, blue."),
        ("order=left", InvalidRequest, "'order' must be up or down."),
        ("place=9", InvalidRequest, "'place' must be a place: letters."),
        ("place=a%0A", InvalidRequest, "'place' must be a place: letters."),
    ],
)
def test_a_wrong_value_is_told_by_its_rule(query: str, kind: type[Any], message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        LENIENT.read(query.encode())

    assert type(caught.value) is kind
    assert caught.value.message == message
    assert caught.value.param == query.partition("=")[0]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (b"shape=yaml", "'shape' must be one of json, csv, xml."),
        (b"shape=", "'shape' must be one of json, csv, xml."),
        (b"size=1", "This query parameter is not known; there are: name, shape."),
        (b"name=a&name=b", "The query names 'name' twice."),
        (b"name", "The query is not of the form name=value&name=value."),
        (TOO_MANY.encode(), "The query is not of the form name=value&name=value."),
    ],
)
def test_a_strict_query_holds_only_what_is_known_and_that_once(query: bytes, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        STRICT.read(query)

    assert caught.value.message == message
    assert STRICT.read(b"name=&shape=csv") == Strict(shape="csv", name="")


def test_where_there_is_no_query_none_is_named() -> None:
    with pytest.raises(InvalidRequest, match="there are none here"):
        QueryReader(NoQuery).read(b"a=1")


def test_a_query_has_an_end() -> None:
    with pytest.raises(InvalidRequest, match="at most 16"):
        LENIENT.read(TOO_MANY.encode())


@given(st.binary(max_size=200))
def test_any_query_is_read_or_refused(query: bytes) -> None:
    for reader, kind in ((LENIENT, Lenient), (STRICT, Strict)):
        try:
            read = reader.read(query)
        except InvalidRequest:
            continue
        assert msgspec.convert(msgspec.to_builtins(read), kind) == read


def test_a_parameter_without_a_default_is_no_parameter() -> None:
    class Needed(Query, frozen=True):
        name: str

    with pytest.raises(TypeError, match="name"):
        QueryReader(Needed)


def test_a_handler_says_what_its_query_may_hold() -> None:
    class Somewhere:
        @asking(Lenient)
        async def show(self, exchange: Any, query: Lenient) -> Any:
            """Something."""

    assert query_kind(Somewhere().show) is Lenient
    assert query_kind(print) is None
