"""The Anthropic API's shape: requests read, answers, streams and errors written.

Source: the published API reference, and what the ``anthropic`` SDK reads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from penstock.sandbox.answers import Answer, Prompt, Rejected, Tool, chosen_tool
from penstock.sandbox.headers import Headers, Readings, anthropic_limit_headers
from penstock.sandbox.headers import retry_headers as _retry_headers
from penstock.sandbox.text import bytes_of, tokens_of_bytes
from penstock.simulate.provider_world import ANTHROPIC_CHARGE, Denied
from penstock.units import ChargeModel, LimitName

NAME: str = "anthropic"
CHARGE: ChargeModel = ANTHROPIC_CHARGE
ORGANIZATION = "00000000-0000-4000-8000-000000000000"

_LIMIT_TEXTS = {
    LimitName.RPM: "requests per minute",
    LimitName.RPD: "requests per day",
    LimitName.TPD: "tokens per day",
    LimitName.TPM: "tokens per minute",
    LimitName.ITPM: "input tokens per minute",
    LimitName.OTPM: "output tokens per minute",
}


class _Block(msgspec.Struct):
    type: str
    text: str | None = None
    input: msgspec.Raw = msgspec.Raw(b"")
    content: str | list[dict[str, Any]] | None = None


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Block]


class _Tool(msgspec.Struct):
    name: str
    input_schema: dict[str, Any] = {}


class _CountRequest(msgspec.Struct):
    model: str
    messages: list[_Message]
    system: str | list[_Block] | None = None
    tools: list[_Tool] | None = None
    tool_choice: dict[str, Any] | None = None


class _MessagesRequest(_CountRequest, kw_only=True):
    max_tokens: int
    stream: bool | None = False


_messages_decoder = msgspec.json.Decoder(_MessagesRequest)
_count_decoder = msgspec.json.Decoder(_CountRequest)
_encode = msgspec.json.Encoder().encode


def has_key(headers: Mapping[bytes, bytes]) -> str | None:
    """The caller's key, if it sent any."""
    scheme, _, bearer = headers.get(b"authorization", b"").partition(b" ")
    key = headers.get(b"x-api-key") or (bearer if scheme.lower() == b"bearer" else b"")
    return key.strip().decode("latin-1") or None


def no_key() -> Rejected:
    """What a call without a key is told."""
    return Rejected(401, "authentication_error", "x-api-key header is required")


def no_model(model: str) -> Rejected:
    """What a call of an unknown model is told."""
    return Rejected(404, "not_found_error", f"model: {model[:64]}")


def read(body: bytes, headers: Mapping[bytes, bytes]) -> Prompt:
    """A messages request. Raises Rejected."""
    request: _MessagesRequest = _decoded(_messages_decoder, body, headers)
    if request.max_tokens < 1:
        raise _invalid("max_tokens: Input should be greater than or equal to 1")
    return _prompt(request, stream=bool(request.stream), tokens_output_max=request.max_tokens)


def count(body: bytes, headers: Mapping[bytes, bytes]) -> tuple[str, int]:
    """The model and input tokens of a request to ``count_tokens``. Raises Rejected."""
    request: _CountRequest = _decoded(_count_decoder, body, headers)
    return request.model, _prompt(request, stream=False, tokens_output_max=None).tokens_input


def whole(prompt: Prompt, answer: Answer, identifier: str, _created: int) -> bytes:
    """A complete ``message``."""
    block = _block(answer, identifier)
    if answer.tool_name is None:
        block["text"] = answer.text
    else:
        block["input"] = msgspec.Raw(answer.text.encode())
    return _encode(
        {
            **_message(prompt, identifier),
            "content": [block],
            "stop_reason": _stop_reason(answer),
            "usage": _usage(prompt, answer.tokens_output),
        }
    )


def events(
    prompt: Prompt, answer: Answer, identifier: str, _created: int
) -> Iterator[tuple[str, bytes]]:
    """The stream's events, each with the piece of the answer that it carries ("" for none)."""
    started = {**_message(prompt, identifier), "usage": _usage(prompt, 1)}
    yield "", _event("message_start", {"message": started})
    yield (
        "",
        _event("content_block_start", {"index": 0, "content_block": _block(answer, identifier)}),
    )
    yield "", _event("ping", {})
    delta = (
        b'"text_delta","text":'
        if answer.tool_name is None
        else b'"input_json_delta","partial_json":'
    )
    before = (
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        b'"delta":{"type":' + delta
    )
    for piece in answer.pieces():
        yield piece, b"%b%b}}\n\n" % (before, _encode(piece))
    yield "", _event("content_block_stop", {"index": 0})
    ended = {"stop_reason": _stop_reason(answer), "stop_sequence": None}
    usage = {"output_tokens": answer.tokens_output}
    yield "", _event("message_delta", {"delta": ended, "usage": usage})
    yield "", _event("message_stop", {})


def error_event(rejected: Rejected, request_id: str) -> bytes:
    """An error after a stream has begun."""
    return b"event: error\ndata: " + error_body(rejected, request_id) + b"\n\n"


def error_body(rejected: Rejected, request_id: str) -> bytes:
    """An error as a body."""
    return _encode(
        {
            "type": "error",
            "error": {"type": rejected.kind, "message": rejected.message},
            "request_id": request_id,
        }
    )


