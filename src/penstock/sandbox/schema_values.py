"""A value that satisfies a JSON schema, for tool arguments and structured answers.

It covers what models are asked for in practice: objects, arrays, enums, constants,
defaults, ``$ref`` into the same schema, ``anyOf``/``oneOf``/``allOf`` and the bounds of
numbers, strings and arrays. Strings hold the last user message, so that what a tool receives
can be told apart. Patterns and formats are not solved.
"""

from __future__ import annotations

from typing import Any

DEPTH_MAX = 12
STRING_CHARACTERS_MAX = 400
ITEMS_MAX = 16


def value_for(schema: dict[str, Any], text: str) -> Any:
    """A value for ``schema``; its strings are ``text``, shortened to fit."""
    return _value(schema, schema, text.strip()[:STRING_CHARACTERS_MAX], 0)


def _value(schema: Any, root: dict[str, Any], text: str, depth: int) -> Any:
    if not isinstance(schema, dict) or depth > DEPTH_MAX:
        return None
    schema = _resolved(schema, root)
    given = [schema[fixed] for fixed in ("const", "default") if fixed in schema]
    for listed in ("enum", "examples"):
        if isinstance(schema.get(listed), list):
            given += schema[listed][:1]
    if given:
        return given[0]
    for choice in ("anyOf", "oneOf"):
        if isinstance(schema.get(choice), list) and schema[choice]:
            return _value(schema[choice][0], root, text, depth + 1)
    if isinstance(schema.get("allOf"), list):
        schema = _merged(schema, root)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = kind[0] if kind else "null"
    if kind == "object":
        return _object(schema, root, text, depth)
    if kind == "array":
        count = min(max(1, _integer(schema.get("minItems"), 1)), ITEMS_MAX)
        return [_value(schema.get("items", {}), root, text, depth + 1) for _ in range(count)]
    return _scalar(str(kind), schema, text)


def _object(schema: dict[str, Any], root: dict[str, Any], text: str, depth: int) -> dict[str, Any]:
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return {}
    # A schema that contains itself ends where nothing is required any more.
    required = schema.get("required", [])
    names = properties if depth < DEPTH_MAX // 3 else [n for n in properties if n in required]
    return {name: _value(properties[name], root, text, depth + 1) for name in names}


def _scalar(kind: str, schema: dict[str, Any], text: str) -> Any:
    if kind == "string":
        shortened = text[: _integer(schema.get("maxLength"), len(text))]
        return shortened.ljust(_integer(schema.get("minLength"), 0), ".")
    if kind == "boolean":
        return True
    if kind in ("integer", "number"):
        least = schema.get("minimum", schema.get("exclusiveMinimum"))
        most = schema.get("maximum", schema.get("exclusiveMaximum"))
        if isinstance(least, int | float):
            return least + 1 if "exclusiveMinimum" in schema else least
        if isinstance(most, int | float) and most < 1:
            return most - 1 if "exclusiveMaximum" in schema else most
        return 1
    return None


def _resolved(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    for _ in range(DEPTH_MAX):
        reference = schema.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#"):
            return schema
        found: Any = root
        for part in reference[1:].split("/")[1:]:
            found = found.get(part, {}) if isinstance(found, dict) else {}
        schema = found if isinstance(found, dict) else {}
    return {}


def _merged(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    merged = {name: value for name, value in schema.items() if name != "allOf"}
    for part in schema["allOf"]:
        if isinstance(part, dict):
            for name, value in _resolved(part, root).items():
                if name == "properties" and isinstance(merged.get(name), dict):
                    merged[name] = {**merged[name], **value}
                else:
                    merged.setdefault(name, value)
    return merged


def _integer(value: Any, otherwise: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else otherwise
