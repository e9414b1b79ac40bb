"""The provider kinds that are served, by the name they have in the configuration."""

from __future__ import annotations

from penstock.providers.anthropic import AnthropicAdapter
from penstock.providers.base import Adapter
from penstock.providers.openai import OpenAIAdapter

ADAPTERS: dict[str, Adapter] = {
    adapter.kind: adapter for adapter in (OpenAIAdapter(), AnthropicAdapter())
}
