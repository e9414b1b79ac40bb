"""OpenRouter: OpenAI's wire in front of many providers; errors may come inside a 200.

Sources, read 2026-11: OpenRouter, "Errors" ("the returned HTTP response status will be 200 and any
error occurred while the LLM is producing the output will be emitted in the response body or as an
SSE data event"; 402: credits, or, with the ``limit_source`` named below, too much in flight: that
passes; 403: moderation, the caller's matter; 408, 502, 503) and "Limits"
(no requests per minute on paid models; variants that end with ``:free``: 20 requests a minute, and
50 or 1,000 a day by what was ever paid; ``X-RateLimit-*`` is of the platform's own 429s).
"""

from __future__ import annotations

from collections.abc import Mapping

from penstock.providers.base import Endpoint, Failure, FailureKind
from penstock.providers.failures import ErrorText, read_error
from penstock.providers.header_values import retry_after_seconds
from penstock.providers.openai import OpenAIAdapter
from penstock.units import LimitName

RPM_FREE = 20.0
IN_FLIGHT_BUDGET = "openrouter_in_flight_budget"


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

    def failure_within(self, body: bytes) -> Failure | None:
        """What failed at the provider behind it, after OpenRouter had said 200."""
        error = read_error(body)
        if not (error.code or error.message):
            return None
        return self.classify_error(0, {}, error)

    def classify_error(self, status: int, headers: Mapping[str, str], error: ErrorText) -> Failure:
        """A 403 is the judgement of a moderation on this call, not on our key."""
        status = status or (int(error.code) if error.code.isdecimal() else 0)
        if status == 403 and "moderation" in error.raw.lower() + error.message.lower():
            return Failure(FailureKind.REJECTED)
        if status == 402 and IN_FLIGHT_BUDGET in error.raw:
            return Failure(FailureKind.RATE, retry_after_seconds(headers, error.message))
        return super().classify_error(status, headers, error)
