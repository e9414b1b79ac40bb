"""The OpenAI API's shape: requests read, answers, streams and errors written.

Source: the published API reference, and what the ``openai`` SDK reads. ``n`` above 1 is
refused rather than ignored.
"""

from __future__ import annotations

import hashlib
from array import array
from base64 import b64encode
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from penstock.sandbox.answers import Answer, Prompt, Rejected, Tool, chosen_tool
from penstock.sandbox.headers import Headers, Readings, go_duration, openai_limit_headers
from penstock.sandbox.headers import retry_headers as _retry_headers
from penstock.sandbox.text import bytes_of, tokens_of_bytes
from penstock.simulate.provider_world import OPENAI_CHARGE, Denied
from penstock.units import ChargeModel, LimitName

NAME: str = "openai"
CHARGE: ChargeModel = OPENAI_CHARGE
ORGANIZATION = "org-sandbox"
DIMENSIONS_DEFAULT = 256
DIMENSIONS_MAX = 3072
EMBEDDING_INPUTS_MAX = 2048

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_TOOL_ROLES = frozenset({"tool", "function"})
_LIMIT_TEXTS = {
    LimitName.RPM: "requests per min (RPM)",
    LimitName.RPD: "requests per day (RPD)",
    LimitName.TPD: "tokens per day (TPD)",
    LimitName.TPM: "tokens per min (TPM)",
    LimitName.ITPM: "input tokens per min (ITPM)",
    LimitName.OTPM: "output tokens per min (OTPM)",
    LimitName.CONCURRENCY: "concurrent requests",
}
_NO_RAW = msgspec.Raw(b"")


class _Part(msgspec.Struct):
    type: str = "text"
    text: str | None = None


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None
    tool_calls: msgspec.Raw = _NO_RAW


class _Function(msgspec.Struct):
    name: str
    parameters: dict[str, Any] = {}


class _Tool(msgspec.Struct):
    type: str = "function"
    function: _Function | None = None


class StreamOptions(msgspec.Struct):
    """What a stream is asked to have."""

    include_usage: bool | None = False


class _ChatRequest(msgspec.Struct):
    model: str
    messages: list[_Message]
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = 1
    tools: list[_Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None


class EmbeddingsRequest(msgspec.Struct):
    """``POST /v1/embeddings``."""

    model: str
    input: str | list[str | int | list[int]]
    encoding_format: str | None = "float"
    dimensions: int | None = DIMENSIONS_DEFAULT

    def inputs(self) -> list[str | list[int]]:
        """One entry for each vector: a text, or a list of token numbers."""
        if isinstance(self.input, str):
            return [self.input]
        if self.input and all(isinstance(entry, int) for entry in self.input):
            return [[entry for entry in self.input if isinstance(entry, int)]]
        return [entry for entry in self.input if not isinstance(entry, int)]


_chat_decoder = msgspec.json.Decoder(_ChatRequest)
_embeddings_decoder = msgspec.json.Decoder(EmbeddingsRequest)
_encode = msgspec.json.Encoder().encode


def has_key(headers: Mapping[bytes, bytes]) -> str | None:
    """The caller's key, if it sent any; Azure's callers have a header of their own."""
    if b"api-key" in headers:
        return headers[b"api-key"].strip().decode("latin-1") or None
    scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
    return key.strip().decode("latin-1") or None if scheme.lower() == b"bearer" else None


def no_key() -> Rejected:
    """What a call without a key is told."""
    return Rejected(
        401,
        "invalid_request_error",
        "You didn't provide an API key. You need to provide your API key in an Authorization "
        "header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
    )


def no_model(model: str) -> Rejected:
    """What a call of an unknown model is told."""
    return Rejected(
        404,
        "invalid_request_error",
        f"The model `{model[:64]}` does not exist or you do not have access to it.",
        code="model_not_found",
    )


def read(body: bytes, _headers: Mapping[bytes, bytes]) -> Prompt:
    """A chat completion request. Raises Rejected."""
    request = decoded(_chat_decoder, body)
    if not request.messages:
        raise invalid("Invalid 'messages': empty array. Expected at least 1.", "messages")
    if request.n not in (None, 1):
        raise invalid("Invalid 'n': the sandbox serves one choice. Leave 'n' out.", "n")
    tokens_max = request.max_completion_tokens or request.max_tokens
    if tokens_max is not None and tokens_max < 1:
        raise invalid("Invalid 'max_tokens': integer below minimum value 1.", "max_tokens")
    last_user_text, total, digest = "", 0, hashlib.blake2b(digest_size=16)
    for message in request.messages:
        if message.role not in _ROLES:
            raise invalid("Invalid 'messages': a role is not one of the known ones.", "messages")
        text = _text(message.content)
        total += bytes_of(text) + len(bytes(message.tool_calls))
        digest.update(message.role.encode() + b"\0" + text.encode("utf-8", "surrogatepass"))
        if message.role == "user":
            last_user_text = text
    tools = [
        Tool(tool.function.name, tool.function.parameters)
        for tool in request.tools or ()
        if tool.function is not None
    ]
    if tools:
        total += len(_encode(request.tools))
    wanted = request.tool_choice != "none" and request.messages[-1].role not in _TOOL_ROLES
    return Prompt(
        model=request.model,
        stream=bool(request.stream),
        last_user_text=last_user_text,
        seed=digest.digest(),
        tokens_input=tokens_of_bytes(total),
        tokens_output_max=tokens_max,
        include_usage=bool(request.stream_options and request.stream_options.include_usage),
        tool=chosen_tool(tools, _forced(request.tool_choice)) if tools and wanted else None,
        json_schema=_json_schema(request.response_format),
    )


def whole(prompt: Prompt, answer: Answer, identifier: str, created: int) -> bytes:
    """A complete ``chat.completion``."""
    message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
    if answer.tool_name is not None:
        message["content"] = None
        message["tool_calls"] = [
            {
                "id": f"call_{identifier}",
                "type": "function",
                "function": {"name": answer.tool_name, "arguments": answer.text},
            }
        ]
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": _finish_reason(answer),
    }
    return _encode(
        {
            "id": f"chatcmpl-{identifier}",
            "object": "chat.completion",
            "created": created,
            "model": prompt.model,
            "choices": [choice],
            "usage": usage_of(prompt, answer),
            "service_tier": "default",
            "system_fingerprint": "fp_sandbox",
        }
    )


