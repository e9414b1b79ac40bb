"""What a request may say in its ``config``, and what it may not.

``config`` steers a run, so a request gets only what the chain's author opened: the chain's
``config_keys``, and in ``configurable`` the ids that the runnable declares. The rest of
LangChain's RunnableConfig is ours (``run_name``) or ignored (``callbacks``,
``recursion_limit``), or clamped (``max_concurrency``).

Prompt templates need a rule of their own. A template from a request may hold plain ``{name}``
fields only: ``str.format`` looks up attributes and honours width specifications, and
``{topic:>900000000}`` in a body of a hundred bytes takes gigabytes. Where the author's prompt is
in Jinja or Mustache, its expressions are refused in the same way, and which of the three it is in
cannot be configured away from ``f-string``. Which ids are templates is found by walking the
runnable; an id whose owner is not found counts as one, in any language.
"""

from __future__ import annotations

import enum
import re
import string
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from langchain_core.prompts import BasePromptTemplate
from langchain_core.prompts.message import BaseMessagePromptTemplate
from langchain_core.runnables import Runnable
from langchain_core.runnables.configurable import RunnableConfigurableFields
from langchain_core.runnables.utils import ConfigurableFieldSpec
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from penstock.chains.worker.faults import InvalidInput

ENTRIES_MAX = 16
ENTRY_BYTES_MAX = 512
RESERVED_PREFIXES = ("__", "langgraph_auth", "checkpoint")
OWN_METADATA_PREFIXES = ("__", "langgraph_", "ls_", "lc_", "penstock")
MEMORY_IDS = ("thread_id", "session_id")
"""Ids under which chains keep memory. They are stored under the tenant, so that nobody reads
another tenant's conversation by guessing its id."""

WALK_RUNNABLES_MAX = 10_000


F_STRING = "f-string"
_ANY_FORMAT = frozenset({F_STRING, "jinja2", "mustache"})
_PLAIN_EXPRESSION = re.compile(r"\{\{ *[A-Za-z_]\w* *\}\}")
_EXPRESSION = re.compile(r"\{[{%#]")


class _Owner(msgspec.Struct, frozen=True):
    """Whose field an id configures: a prompt's, in which languages, or its very language."""

    is_prompt: bool = False
    is_format: bool = False
    formats: frozenset[str] = frozenset()

    def together(self, other: _Owner) -> _Owner:
        """One id may configure fields of several."""
        return _Owner(
            self.is_prompt or other.is_prompt,
            self.is_format or other.is_format,
            self.formats | other.formats,
        )


_OWNER_NONE = _Owner()
_OWNER_UNKNOWN = _Owner(is_prompt=True, formats=_ANY_FORMAT)


class Settings(msgspec.Struct):
    """What a request's config came to."""

    configurable: dict[str, Any]
    tags: list[str]
    metadata: dict[str, Any]
    run_id: uuid.UUID | None = None
    concurrency_max: int | None = None


class ConfigRules:
    """The rules for one chain; built once, when the chain is loaded."""

    def __init__(self, runnable: Runnable[Any, Any], config_keys: list[str]) -> None:
        self._keys = frozenset(config_keys)
        specs = {spec.id: spec for spec in runnable.config_specs}
        if getattr(runnable, "checkpointer", None) and "thread_id" not in specs:
            # LangGraph declares no specs; a graph with a memory has this one.
            specs["thread_id"] = ConfigurableFieldSpec(id="thread_id", annotation=str)
        self._specs = {
            name: spec for name, spec in specs.items() if not name.startswith(RESERVED_PREFIXES)
        }
        owners = _configurable_owners(runnable)
        self._templates = {
            name: owners.get(name, _OWNER_UNKNOWN)
            for name in self._specs
            if owners.get(name, _OWNER_UNKNOWN).is_prompt and name not in MEMORY_IDS
        }
        self._model = _configurable_model(self._specs)

    def json_schema(self) -> dict[str, Any]:
        """The JSON Schema of what a request may put in ``config``."""
        fields: dict[str, Any] = {}
        if "configurable" in self._keys and self._specs:
            fields["configurable"] = (self._model, Field(default=None))
        if "tags" in self._keys:
            fields["tags"] = (list[str], Field(default=[], max_length=ENTRIES_MAX))
        if "metadata" in self._keys:
            fields["metadata"] = (dict[str, Any], Field(default={}, max_length=ENTRIES_MAX))
        if "run_id" in self._keys:
            fields["run_id"] = (uuid.UUID | None, Field(default=None))
        model: type[BaseModel] = create_model("Config", **fields)
        return model.model_json_schema()

    def settings(self, *configs: Any, tenant: str) -> Settings:
        """The configs of one request, merged, later over earlier. Raises InvalidInput."""
        merged: dict[str, Any] = {}
        for config in configs:
            if config is None:
                continue
            if not isinstance(config, dict):
                raise InvalidInput("config must be an object")
            for key, value in config.items():
                if key in self._keys and isinstance(value, dict) and key in merged:
                    merged[key] = {**merged[key], **value}
                elif value is not None:
                    merged[key] = value
        if merged.get("configurable") and "configurable" not in self._keys:
            raise InvalidInput(
                "config.configurable is not open on this chain: its config_keys do not name it"
            )
        allowed = {key: value for key, value in merged.items() if key in self._keys}
        return Settings(
            configurable=self._configurable(allowed.get("configurable", {}), tenant),
            tags=_tags(allowed.get("tags", [])),
            metadata=_metadata(allowed.get("metadata", {})),
            run_id=_run_id(allowed.get("run_id")),
            concurrency_max=_concurrency(
                merged.get("max_concurrency", merged.get("maxConcurrency"))
            ),
        )

    def _configurable(self, values: Any, tenant: str) -> dict[str, Any]:
        if not isinstance(values, dict):
            raise InvalidInput("config.configurable must be an object")
        unknown = sorted(name for name in values if name not in self._specs)
        if unknown:
            open_ids = ", ".join(sorted(self._specs)) or "none"
            named = ", ".join(repr(name[:64]) for name in unknown[:ENTRIES_MAX])
            raise InvalidInput(
                f"config.configurable: {named} cannot be set on this chain; it declares: {open_ids}"
            )
        for name in self._templates.keys() & values.keys():
            _check_template(name, values[name], self._templates[name])
        try:
            checked = self._model.model_validate(values)
        except ValidationError as error:
            raise InvalidInput.of(error, prefix=("config", "configurable")) from error
        settled = {name: _plain(getattr(checked, field)) for name, field in self._set(checked)}
        for name in MEMORY_IDS:
            if name in settled:
                settled[name] = f"{tenant}/{settled[name]}"
        return settled

    def _set(self, checked: BaseModel) -> Iterator[tuple[str, str]]:
        for field, information in type(checked).model_fields.items():
            if field in checked.model_fields_set:
                yield information.alias or field, field


