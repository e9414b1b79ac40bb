"""The JSON Schema of ``penstock.toml``, for editors; committed as ``docs/penstock.schema.json``.

It states the rules of each field. The rules between tables are checked by ``check-config`` only.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from penstock.config.model import Config


def schema_text() -> str:
    """The schema as indented JSON with a line break at the end."""
    schema: dict[str, Any] = msgspec.json.schema(Config)
    # A file may change one key of a built-in class, whose rank then need not be repeated.
    schema["$defs"]["ClassTable"]["required"].remove("rank")
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "penstock.toml"}
    return json.dumps({**head, **schema}, indent=2, ensure_ascii=False) + "\n"
