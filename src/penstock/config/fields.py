"""Checks tables against the structs of ``model``, field by field, so that nothing hides another.

``msgspec.convert`` of the whole file would stop at the first error. Here every value is
converted by itself, and the rule that it breaks is worded from its type; the structs remain
the only place where a rule stands.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, get_args, get_type_hints

import msgspec
from msgspec import inspect

from penstock.config import model
from penstock.config.positions import KeyPath
from penstock.config.problems import Problems, Shown, did_you_mean, name_of

Table = TypeVar("Table", bound=msgspec.Struct)

_PATTERN_WORDS = {
    model.API_VERSION_PATTERN: 'must be a date such as "2024-10-21", with -preview or without',
    model.IDENTIFIER_PATTERN: (
        "must be a name of at most 128 letters, digits and . _ : / @ -, "
        "the first one a letter or digit"
    ),
    model.ACTED_FOR_PATTERN: (
        'must be the name of a tenant (letters, digits and . _ : / @ -), or "*" for all of them'
    ),
    model.IMPORT_PATTERN: 'must be an import path like "package.module:attribute"',
    model.ENVIRONMENT_PATTERN: (
        "must be the name of an environment variable: at most 64 of A-Z, 0-9 and _; "
        "the key itself never stands in the file"
    ),
}
_SECRET_FIELDS = frozenset({"key_env", "key_file", "base_url"})
"""Where a key is pasted by mistake, or stands inside an address."""
_SIMPLE_RULES: dict[type[inspect.Type], str] = {
    inspect.BoolType: "must be true or false",
    inspect.ListType: "must be a list in [ ]",
    inspect.DictType: "must be a table in { } of names with numbers",
}
_STAND_INS: dict[type[msgspec.Struct], dict[str, Any]] = {
    model.ProviderTable: {"kind": "openai"},
    model.KeyTable: {"tenant": "unknown"},
    model.KeyRights: {"tenant": "unknown"},
    model.ChainTable: {"import_path": "penstock:unknown"},
}
"""Values in place of broken ones without a default that no rule between tables looks at: with
them the rules can be checked all the same. A file with a problem is never served."""
_KEY_HINT = (
    "a key never stands in the file: name its variable or its file instead, "
    'key_env = "NAME" or key_file = "PATH"'
)
_LIKE_A_SECRET = re.compile(r"^(key|value)$|api_?key|secret|token|password", re.IGNORECASE)


def rule_of(kind: inspect.Type) -> str:
    """The rule that a type states, in words that begin with "must be"."""
    if isinstance(kind, inspect.Metadata):
        return rule_of(kind.type)
    if isinstance(kind, inspect.UnionType):
        return rule_of(next(one for one in kind.types if not isinstance(one, inspect.NoneType)))
    if isinstance(kind, inspect.LiteralType):
        return "must be one of " + ", ".join(json.dumps(value) for value in kind.values)
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        return _rule_of_number(kind)
    if isinstance(kind, inspect.StrType):
        return _rule_of_text(kind)
    return _SIMPLE_RULES[type(kind)]


def _rule_of_text(kind: inspect.StrType) -> str:
    if kind.pattern is not None:
        return _PATTERN_WORDS[kind.pattern]
    return "must be a text in quotes" + (", not an empty one" if kind.min_length else "")


def _rule_of_number(kind: inspect.IntType | inspect.FloatType) -> str:
    noun = "must be a whole number" if isinstance(kind, inspect.IntType) else "must be a number"
    if kind.ge is not None and kind.le is not None:
        return f"{noun} from {kind.ge:g} to {kind.le:g}"
    bounds = [
        f"{words} {bound:g}"
        for words, bound in (
            ("greater than", kind.gt),
            ("at least", kind.ge),
            ("below", kind.lt),
            ("at most", kind.le),
        )
        if bound is not None
    ]
    return f"{noun} {' and '.join(bounds)}" if bounds else noun


def _item_type(hint: Any) -> Any | None:
    """The hint of a list's items, through ``Annotated`` and ``| None``; None for no list."""
    if getattr(hint, "__origin__", None) is list:
        return get_args(hint)[0]
    for argument in get_args(hint):
        found = _item_type(argument)
        if found is not None:
            return found
    return None