def events(
    prompt: Prompt, answer: Answer, identifier: str, created: int
) -> Iterator[tuple[str, bytes]]:
    """The stream's events, each with the piece of the answer that it carries ("" for none)."""
    head = _encode(
        {
            "id": f"chatcmpl-{identifier}",
            "object": "chat.completion.chunk",
            "created": created,
            "model": prompt.model,
            "service_tier": "default",
            "system_fingerprint": "fp_sandbox",
        }
    )[:-1]
    tail = b',"usage":null}\n\n' if prompt.include_usage else b"}\n\n"

    def chunk(delta: bytes, finish: bytes = b"null") -> bytes:
        return (
            b'data: %b,"choices":[{"index":0,"delta":%b,"logprobs":null,"finish_reason":%b}]%b'
            % (head, delta, finish, tail)
        )

    if answer.tool_name is None:
        yield "", chunk(b'{"role":"assistant","content":"","refusal":null}')
        for piece in answer.pieces():
            yield piece, chunk(b'{"content":%b}' % _encode(piece))
    else:
        name = _encode(answer.tool_name)
        yield (
            "",
            chunk(
                b'{"role":"assistant","content":null,"tool_calls":[{"index":0,"id":"call_%b",'
                b'"type":"function","function":{"name":%b,"arguments":""}}]}'
                % (identifier.encode(), name)
            ),
        )
        for piece in answer.pieces():
            yield (
                piece,
                chunk(b'{"tool_calls":[{"index":0,"function":{"arguments":%b}}]}' % _encode(piece)),
            )
    yield "", chunk(b"{}", _encode(_finish_reason(answer)))
    if prompt.include_usage:
        yield (
            "",
            b'data: %b,"choices":[],"usage":%b}\n\n' % (head, _encode(usage_of(prompt, answer))),
        )
    yield "", b"data: [DONE]\n\n"


def error_event(rejected: Rejected, request_id: str) -> bytes:
    """An error after a stream has begun."""
    return b"data: " + error_body(rejected, request_id) + b"\n\n"


def error_body(rejected: Rejected, _request_id: str) -> bytes:
    """An error as a body."""
    return _encode(
        {
            "error": {
                "message": rejected.message,
                "type": rejected.kind,
                "param": rejected.param,
                "code": rejected.code,
            }
        }
    )


def denied(model: str, refusal: Denied) -> Rejected:
    """The provider's own words for a limit that has no room."""
    kind = "tokens" if refusal.limit.endswith("tpm") else "requests"
    where = f"for {model} in organization {ORGANIZATION} on {_LIMIT_TEXTS[refusal.limit]}"
    amounts = f"Limit {refusal.capacity:.0f}"
    requested = f"Requested {refusal.requested:.0f}."
    visit = "Visit https://platform.openai.com/account/rate-limits to learn more."
    if refusal.too_large:
        text = (
            f"Request too large {where}: {amounts}, {requested} The input or output tokens must "
            f"be reduced in order to run successfully. {visit}"
        )
    else:
        used = max(0, round(refusal.capacity) - int(refusal.remaining + 1e-6))
        again = (
            "Please try again when another request has finished."
            if refusal.retry_after_seconds is None
            else f"Please try again in {go_duration(refusal.retry_after_seconds)}."
        )
        text = f"Rate limit reached {where}: {amounts}, Used {used}, {requested} {again} {visit}"
    return Rejected(429, kind, text, code="rate_limit_exceeded")


