"""What the body of each call must hold, for the document of what is served (``/openapi.json``).

The parsers in ``providers`` are what refuses; a test holds these against them. A field that is
not named here passes through unread.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from penstock.config.model import Identifier
from penstock.providers.base import Endpoint
from penstock.providers.control import Choices, Priority, ServiceTier, SubTenant, Tokens


class _Call(msgspec.Struct, kw_only=True):
    """What every call may say."""

    model: Identifier
    priority: Priority = None
    service_tier: ServiceTier = None
    disable_fallbacks: bool | None = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Generation(_Call, kw_only=True):
    stream: bool | None = None


class ChatCompletionRequest(_Generation, kw_only=True):
    """``POST /v1/chat/completions``."""

    messages: list[Any]
    max_tokens: Tokens = None
    max_completion_tokens: Tokens = None
    n: Choices = None
    stream_options: _StreamOptions | None = None
    user: SubTenant = None
    safety_identifier: SubTenant = None
    prompt_cache_key: SubTenant = None


class CompletionRequest(_Generation, kw_only=True):
    """``POST /v1/completions``."""

    prompt: str | list[Any]
    max_tokens: Tokens = None
    n: Choices = None
    best_of: Choices = None
    stream_options: _StreamOptions | None = None
    user: SubTenant = None


class EmbeddingsRequest(_Call, kw_only=True):
    """``POST /v1/embeddings``."""

    input: str | list[Any]
    user: SubTenant = None


class ResponseRequest(_Generation, kw_only=True):
    """``POST /v1/responses``."""

    input: str | list[Any]
    max_output_tokens: Tokens = None
    background: bool | None = None
    user: SubTenant = None
    safety_identifier: SubTenant = None
    prompt_cache_key: SubTenant = None


class _Metadata(msgspec.Struct):
    user_id: SubTenant = None


class MessageRequest(_Generation, kw_only=True):
    """``POST /v1/messages``."""

    messages: list[Any]
    max_tokens: Tokens = None
    metadata: _Metadata | None = None


class CountTokensRequest(_Call, kw_only=True):
    """``POST /v1/messages/count_tokens``."""

    messages: list[Any]


REQUESTS: Final[dict[Endpoint, type[msgspec.Struct]]] = {
    Endpoint.CHAT: ChatCompletionRequest,
    Endpoint.COMPLETIONS: CompletionRequest,
    Endpoint.EMBEDDINGS: EmbeddingsRequest,
    Endpoint.RESPONSES: ResponseRequest,
    Endpoint.MESSAGES: MessageRequest,
    Endpoint.COUNT_TOKENS: CountTokensRequest,
}