def _configurable_model(specs: Mapping[str, ConfigurableFieldSpec]) -> type[BaseModel]:
    # Ids may be any text ("llm==loud/temperature"), field names may not.
    fields: dict[str, Any] = {
        f"field_{index}": (
            spec.annotation,
            Field(default=spec.default, alias=name, title=spec.name, description=spec.description),
        )
        for index, (name, spec) in enumerate(specs.items())
    }
    model: type[BaseModel] = create_model(
        "Configurable",
        __config__=ConfigDict(arbitrary_types_allowed=True, extra="forbid"),
        **fields,
    )
    return model


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value


def _check_template(name: str, value: Any, owner: _Owner) -> None:
    if owner.is_format:
        if value != F_STRING:
            raise InvalidInput(f"config.configurable.{name} can be {F_STRING!r} only")
        return
    for text in _texts(value):
        if F_STRING not in owner.formats or len(owner.formats) > 1:
            if _EXPRESSION.search(_PLAIN_EXPRESSION.sub("", text)):
                raise _not_plain(name)
            if F_STRING not in owner.formats:
                continue
        try:
            fields = list(string.Formatter().parse(text))
        except ValueError as error:
            raise InvalidInput(
                f"config.configurable.{name}: not a template; a brace is written {{{{ or }}}}"
            ) from error
        for _, field, specification, conversion in fields:
            if field is not None and (specification or conversion or not field.isidentifier()):
                raise _not_plain(name)


def _not_plain(name: str) -> InvalidInput:
    return InvalidInput(
        f"config.configurable.{name}: a template from a request may hold plain "
        "{name} fields only, without conversion, format, attribute or expression"
    )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _tags(values: Any) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise InvalidInput("config.tags must be a list of strings")
    _check_caps("tags", [(value, "") for value in values])
    return values


def _metadata(values: Any) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise InvalidInput("config.metadata must be an object")
    # What a surrounding LangChain run adds by itself is its own, and never ours.
    kept = {
        key: value for key, value in values.items() if not key.startswith(OWN_METADATA_PREFIXES)
    }
    for key, value in kept.items():
        if not isinstance(value, str | int | float | bool):
            raise InvalidInput(f"config.metadata.{key[:64]} must be a string or a number")
    _check_caps("metadata", [(key, str(value)) for key, value in kept.items()])
    return kept


def _check_caps(key: str, entries: list[tuple[str, str]]) -> None:
    if len(entries) > ENTRIES_MAX:
        raise InvalidInput(f"config.{key} has {len(entries)} entries; at most {ENTRIES_MAX}")
    for entry in entries:
        if sum(len(part.encode(errors="replace")) for part in entry) > ENTRY_BYTES_MAX:
            raise InvalidInput(f"config.{key}: an entry is over {ENTRY_BYTES_MAX} bytes")


def _run_id(value: Any) -> uuid.UUID | None:
    if value is None:
        return None
    try:
        return uuid.UUID(value)
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidInput("config.run_id must be a UUID") from error


def _concurrency(value: Any) -> int | None:
    # Not one of config_keys' matters: it can only lower what a batch may do anyway.
    return value if isinstance(value, int) and value > 0 else None


def _configurable_owners(runnable: Any) -> dict[str, _Owner]:
    """Each configurable field's id found in ``runnable``, and whose field it is.

    Runnables hold others in fields, lists, dicts and, as ``RunnableLambda.deps``, in closures.
    """
    waiting: list[Any] = [runnable]
    seen: set[int] = set()
    found: dict[str, _Owner] = {}
    while waiting and len(seen) < WALK_RUNNABLES_MAX:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, str | bytes | int | float | type):
            continue
        seen.add(id(item))
        if isinstance(item, RunnableConfigurableFields):
            for field, spec in item.fields.items():
                name = getattr(spec, "id", None)
                if name is not None:
                    found[name] = found.get(name, _OWNER_NONE).together(_owner(item.default, field))
        if isinstance(item, Mapping):
            waiting.extend(item.values())
        elif isinstance(item, list | tuple):
            waiting.extend(item)
        elif isinstance(item, Runnable):
            waiting.extend(vars(item).values())
            waiting.extend(getattr(item, "deps", None) or [])
    return found


def _owner(default: Any, field: str) -> _Owner:
    if not isinstance(default, BasePromptTemplate | BaseMessagePromptTemplate):
        return _OWNER_NONE
    # A prompt of messages has a language in each of them, and so any.
    language = getattr(default, "template_format", None)
    formats = _ANY_FORMAT if language is None else frozenset({language})
    return _Owner(is_prompt=True, is_format=field == "template_format", formats=formats)
