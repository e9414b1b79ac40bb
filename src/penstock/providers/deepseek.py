"""DeepSeek: OpenAI's wire for chat; it limits calls at once.

Sources, read 2026-11: DeepSeek, "Rate limit" (a number of concurrent calls per account and model,
published for everybody: 2,500 for flash, 500 for pro; more on request; in earlier versions of the
page, a call that waits gets empty lines, or ``: keep-alive`` comments in a stream), "Error codes"
(402: no balance; 422: wrong parameters; 429: over the concurrency; 503: overloaded) and "Context
caching" (``prompt_cache_hit_tokens`` beside the usual usage; what is read is
``prompt_tokens_details.cached_tokens``, which says the same).
"""

from __future__ import annotations

from penstock.providers.base import Endpoint
from penstock.providers.openai import OpenAIAdapter
from penstock.units import ChargeModel, LimitName

CONCURRENCY = {"flash": 2_500, "pro": 500}


class DeepSeekAdapter(OpenAIAdapter):
    """The kind "deepseek"."""

    kind = "deepseek"
    endpoints = frozenset({Endpoint.CHAT})
    charge = ChargeModel(failed_requests_count=False)
    limit_headers = ()

    def catalogue(self, model: str) -> dict[LimitName, float]:
        """Calls at once, where the model's name says which of the two families it is."""
        for family, calls in CONCURRENCY.items():
            if model.endswith(family):
                return {LimitName.CONCURRENCY: calls}
        return {}
