"""What the sandbox's model answers, before it is put into a provider's shape.

A shape reads its request into a :class:`Prompt`; ``answer_to`` decides: a call of the
first tool where tools are offered and none has answered yet, JSON where JSON was asked
for, text otherwise.
"""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.sandbox.schema_values import value_for
from penstock.sandbox.text import compose, cut_to_tokens, pieces_of, tokens_of

ARGUMENT_PIECE_CHARACTERS = 16


class Rejected(Exception):
    """The provider refuses the request; each shape has its own words for it.

    ``kind`` is the provider's error type, ``code`` and ``param`` are OpenAI's.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.code = code
        self.param = param


class Tool(msgspec.Struct, frozen=True):
    """A tool that the caller offers; ``schema`` is the JSON schema of its arguments."""

    name: str
    schema: dict[str, Any]


class Prompt(msgspec.Struct, frozen=True):
    """What both shapes of request come down to.

    ``seed`` is a hash of the conversation alone: whether it is streamed changes no word.
    ``tool`` is the tool to be called, ``json_schema`` the shape of the answer, if asked for;
    ``previous_id`` the response that this one continues.
    """

    model: str
    stream: bool
    last_user_text: str
    seed: bytes
    tokens_input: int
    tokens_output_max: int | None = None
    include_usage: bool = False
    tool: Tool | None = None
    json_schema: dict[str, Any] | None = None
    previous_id: str | None = None


class Answer(msgspec.Struct, frozen=True):
    """The model's answer: text, or the call of ``tool_name`` with ``text`` as its arguments."""

    text: str
    tokens_output: int
    cut: bool = False
    tool_name: str | None = None

    def pieces(self) -> list[str]:
        """What a stream sends one by one; joined they are ``text``."""
        if self.tool_name is None:
            return pieces_of(self.text)
        step = ARGUMENT_PIECE_CHARACTERS
        return [self.text[at : at + step] for at in range(0, len(self.text), step)]


def answer_to(prompt: Prompt) -> Answer:
    """The answer to ``prompt``: a function of the conversation, nothing else."""
    if prompt.tool is not None:
        arguments = value_for(prompt.tool.schema, prompt.last_user_text)
        if not isinstance(arguments, dict):
            arguments = {}
        text = msgspec.json.encode(arguments).decode()
        return Answer(text, tokens_of(prompt.tool.name + text), tool_name=prompt.tool.name)
    if prompt.json_schema is not None:
        value = value_for(prompt.json_schema, prompt.last_user_text)
        composed = msgspec.json.encode(value).decode()
    else:
        composed = compose(prompt.last_user_text, prompt.seed)
    text, cut = cut_to_tokens(composed, prompt.tokens_output_max)
    return Answer(text, tokens_of(text), cut)


def chosen_tool(tools: list[Tool], forced: str | None) -> Tool | None:
    """The tool named ``forced``, else the first. Raises Rejected where none has that name."""
    if forced is None:
        return tools[0] if tools else None
    for tool in tools:
        if tool.name == forced:
            return tool
    raise Rejected(400, "invalid_request_error", "Tool choice names a tool that is not in 'tools'.")