def denied(model: str, refusal: Denied) -> Rejected:
    """The provider's own words for a limit that has no room."""
    if refusal.limit is LimitName.CONCURRENCY:
        text = (
            "Number of concurrent connections has exceeded your rate limit. Please try again later."
        )
    else:
        text = (
            f"This request would exceed your organization's rate limit of "
            f"{refusal.capacity:,.0f} {_LIMIT_TEXTS[refusal.limit]} "
            f"(org: {ORGANIZATION}, model: {model}). For details, refer to: "
            "https://docs.claude.com/en/api/rate-limits. You can see the response headers for "
            "current usage. Please reduce the prompt length or the maximum tokens requested, or "
            "try again later."
        )
    return Rejected(429, "rate_limit_error", text)


def injected(status: int, *, quota: bool = False) -> Rejected:
    """The provider's own words for a failure."""
    if quota:
        return Rejected(
            400,
            "invalid_request_error",
            "Your credit balance is too low to access the Anthropic API.",
        )
    kind, message = {
        400: ("invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"),
        401: ("authentication_error", "invalid x-api-key"),
        403: ("permission_error", "Your API key does not have permission to use this resource."),
        429: (
            "rate_limit_error",
            "This request would exceed your organization's rate limit of 600 requests per minute.",
        ),
        503: ("api_error", "Service temporarily unavailable"),
        529: ("overloaded_error", "Overloaded"),
    }.get(status, ("api_error", "Internal server error"))
    return Rejected(status, kind, message)


def limit_headers(readings: Readings, wall: float) -> Headers:
    """What every answer says of the limits."""
    return anthropic_limit_headers(readings, wall)


def retry_headers(seconds: float | None) -> Headers:
    """When to come back."""
    return _retry_headers(seconds, milliseconds=False)


def identity_headers(request_id: str) -> Headers:
    """Who answered, and under what number."""
    return [
        (b"request-id", request_id.encode()),
        (b"anthropic-organization-id", ORGANIZATION.encode()),
    ]


def models_body(models: tuple[str, ...]) -> bytes:
    """``GET /v1/models``."""
    data = [_model(name) for name in models]
    return _encode({"data": data, "has_more": False, "first_id": models[0], "last_id": models[-1]})


def model_body(model: str) -> bytes:
    """``GET /v1/models/{model}``."""
    return _encode(_model(model))


def count_body(tokens: int) -> bytes:
    """``POST /v1/messages/count_tokens``."""
    return _encode({"input_tokens": tokens})


def _decoded(
    decoder: msgspec.json.Decoder[Any], body: bytes, headers: Mapping[bytes, bytes]
) -> Any:
    if b"anthropic-version" not in headers:
        raise _invalid("anthropic-version: header is required")
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as problem:
        raise _invalid(str(problem)) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise _invalid("The request body is not valid JSON") from None


def _prompt(request: _CountRequest, *, stream: bool, tokens_output_max: int | None) -> Prompt:
    if not request.messages:
        raise _invalid("messages: at least one message is required")
    digest = hashlib.blake2b(digest_size=16)
    system, _ = _text(request.system or "")
    digest.update(system.encode("utf-8", "surrogatepass"))
    total, last_user_text, tool_answered = bytes_of(system), "", False
    for message in request.messages:
        if message.role not in ("user", "assistant"):
            raise _invalid("messages: a role is neither 'user' nor 'assistant'")
        text, tool_answered = _text(message.content)
        total += bytes_of(text)
        digest.update(message.role.encode() + b"\0" + text.encode("utf-8", "surrogatepass"))
        if message.role == "user" and not tool_answered:
            last_user_text = text
    tools = [Tool(tool.name, tool.input_schema) for tool in request.tools or ()]
    if tools:
        total += len(_encode(request.tools))
    choice = request.tool_choice or {}
    wanted = choice.get("type") != "none" and not tool_answered
    forced = choice.get("name") if choice.get("type") == "tool" else None
    return Prompt(
        model=request.model,
        stream=stream,
        last_user_text=last_user_text,
        seed=digest.digest(),
        tokens_input=tokens_of_bytes(total),
        tokens_output_max=tokens_output_max,
        tool=chosen_tool(tools, forced) if tools and wanted else None,
    )


def _text(content: str | list[_Block]) -> tuple[str, bool]:
    """The text of a message, and whether it brings a tool's result."""
    if isinstance(content, str):
        return content, False
    texts, tool_answered = [], False
    for block in content:
        if block.type == "tool_result":
            tool_answered = True
            inner = block.content if isinstance(block.content, list) else []
            texts.append(block.content if isinstance(block.content, str) else "")
            texts += [str(part.get("text", "")) for part in inner]
        else:
            texts.append(block.text or "")
            texts.append(bytes(block.input).decode())
    return "".join(texts), tool_answered


def _invalid(message: str) -> Rejected:
    return Rejected(400, "invalid_request_error", message)


def _event(name: str, fields: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), _encode({"type": name, **fields}))


def _message(prompt: Prompt, identifier: str) -> dict[str, Any]:
    return {
        "id": f"msg_{identifier}",
        "type": "message",
        "role": "assistant",
        "model": prompt.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _block(answer: Answer, identifier: str) -> dict[str, Any]:
    if answer.tool_name is None:
        return {"type": "text", "text": ""}
    return {"type": "tool_use", "id": f"toolu_{identifier}", "name": answer.tool_name, "input": {}}


def _stop_reason(answer: Answer) -> str:
    if answer.tool_name is not None:
        return "tool_use"
    return "max_tokens" if answer.cut else "end_turn"


def _usage(prompt: Prompt, tokens_output: int) -> dict[str, Any]:
    return {
        "input_tokens": prompt.tokens_input,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": tokens_output,
        "service_tier": "standard",
    }


def _model(name: str) -> dict[str, Any]:
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": "2023-11-14T22:13:20Z",
    }
