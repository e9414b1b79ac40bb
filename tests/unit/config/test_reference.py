"""docs/configuration.md and docs/penstock.schema.json are in step with the model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import pytest

from penstock.config import defaults
from penstock.config.fields import rule_of
from penstock.config.load import load
from penstock.config.model import Config
from penstock.config.schema import schema_text

ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "docs" / "configuration.md"


def _is_table(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, msgspec.Struct)


def _tables() -> Iterator[tuple[str, type[msgspec.Struct]]]:
    """Each heading with its struct: ``[server]``, ``[providers.NAME]``..."""
    for name, hint in get_type_hints(Config).items():
        if _is_table(hint):
            yield f"[{name}]", hint
        elif get_args(hint) and _is_table(get_args(hint)[-1]):
            yield f"[{name}.NAME]", get_args(hint)[-1]


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return "" if value is None else f"`{json.dumps(value)}`"


def _row(table: type[msgspec.Struct], field: msgspec.structs.FieldInfo) -> str:
    """The row of one key: its name, default, rule and meaning."""
    hint = get_type_hints(table, include_extras=True)[field.name]
    meanings = [extra.description for extra in hint.__metadata__ if extra.description]
    rule = rule_of(msgspec.inspect.type_info(hint)).replace("|", "\\|")
    return f"| `{field.encode_name}` | {_default(field)} | {rule} | {meanings[-1]} |"


@pytest.mark.parametrize(("heading", "table"), list(_tables()), ids=str)
def test_every_key_is_documented_with_its_default_rule_and_meaning(
    heading: str, table: type[msgspec.Struct]
) -> None:
    _, found, section = DOCUMENT.read_text("utf-8").partition(f"\n## `{heading}`\n")
    documented = section.partition("\n## ")[0].splitlines()
    rows = [_row(table, field) for field in msgspec.structs.fields(table)]

    assert found
    assert rows == [line for line in documented if line.startswith("| `")]


def test_every_built_in_class_is_documented() -> None:
    document = DOCUMENT.read_text("utf-8")
    for name, fields in defaults.CLASSES.items():
        row = (
            f"| `{name}` | {fields['rank']} | {fields['reserve']} | {fields.get('min_share', 0)} |"
        )

        assert row in document


def test_the_published_schema_is_that_of_the_model() -> None:
    published = (ROOT / "docs" / "penstock.schema.json").read_text("utf-8")

    assert schema_text() == published


def test_every_field_of_the_schema_has_a_description() -> None:
    for name, definition in json.loads(schema_text())["$defs"].items():
        for key, field in definition["properties"].items():
            described = "description" in field or name == "Config"

            assert described, f"{name}.{key}"


def test_the_example_file_can_be_served() -> None:
    config = load(ROOT / "examples" / "penstock.toml")

    assert {"haiku", "brief", "agent", "keywords"} == set(config.chains)
