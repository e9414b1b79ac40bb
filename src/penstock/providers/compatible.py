"""Servers that speak OpenAI's wire, as far as they do: the general kind, vLLM, Ollama.

Sources, read 2026-11: vLLM, "Online serving" (completions, chat, responses, embeddings; what is
not run is queued without bound, so ``concurrency`` is the limit to set); Ollama, "OpenAI
compatibility" (chat, completions, embeddings, stateless responses; 503 when its queue is full).
Neither limits rates, sends limit headers nor refunds anything: ``concurrency`` is what counts.

The general kind claims only what nearly all of them serve. A call of another dialect is refused
by name before anything is sent.
"""

from __future__ import annotations

from penstock.providers.base import Endpoint
from penstock.providers.openai import OpenAIAdapter
from penstock.units import ChargeModel


class CompatibleAdapter(OpenAIAdapter):
    """The kind "openai-compatible": any server that speaks chat, completions and embeddings."""

    kind = "openai-compatible"
    endpoints = frozenset({Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS})


class VllmAdapter(OpenAIAdapter):
    """The kind "vllm"."""

    kind = "vllm"
    charge = ChargeModel(failed_requests_count=False)


class OllamaAdapter(OpenAIAdapter):
    """The kind "ollama"."""

    kind = "ollama"
    charge = ChargeModel(failed_requests_count=False)
