"""LangChain values to JSON and back: plain objects that are recognised by their ``type``.

The LangServe wire has no constructors: a message is ``{"type": "ai", "content": …}``, and both
sides know a closed list of types. ``langchain_core.load`` is never used: it revives what a
caller or a model has written (CVE-2025-68664). A dict that has the key ``lc`` is data like any
other, and is not looked into.

Encoding walks the objects itself instead of calling ``model_dump``, which serialises a nested
message by the field's declared type and so drops ``tool_calls``, ``usage_metadata`` and
``tool_call_id`` inside prompt values and results.
"""

from __future__ import annotations

import enum
import numbers
from collections.abc import Mapping
from typing import Any

import msgspec
from langchain_core.agents import AgentAction, AgentActionMessageLog, AgentFinish
from langchain_core.documents import Document
from langchain_core.load.serializable import Serializable
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    ChatMessageChunk,
    FunctionMessage,
    FunctionMessageChunk,
    HumanMessage,
    HumanMessageChunk,
    SystemMessage,
    SystemMessageChunk,
    ToolMessage,
    ToolMessageChunk,
    convert_to_messages,
)
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, Generation, LLMResult
from langchain_core.prompt_values import ChatPromptValue, ChatPromptValueConcrete, StringPromptValue
from pydantic import BaseModel, RootModel, ValidationError

TYPES: Mapping[str, type[BaseModel]] = {
    "ai": AIMessage,
    "human": HumanMessage,
    "chat": ChatMessage,
    "system": SystemMessage,
    "function": FunctionMessage,
    "tool": ToolMessage,
    "AIMessageChunk": AIMessageChunk,
    "HumanMessageChunk": HumanMessageChunk,
    "ChatMessageChunk": ChatMessageChunk,
    "SystemMessageChunk": SystemMessageChunk,
    "FunctionMessageChunk": FunctionMessageChunk,
    "ToolMessageChunk": ToolMessageChunk,
    "Document": Document,
    "StringPromptValue": StringPromptValue,
    "ChatPromptValueConcrete": ChatPromptValueConcrete,
    "AgentAction": AgentAction,
    "AgentFinish": AgentFinish,
    "AgentActionMessageLog": AgentActionMessageLog,
    "ChatGeneration": ChatGeneration,
    "Generation": Generation,
    "ChatGenerationChunk": ChatGenerationChunk,
    "LLMResult": LLMResult,
}
"""What is revived, by the value of ``type``. The list is the protocol's; it is closed."""

OPAQUE_KEY = "lc"


class NotEncodable(TypeError):
    """A value that has no JSON form. The message names its type, never the value."""


def encode(value: Any) -> bytes:
    """``value`` as JSON; NaN and infinities become null, as JSON has no word for them.

    Raises NotEncodable.
    """
    try:
        return msgspec.json.encode(value, enc_hook=_encode_hook)
    except UnicodeEncodeError as error:
        message = "a text with lone surrogates has no JSON form"
        raise NotEncodable(message) from error
    except RecursionError as error:
        message = "a value that is nested too deep, or in itself, has no JSON form"
        raise NotEncodable(message) from error


def decode(value: Any) -> Any:
    """Decoded JSON with the known types revived, innermost first, and role dicts as messages.

    A dict that names a known type but does not validate as one stays a dict: whether that is an
    error is for the chain's input schema to say.
    """
    return as_messages(_revive(value))


def as_messages(value: Any) -> Any:
    """A list of OpenAI-style role dicts as messages; anything else as it is."""
    if not isinstance(value, list) or not any(_is_role_dict(item) for item in value):
        return value
    try:
        return convert_to_messages(value)
    except (ValueError, TypeError, KeyError, NotImplementedError):
        return value


def _is_role_dict(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("role"), str)
        and "content" in value
        and OPAQUE_KEY not in value
    )


def _revive(value: Any) -> Any:
    if isinstance(value, list):
        return [_revive(item) for item in value]
    if not isinstance(value, dict) or OPAQUE_KEY in value:
        return value
    revived = {key: _revive(item) for key, item in value.items()}
    if isinstance(revived.get("messages"), list):
        revived["messages"] = as_messages(revived["messages"])
    tag = revived.get("type")
    known = TYPES.get(tag) if isinstance(tag, str) else None
    if known is None:
        return revived
    try:
        return known.model_validate(revived)
    except (ValidationError, ValueError, TypeError):
        return revived


def _encode_hook(value: Any) -> Any:
    if isinstance(value, Serializable):
        return _fields(value)
    if isinstance(value, RootModel):
        return value.root
    if isinstance(value, BaseModel):
        return value.model_dump(serialize_as_any=True)
    if isinstance(value, str):
        # A subclass: msgspec knows exact types only.
        return str.__str__(value)
    if isinstance(value, enum.Enum):
        return value.value
    return _plain(value)


def _fields(value: Serializable) -> dict[str, Any]:
    """One level of a LangChain object; msgspec comes back for the levels below."""
    plain = {
        name: getattr(value, name)
        for name, field in type(value).model_fields.items()
        if not field.exclude
    }
    plain.update(value.model_extra or {})
    if isinstance(value, ChatPromptValue):
        plain["type"] = "ChatPromptValueConcrete"
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, Mapping):
        return dict(value)
    # numpy's arrays and other scalars (bool_, datetime64) know their plain form themselves.
    to_plain = getattr(value, "tolist", None)
    if callable(to_plain):
        return to_plain()
    message = (
        f"a value of type {type(value).__module__}.{type(value).__qualname__} has no JSON form"
    )
    raise NotEncodable(message)
