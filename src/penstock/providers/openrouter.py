"""OpenRouter: OpenAI's wire in front of many providers; errors may come inside a 200.

Sources, read 2026-11: OpenRouter, "Errors" ("the returned HTTP response status will be 200 and any
error occurred while the LLM is producing the output will be emitted in the response body or as an
SSE data event"; 402: credits; 403: moderation, the caller's matter; 408, 502, 503) and "Limits"
(no requests per minute on paid models; variants that end with ``:free``: 20 requests a minute, and
50 or 1,000 a day by what was ever paid; ``X-RateLimit-*`` is of the platform's own 429s).
"""

from __future__ import annotations

from collections.abc import Mapping

from penstock.providers.base import Endpoint, Failure, FailureKind
from penstock.providers.failures import ErrorText
from penstock.providers.openai import OpenAIAdapter
from penstock.units import LimitName

RPM_FREE = 20.0


class OpenRouterAdapter(OpenAIAdapter):
    """The kind "openrouter"."""

    kind = "openrouter"
    endpoints = frozenset(
        {Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS, Endpoint.RESPONSES}
    )
    limit_headers = ()

    def catalogue(self, model: str) -> dict[LimitName, float]:
        """Requests a minute of the free variants."""
        return {LimitName.RPM: RPM_FREE} if model.endswith(":free") else {}

    def classify_error(self, status: int, headers: Mapping[str, str], error: ErrorText) -> Failure:
        """A 403 is the judgement of a moderation on this call, not on our key."""
        status = status or (int(error.code) if error.code.isdecimal() else 0)
        if status == 403 and "moderation" in error.raw.lower() + error.message.lower():
            return Failure(FailureKind.REJECTED)
        return super().classify_error(status, headers, error)
