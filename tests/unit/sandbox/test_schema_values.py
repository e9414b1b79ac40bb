"""A made-up value satisfies the schema that it was made for."""

from __future__ import annotations

import pytest

from penstock.sandbox.schema_values import value_for

NESTED = {
    "type": "object",
    "$defs": {"Place": {"type": "object", "properties": {"name": {"type": "string"}}}},
    "properties": {
        "place": {"$ref": "#/$defs/Place"},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2},
        "unit": {"enum": ["celsius", "kelvin"]},
        "exact": {"type": "boolean"},
        "days": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
    },
}


def test_nested_objects_are_filled_from_the_last_message():
    assert value_for(NESTED, " rain ") == {
        "place": {"name": "rain"},
        "tags": ["rain", "rain"],
        "unit": "celsius",
        "exact": True,
        "days": 1,
    }


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "integer"}, 1),
        ({"type": "integer", "minimum": 5}, 5),
        ({"type": "integer", "exclusiveMinimum": 5}, 6),
        ({"type": "number", "maximum": -2}, -2),
        ({"type": "number", "minimum": 0, "exclusiveMaximum": 5}, 0),
        ({"type": "number", "exclusiveMaximum": 0}, -1),
        ({"type": "string", "maxLength": 2}, "ra"),
        ({"type": "string", "minLength": 6}, "rain.."),
        ({"const": 7}, 7),
        ({"type": ["string", "null"]}, "rain"),
        ({"type": "null"}, None),
        ({"allOf": [{"$ref": "#/$defs/A"}], "$defs": {"A": {"type": "integer"}}}, 1),
        ({}, "rain"),
        ({"$ref": "#/none"}, "rain"),
    ],
)
def test_each_kind_of_schema_has_a_value(schema, expected):
    assert expected == value_for(schema, "rain")


def test_a_schema_that_contains_itself_ends():
    tree = {
        "type": "object",
        "properties": {"left": {"$ref": "#"}, "size": {"type": "integer"}},
        "required": ["size"],
    }

    value = value_for(tree, "rain")
    assert value["size"] == value["left"]["size"] == 1


@pytest.mark.parametrize(
    "schema", [{"$ref": "#"}, {"type": "array", "items": {"$ref": "#"}}, {"properties": 5}]
)
def test_a_schema_that_makes_no_sense_still_gets_a_value(schema):
    value_for(schema, "rain")
