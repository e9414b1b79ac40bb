"""Gemini's OpenAI-compatible endpoint (``https://generativelanguage.googleapis.com/v1beta/openai``).

Sources, read 2026-11: Google, "OpenAI compatibility" (chat and embeddings) and "Rate limits" (RPM,
*input* tokens per minute, RPD until midnight Pacific time, per project and model; spend limits of
ten minutes). Answers carry no limit headers. A 429 is ``RESOURCE_EXHAUSTED`` in a list, with the
quota's name in ``quotaId`` and a ``retryDelay``, which a daily refusal carries as well: the name
decides. ``limit: 0`` is no quota at all. Failed calls count.

Only the input counts, so set ``itpm``, which is settled to the input that was used.
"""

from __future__ import annotations

from penstock.providers.base import Endpoint
from penstock.providers.openai import OpenAIAdapter
from penstock.units import ChargeModel


class GeminiAdapter(OpenAIAdapter):
    """The kind "gemini"."""

    kind = "gemini"
    endpoints = frozenset({Endpoint.CHAT, Endpoint.EMBEDDINGS})
    charge = ChargeModel(output_at_admission="none", settles_input=True)
    limit_headers = ()