def injected(status: int, *, quota: bool = False) -> Rejected:
    """The provider's own words for a failure."""
    if quota:
        return Rejected(
            429,
            "insufficient_quota",
            "You exceeded your current quota, please check your plan and billing details.",
            code="insufficient_quota",
        )
    kind, message, code = {
        400: (
            "invalid_request_error",
            (
                "This model's maximum context length is 8192 tokens. Please reduce the length of "
                "the messages."
            ),
            "context_length_exceeded",
        ),
        401: ("invalid_request_error", "Incorrect API key provided.", "invalid_api_key"),
        403: ("invalid_request_error", "Project does not have access to this model.", None),
        429: (
            "requests",
            (
                f"Rate limit reached for sandbox in organization {ORGANIZATION} on requests per "
                "min (RPM): Limit 600, Used 600, Requested 1. Please try again in 100ms."
            ),
            "rate_limit_exceeded",
        ),
        503: ("service_unavailable", "The engine is currently overloaded, try again later.", None),
        529: ("overloaded_error", "Overloaded", None),
    }.get(status, ("server_error", "The server had an error while processing your request.", None))
    return Rejected(status, kind, message, code=code)


def limit_headers(readings: Readings, _wall: float) -> Headers:
    """What every answer says of the limits."""
    return openai_limit_headers(readings)


def retry_headers(seconds: float | None) -> Headers:
    """When to come back."""
    return _retry_headers(seconds, milliseconds=True)


def identity_headers(request_id: str) -> Headers:
    """Who answered, and under what number."""
    return [
        (b"x-request-id", request_id.encode()),
        (b"openai-organization", ORGANIZATION.encode()),
        (b"openai-version", b"2020-10-01"),
    ]


def models_body(models: tuple[str, ...]) -> bytes:
    """``GET /v1/models``."""
    return _encode({"object": "list", "data": [_model(name) for name in models]})


def model_body(model: str) -> bytes:
    """``GET /v1/models/{model}``."""
    return _encode(_model(model))


def read_embeddings(body: bytes) -> tuple[EmbeddingsRequest, int]:
    """An embeddings request and its input tokens. Raises Rejected."""
    request = decoded(_embeddings_decoder, body)
    inputs = request.inputs()
    if not inputs or len(inputs) > EMBEDDING_INPUTS_MAX:
        raise invalid(f"Invalid 'input': 1 to {EMBEDDING_INPUTS_MAX} entries.", "input")
    if request.encoding_format not in (None, "float", "base64"):
        raise invalid("Invalid 'encoding_format': one of 'float', 'base64'.", "encoding_format")
    dimensions = request.dimensions
    if dimensions is not None and not 1 <= dimensions <= DIMENSIONS_MAX:
        raise invalid(f"Invalid 'dimensions': 1 to {DIMENSIONS_MAX}.", "dimensions")
    tokens = sum(
        tokens_of_bytes(bytes_of(entry)) if isinstance(entry, str) else len(entry)
        for entry in inputs
    )
    return request, tokens


def embeddings_body(request: EmbeddingsRequest, tokens: int) -> bytes:
    """Unit vectors that are a function of each input alone."""
    dimensions = request.dimensions or DIMENSIONS_DEFAULT
    data = []
    for index, entry in enumerate(request.inputs()):
        vector = _vector(_encode(entry), dimensions)
        value: Any = vector
        if request.encoding_format == "base64":
            value = b64encode(array("f", vector).tobytes()).decode()
        data.append({"object": "embedding", "index": index, "embedding": value})
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return _encode({"object": "list", "data": data, "model": request.model, "usage": usage})


def _vector(content: bytes, dimensions: int) -> list[float]:
    raw = array("h", hashlib.shake_128(content).digest(2 * dimensions))
    length = sum(value * value for value in raw) ** 0.5 or 1.0
    return [value / length for value in raw]


def decoded(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    """A body. Raises Rejected in the provider's words."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as problem:
        raise invalid(f"Invalid request: {problem}.", None) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise invalid("We could not parse the JSON body of your request.", None) from None


def invalid(message: str, param: str | None) -> Rejected:
    """What a request that breaks a rule is told."""
    return Rejected(400, "invalid_request_error", message, param=param)


def _text(content: str | list[_Part] | None) -> str:
    if isinstance(content, list):
        return "".join(part.text or "" for part in content)
    return content or ""


def _forced(choice: str | dict[str, Any] | None) -> str | None:
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None


def _json_schema(response_format: dict[str, Any] | None) -> dict[str, Any] | None:
    kind = response_format.get("type") if response_format else None
    if response_format is None or kind not in ("json_object", "json_schema"):
        return None
    described = response_format.get("json_schema")
    schema = described.get("schema") if isinstance(described, dict) else None
    if isinstance(schema, dict):
        return schema
    return {"type": "object", "properties": {"answer": {"type": "string"}}}


def _finish_reason(answer: Answer) -> str:
    if answer.tool_name is not None:
        return "tool_calls"
    return "length" if answer.cut else "stop"


def usage_of(prompt: Prompt, answer: Answer) -> dict[str, Any]:
    """What an answer used."""
    return {
        "prompt_tokens": prompt.tokens_input,
        "completion_tokens": answer.tokens_output,
        "total_tokens": prompt.tokens_input + answer.tokens_output,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 1_700_000_000, "owned_by": "sandbox"}
