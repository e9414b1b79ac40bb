"""Which chains can be called as if they were models, and how a conversation is put into them.

Decided once per chain, from its two JSON schemas. A chain takes a conversation as a list of
messages, as an object with ``messages`` (LangGraph's usual state), as one text, or as an object
whose only required field is a text (a prompt with one variable); the latter two get the last
user message. It gives a message, messages or a text. A graph with a memory is none: its callers
send the whole conversation every time, and it would remember it besides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from langchain_core.messages import AnyMessage, BaseMessage, HumanMessage

from penstock.chains.worker.faults import InvalidInput

MESSAGE_TITLES = frozenset({"AIMessage", "AIMessageChunk"})
"""A schema that allows one of these allows messages."""

DEPTH_MAX = 8


class ChatForm(msgspec.Struct, frozen=True):
    """How a chain takes a conversation: ``field`` None means that the input itself is it."""

    takes_text: bool
    field: str | None = None

    def input(self, messages: Sequence[AnyMessage | BaseMessage]) -> Any:
        """The chain's input. Raises InvalidInput where the conversation holds no text for it."""
        value: Any = list(messages)
        if self.takes_text:
            asked = [message for message in messages if isinstance(message, HumanMessage)]
            if not asked:
                raise InvalidInput("messages must hold one of the role 'user' for this chain")
            value = str(asked[-1].text)
        return value if self.field is None else {self.field: value}


def chat_form(input_schema: Mapping[str, Any], output_schema: Mapping[str, Any]) -> ChatForm | None:
    """The form for a chain with these JSON schemas, or None where it is not one for chats."""
    if not _gives_text_or_messages(output_schema):
        return None
    root = _Schema(input_schema)
    if root.allows_messages():
        return ChatForm(takes_text=False)
    if root.allows_text():
        return ChatForm(takes_text=True)
    fields = root.fields()
    if "messages" in fields and fields["messages"].allows_messages():
        return ChatForm(takes_text=False, field="messages")
    required = root.required()
    only = required[0] if len(required) == 1 else None
    if only is not None and only in fields and fields[only].allows_text():
        return ChatForm(takes_text=True, field=only)
    return None


def _gives_text_or_messages(schema: Mapping[str, Any]) -> bool:
    root = _Schema(schema)
    if root.allows_text() or root.allows_message() or root.allows_messages():
        return True
    fields = root.fields()
    return "messages" in fields and fields["messages"].allows_messages()


class _Schema:
    """One place in a JSON schema, references resolved."""

    def __init__(
        self, schema: Any, definitions: Mapping[str, Any] | None = None, depth: int = 0
    ) -> None:
        plain = schema if isinstance(schema, Mapping) else {}
        self._definitions = definitions or plain.get("$defs", {})
        self._depth = depth
        reference = plain.get("$ref", "")
        if reference:
            plain = self._definitions.get(reference.rpartition("/")[2], {})
        self._plain: Mapping[str, Any] = plain

    def allows_text(self) -> bool:
        """Whether a string fits."""
        return self._plain.get("type") == "string" or any(
            part.allows_text() for part in self._parts()
        )

    def allows_message(self) -> bool:
        """Whether a message fits."""
        return self._plain.get("title") in MESSAGE_TITLES or any(
            part.allows_message() for part in self._parts()
        )

    def allows_messages(self) -> bool:
        """Whether a list of messages fits."""
        if self._plain.get("type") == "array":
            return self._below(self._plain.get("items")).allows_message()
        return any(part.allows_messages() for part in self._parts())

    def fields(self) -> dict[str, _Schema]:
        """The fields of an object."""
        return {
            name: self._below(field) for name, field in self._plain.get("properties", {}).items()
        }

    def required(self) -> list[str]:
        """The names of the fields that must be there."""
        return list(self._plain.get("required", []))

    def _parts(self) -> list[_Schema]:
        """What it is one of."""
        if self._depth >= DEPTH_MAX:
            return []
        options = [*self._plain.get("anyOf", []), *self._plain.get("oneOf", [])]
        return [self._below(option) for option in options]

    def _below(self, schema: Any) -> _Schema:
        return _Schema(schema, self._definitions, self._depth + 1)
