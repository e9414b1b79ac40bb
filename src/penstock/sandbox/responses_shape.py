"""OpenAI's Responses API: requests read, answers and streams written.

Source: the published API reference, and what the ``openai`` SDK reads. Keys, errors and limits
are those of the chat shape. A response is remembered by its id, so that ``previous_response_id``
means something here; one that is not known is refused as the provider refuses it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from penstock.sandbox.answers import Answer, Prompt, Rejected, Tool, chosen_tool
from penstock.sandbox.openai_shape import (
    CHARGE,
    NAME,
    decoded,
    denied,
    error_body,
    has_key,
    identity_headers,
    injected,
    invalid,
    limit_headers,
    model_body,
    models_body,
    no_key,
    no_model,
    retry_headers,
)
from penstock.sandbox.text import bytes_of, tokens_of_bytes

__all__ = [
    "CHARGE", "NAME", "denied", "error_body", "error_event", "events", "has_key",
    "identity_headers", "injected", "limit_headers", "model_body", "models_body", "no_key",
    "no_model", "read", "retry_headers", "unknown_response", "whole",
]  # fmt: skip


class _Part(msgspec.Struct):
    type: str = "input_text"
    text: str | None = None


class _Item(msgspec.Struct):
    type: str = "message"
    role: str = ""
    content: str | list[_Part] | None = None
    arguments: str = ""
    output: str | list[_Part] = ""


class _Tool(msgspec.Struct):
    type: str = "function"
    name: str = ""
    parameters: dict[str, Any] | None = None


class _Request(msgspec.Struct):
    model: str
    input: str | list[_Item]
    instructions: str | None = None
    stream: bool | None = False
    background: bool | None = False
    max_output_tokens: int | None = None
    previous_response_id: str | None = None
    tools: list[_Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    text: dict[str, Any] | None = None


_decoder = msgspec.json.Decoder(_Request)
_encode = msgspec.json.Encoder().encode


def read(body: bytes, _headers: Mapping[bytes, bytes]) -> Prompt:
    """A request. Raises Rejected."""
    request: _Request = decoded(_decoder, body)
    items = request.input
    if isinstance(items, str):
        items = [_Item(role="user", content=items)]
    if not items:
        raise invalid("Invalid 'input': empty array. Expected at least 1.", "input")
    if request.background:
        raise invalid("Invalid 'background': the sandbox answers at once.", "background")
    if request.max_output_tokens is not None and request.max_output_tokens < 16:
        raise invalid("Invalid 'max_output_tokens': below minimum value 16.", "max_output_tokens")
    digest = hashlib.blake2b((request.previous_response_id or "").encode(), digest_size=16)
    total, last_user_text = bytes_of(request.instructions or ""), ""
    for item in items:
        text = _text(item.content) + item.arguments + _text(item.output)
        total += bytes_of(text)
        digest.update(f"{item.type} {item.role}\0{text}".encode("utf-8", "surrogatepass"))
        if item.role == "user":
            last_user_text = text
    tools = [Tool(tool.name, tool.parameters or {}) for tool in request.tools or () if tool.name]
    total += len(_encode(request.tools)) if tools else 0
    wanted = request.tool_choice != "none" and items[-1].type != "function_call_output"
    forced = request.tool_choice.get("name") if isinstance(request.tool_choice, dict) else None
    return Prompt(
        model=request.model,
        stream=bool(request.stream),
        last_user_text=last_user_text,
        seed=digest.digest(),
        tokens_input=tokens_of_bytes(total),
        tokens_output_max=request.max_output_tokens,
        tool=chosen_tool(tools, forced) if tools and wanted else None,
        json_schema=_json_schema(request.text),
        previous_id=request.previous_response_id,
    )


def unknown_response(response_id: str) -> Rejected:
    """What a call that continues a response that is not kept is told."""
    return Rejected(
        400,
        "invalid_request_error",
        f"Previous response with id '{response_id[:64]}' not found.",
        code="previous_response_not_found",
        param="previous_response_id",
    )


def whole(prompt: Prompt, answer: Answer, identifier: str, created: int) -> bytes:
    """A complete ``response``."""
    return _encode(_response(prompt, answer, identifier, created, done=True))


def events(
    prompt: Prompt, answer: Answer, identifier: str, created: int
) -> Iterator[tuple[str, bytes]]:
    """The stream's events, each with the piece of the answer that it carries ("" for none)."""
    numbers = iter(range(10**9))

    def made(name: str, **fields: Any) -> bytes:
        data = {"type": name, "sequence_number": next(numbers), **fields}
        return b"event: %b\ndata: %b\n\n" % (name.encode(), _encode(data))

    begun = _response(prompt, answer, identifier, created, done=False)
    item = _item(answer, identifier, done=False)
    place: dict[str, Any] = {"item_id": item["id"], "output_index": 0}
    yield "", made("response.created", response=begun)
    yield "", made("response.in_progress", response=begun)
    yield "", made("response.output_item.added", output_index=0, item=item)
    if answer.tool_name is None:
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        place["content_index"] = 0
        yield "", made("response.content_part.added", **place, part=part)
        for piece in answer.pieces():
            yield piece, made("response.output_text.delta", **place, delta=piece, logprobs=[])
        yield "", made("response.output_text.done", **place, text=answer.text, logprobs=[])
        full = {**part, "text": answer.text}
        yield "", made("response.content_part.done", **place, part=full)
    else:
        for piece in answer.pieces():
            yield piece, made("response.function_call_arguments.delta", **place, delta=piece)
        yield "", made("response.function_call_arguments.done", **place, arguments=answer.text)
    done = _item(answer, identifier, done=True)
    yield "", made("response.output_item.done", output_index=0, item=done)
    name = "response.incomplete" if answer.cut else "response.completed"
    yield "", made(name, response=_response(prompt, answer, identifier, created, done=True))


