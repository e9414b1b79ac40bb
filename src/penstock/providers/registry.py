"""The provider kinds that are served, by the name they have in the configuration.

``READERS`` says who reads the callers' requests: each path belongs to one protocol, whatever
provider answers it in the end.
"""

from __future__ import annotations

from penstock.providers.anthropic import AnthropicAdapter
from penstock.providers.azure import AzureAdapter
from penstock.providers.base import Adapter, Endpoint
from penstock.providers.compatible import CompatibleAdapter, OllamaAdapter, VllmAdapter
from penstock.providers.deepseek import DeepSeekAdapter
from penstock.providers.gemini import GeminiAdapter
from penstock.providers.groq import GroqAdapter
from penstock.providers.mistral import MistralAdapter
from penstock.providers.openai import OpenAIAdapter
from penstock.providers.openrouter import OpenRouterAdapter

_KINDS: tuple[Adapter, ...] = (
    OpenAIAdapter(),
    AnthropicAdapter(),
    AzureAdapter(),
    CompatibleAdapter(),
    VllmAdapter(),
    OllamaAdapter(),
    GroqAdapter(),
    MistralAdapter(),
    DeepSeekAdapter(),
    OpenRouterAdapter(),
    GeminiAdapter(),
)

ADAPTERS: dict[str, Adapter] = {adapter.kind: adapter for adapter in _KINDS}

READERS: dict[Endpoint, Adapter] = {
    endpoint: adapter for adapter in reversed(_KINDS) for endpoint in adapter.endpoints
}
