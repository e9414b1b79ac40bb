"""A body is refused where two readers could see two things, and untouched otherwise."""

from __future__ import annotations

import json
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import InvalidRequest
from penstock.providers.request import (
    DEPTH_MAX,
    FIELDS_MAX,
    join_fields,
    split_fields,
)

CONTROL = frozenset({"model", "stream"})
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        (b"", "valid JSON"),
        (b"null", "JSON object"),
        (b"[]", "JSON object"),
        (b'"secret words"', "JSON object"),
        (b"{} {}", "valid JSON"),
        (b'{"a":NaN}', "valid JSON"),
        (b'{"a":Infinity}', "valid JSON"),
        (b'{"a":-Infinity}', "valid JSON"),
        (b'{"a":01}', "valid JSON"),
        (b'{"a":1e999}', "finite"),
        (b'{"a":[{"b":-1E+0999}]}', "finite"),
        (b'{"a":' + b"9" * 5000 + b"}", "finite"),
        (b'{"a":"\\ud800"}', "half of a surrogate pair"),
        (b'{"\\ud800":1}', "half of a surrogate pair"),
        (b'{"a":"\xff"}', "UTF-8"),
        (b'{"a":"\xed\xa0\x80"}', "UTF-8"),
        (b'{"\xff":1}', "UTF-8"),
        (b'{"a":"\x00"}', "valid JSON"),
        (b'{"model":"a","model":"b"}', "given once"),
        (b'{"model":"a","mod\\u0065l":"b"}', "given once"),
        (b'{ "x" : {"model":1} , "x":2 }', "given once"),
        (b'{"model":"a","Model":"b"}', "lower case"),
        ('{"model":"a","\u017ftream":true}'.encode(), "lower case"),
    ],
)
def test_what_two_readers_could_read_differently_is_refused(body: bytes, rule: str) -> None:
    with pytest.raises(InvalidRequest, match=rule) as caught:
        split_fields(body, CONTROL)

    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b"{" + b",".join(b'"k%d":1' % number for number in range(200_000)) + b"}",
        b"{" + b",".join(b'"k%d":1' % number for number in range(FIELDS_MAX + 1)) + b"}",
        b'{"a":[' + b"[]," * 2_000_000 + b"[]]}",
        b'{"a":' + b"[" * 4_000_000,
        b'{"a":"0e000","b":[' + b"1e300," * 1_300_000 + b"1]}",
    ],
    ids=["arrays", "objects", "keys", "one key too many", "siblings", "open", "numbers"],
)
@pytest.mark.timeout(30)  # quadratic work would take minutes
def test_a_bomb_is_refused_in_linear_time(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        split_fields(body, CONTROL)


def test_depth_is_counted_exactly_and_brackets_in_texts_are_none() -> None:
    deepest = b"[" * (DEPTH_MAX - 1) + b"]" * (DEPTH_MAX - 1)
    fillers = b',"t":"' + b"[{" * 500 + b'\\\\","u":"\\"' + b"[" * 500 + b'"'

    assert list(split_fields(b'{"a":' + deepest + fillers + b"}", CONTROL)) == ["a", "t", "u"]

    with pytest.raises(InvalidRequest, match="64 deep"):
        split_fields(b'{"a":[' + deepest + b"]" + fillers + b"}", CONTROL)


def test_a_text_that_only_looks_like_a_huge_number_passes() -> None:
    body = b'{"a":"hash 3e123456 and 1e999","b":' + b"1" * 250 + b"}"

    assert list(split_fields(body, CONTROL)) == ["a", "b"]


@pytest.mark.timeout(5)  # decoding these takes 8 s
def test_numbers_that_are_slow_to_decode_are_not_decoded() -> None:
    body = b'{"a":"0e000","b":[' + b"4.9e-324," * 900_000 + b"1]}"

    assert list(split_fields(body, CONTROL)) == ["a", "b"]


@given(st.lists(st.from_regex(r"-?[0-9.]{1,330}([eE][+-]?[0-9]{1,4})?", fullmatch=True)))
def test_a_number_passes_exactly_where_it_is_a_finite_float(numbers: list[str]) -> None:
    text = '{"t":"0e000","a":[' + ",".join(numbers) + "]}"
    try:
        finite = all(math.isfinite(number) for number in json.loads(text, parse_int=float)["a"])
    except ValueError:
        finite = False

    try:
        split_fields(text.encode(), CONTROL)
        passed = True
    except InvalidRequest:
        passed = False

    assert passed == finite


@given(st.dictionaries(st.text(min_size=1).filter(lambda name: name.isascii()), JSON_VALUES))
def test_any_object_is_split_and_joined_again_byte_for_byte(value: dict[str, object]) -> None:
    body = msgspec.json.encode(value)
    fields = split_fields(body, frozenset())

    assert join_fields(fields) == body
    assert json.loads(join_fields(split_fields(json.dumps(value).encode(), frozenset()))) == value


@given(st.dictionaries(st.text(), JSON_VALUES, min_size=1), st.data())
def test_a_repeated_field_is_found_wherever_it_stands(
    value: dict[str, object], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(value)))
    pairs = [*value.items(), (name, 1)]
    texts = data.draw(st.permutations([f"{json.dumps(k)}:{json.dumps(v)}" for k, v in pairs]))

    with pytest.raises(InvalidRequest, match="given once"):
        split_fields(("{" + ",".join(texts) + "}").encode(), frozenset())