def error_event(rejected: Rejected, _request_id: str) -> bytes:
    """An error after a stream has begun."""
    data = {
        "type": "error",
        "code": rejected.code or rejected.kind,
        "message": rejected.message,
        "param": rejected.param,
        "sequence_number": 0,
    }
    return b"event: error\ndata: " + _encode(data) + b"\n\n"


def _text(content: str | list[_Part] | None) -> str:
    if isinstance(content, list):
        return "".join(part.text or "" for part in content)
    return content or ""


def _json_schema(text: dict[str, Any] | None) -> dict[str, Any] | None:
    described = (text or {}).get("format")
    if not isinstance(described, dict) or described.get("type") not in (
        "json_schema",
        "json_object",
    ):
        return None
    schema = described.get("schema")
    if isinstance(schema, dict):
        return schema
    return {"type": "object", "properties": {"answer": {"type": "string"}}}


def _item(answer: Answer, identifier: str, *, done: bool) -> dict[str, Any]:
    status = "completed" if done else "in_progress"
    if answer.tool_name is not None:
        return {
            "id": f"fc_{identifier}",
            "type": "function_call",
            "status": status,
            "call_id": f"call_{identifier}",
            "name": answer.tool_name,
            "arguments": answer.text if done else "",
        }
    part = {"type": "output_text", "text": answer.text, "annotations": [], "logprobs": []}
    return {
        "id": f"msg_{identifier}",
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": [part] if done else [],
    }


def _response(
    prompt: Prompt, answer: Answer, identifier: str, created: int, *, done: bool
) -> dict[str, Any]:
    status = "incomplete" if answer.cut else "completed"
    reason = {"reason": "max_output_tokens"} if answer.cut and done else None
    usage = {
        "input_tokens": prompt.tokens_input,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": answer.tokens_output,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt.tokens_input + answer.tokens_output,
    }
    return {
        "id": f"resp_{identifier}",
        "object": "response",
        "created_at": created,
        "status": status if done else "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": reason,
        "instructions": None,
        "max_output_tokens": prompt.tokens_output_max,
        "model": prompt.model,
        "output": [_item(answer, identifier, done=True)] if done else [],
        "parallel_tool_calls": True,
        "previous_response_id": prompt.previous_id,
        "store": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": usage if done else None,
        "metadata": {},
    }
