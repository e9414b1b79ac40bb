"""OpenAI's text completions, the older API: requests read, answers and streams written.

Source: the published API reference. Keys, errors and limits are those of the chat shape. One
prompt is answered by one choice; more are refused rather than ignored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from penstock.sandbox.answers import Answer, Prompt
from penstock.sandbox.openai_shape import (
    CHARGE,
    NAME,
    StreamOptions,
    decoded,
    denied,
    error_body,
    error_event,
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
    usage_of,
)
from penstock.sandbox.text import bytes_of, tokens_of_bytes

__all__ = [
    "CHARGE", "NAME", "denied", "error_body", "error_event", "events", "has_key",
    "identity_headers", "injected", "limit_headers", "model_body", "models_body", "no_key",
    "no_model", "read", "retry_headers", "whole",
]  # fmt: skip

TOKENS_MAX_DEFAULT = 16


class _Request(msgspec.Struct):
    model: str
    prompt: str | list[str | int]
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = TOKENS_MAX_DEFAULT
    n: int | None = 1


_decoder = msgspec.json.Decoder(_Request)
_encode = msgspec.json.Encoder().encode


def read(body: bytes, _headers: Mapping[bytes, bytes]) -> Prompt:
    """A request. Raises Rejected."""
    request: _Request = decoded(_decoder, body)
    prompt = request.prompt
    if isinstance(prompt, list):
        is_text = bool(prompt) and isinstance(prompt[0], str)
        if is_text and len(prompt) != 1:
            raise invalid("Invalid 'prompt': the sandbox serves one prompt.", "prompt")
        prompt = str(prompt[0]) if is_text else " ".join(map(str, prompt))
    if request.n not in (None, 1):
        raise invalid("Invalid 'n': the sandbox serves one choice. Leave 'n' out.", "n")
    return Prompt(
        model=request.model,
        stream=bool(request.stream),
        last_user_text=prompt,
        seed=hashlib.blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=16).digest(),
        tokens_input=tokens_of_bytes(bytes_of(prompt)),
        tokens_output_max=request.max_tokens,
        include_usage=bool(request.stream_options and request.stream_options.include_usage),
    )


def whole(prompt: Prompt, answer: Answer, identifier: str, created: int) -> bytes:
    """A complete ``text_completion``."""
    choices = [_choice(answer.text, "length" if answer.cut else "stop")]
    usage = usage_of(prompt, answer)
    return _encode({**_head(prompt, identifier, created), "choices": choices, "usage": usage})


def events(
    prompt: Prompt, answer: Answer, identifier: str, created: int
) -> Iterator[tuple[str, bytes]]:
    """The stream's events, each with the piece of the answer that it carries ("" for none)."""
    head = _head(prompt, identifier, created)
    nothing = {"usage": None} if prompt.include_usage else {}

    def chunk(text: str, finish: str | None = None) -> bytes:
        return b"data: %b\n\n" % _encode({**head, "choices": [_choice(text, finish)], **nothing})

    for piece in answer.pieces():
        yield piece, chunk(piece)
    yield "", chunk("", "length" if answer.cut else "stop")
    if prompt.include_usage:
        last = {**head, "choices": [], "usage": usage_of(prompt, answer)}
        yield "", b"data: %b\n\n" % _encode(last)
    yield "", b"data: [DONE]\n\n"


def _head(prompt: Prompt, identifier: str, created: int) -> dict[str, Any]:
    return {
        "id": f"cmpl-{identifier}",
        "object": "text_completion",
        "created": created,
        "model": prompt.model,
    }


def _choice(text: str, finish: str | None) -> dict[str, Any]:
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