def _convert(value: object, hint: Any) -> Any:
    converted = msgspec.convert(value, hint)
    if isinstance(converted, float) and not math.isfinite(converted):
        raise msgspec.ValidationError("not finite")
    return converted


class TableReader:
    """Reads the tables of one file, and hands each broken rule to ``problems``."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems

    def read(self, raw: object, kind: type[Table], path: KeyPath) -> Table | None:
        """One table as its struct, with defaults and stand-ins for what is missing or wrong, so
        that the rules between tables can be checked in the same pass; None where a field has
        neither.
        """
        if not isinstance(raw, dict):
            self._problems.add(path, "must be a table", raw)
            return None
        fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        hints = get_type_hints(kind, include_extras=True)
        for name in raw.keys() - fields.keys():
            hint = did_you_mean(name, fields)
            if "key_env" in fields and _LIKE_A_SECRET.search(name):
                hint = _KEY_HINT
            self._problems.add((*path, name), f"there is no such key here; {hint}")
        values: dict[str, Any] = dict(_STAND_INS.get(kind, {}))
        for name, field in fields.items():
            if name in raw:
                value = self._value(raw[name], hints[field.name], (*path, name))
                if value is not Shown.NOT:
                    values[field.name] = value
                    continue
            elif field.required:
                words = rule_of(inspect.type_info(hints[field.name]))
                self._problems.add(path, f"{name} is missing; it {words}")
        required = {field.name for field in fields.values() if field.required}
        return kind(**values) if required <= values.keys() else None

    def read_named(
        self, raw: object, kind: type[Table], path: KeyPath
    ) -> Iterator[tuple[str, Table]]:
        """The tables under one heading, such as ``[providers.*]``, by their names."""
        if not isinstance(raw, dict):
            self._problems.add(path, f"must hold tables: [{name_of(path)}.NAME]", raw)
            return
        for name, table in raw.items():
            if self._value(name, model.Identifier, (*path, name), shown=False) is Shown.NOT:
                continue
            read = self.read(table, kind, (*path, name))
            if read is not None:
                yield name, read

    def texts(self, raw: object, path: KeyPath) -> list[str]:
        """A list of texts that stands outside any table; empty where it breaks that rule."""
        value = self._value(raw, list[model.Text], path)
        return [] if value is Shown.NOT else list(value)

    def _value(self, value: object, hint: Any, path: KeyPath, *, shown: bool = True) -> Any:
        """The converted value, or ``Shown.NOT`` when it breaks the rule of its type."""
        item_hint = _item_type(hint)
        if item_hint is not None and isinstance(value, list):
            items = [
                self._value(item, item_hint, (*path, number)) for number, item in enumerate(value)
            ]
            return Shown.NOT if Shown.NOT in items else items
        try:
            return _convert(value, hint)
        except (msgspec.ValidationError, OverflowError):
            may_be_secret = bool(_SECRET_FIELDS.intersection(path[-1:])) or not shown
            rule = rule_of(inspect.type_info(hint)) + _description(hint)
            self._problems.add(path, rule, Shown.NOT if may_be_secret else value)
            return Shown.NOT


def _description(hint: Any) -> str:
    for extra in getattr(hint, "__metadata__", ()):
        if isinstance(extra, msgspec.Meta) and extra.description:
            return f"; {extra.description}"
    return ""


def unknown_tables(raw: Mapping[str, object], problems: Problems) -> None:
    """Report every top-level name that the file format does not have."""
    known = {field.encode_name for field in msgspec.structs.fields(model.Config)}
    for name in raw.keys() - known:
        problems.add((name,), f"there is no such table; {did_you_mean(name, known)}")
