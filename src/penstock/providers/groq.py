"""Groq: OpenAI's wire; its request headers are about a day.

Sources, read 2026-11: Groq, "Rate limits" (RPM, RPD, TPM, TPD per organisation and model; cached
tokens do not count; ``x-ratelimit-limit-requests`` is requests per *day*,
``x-ratelimit-limit-tokens`` tokens per *minute*; ``retry-after`` only with a 429), "Flex
processing" (498 ``capacity_exceeded``: overloaded) and "Responses API" (stateless).
"""

from __future__ import annotations

from penstock.providers.base import Endpoint
from penstock.providers.openai import OpenAIAdapter
from penstock.units import LimitName


class GroqAdapter(OpenAIAdapter):
    """The kind "groq"."""

    kind = "groq"
    endpoints = frozenset({Endpoint.CHAT, Endpoint.RESPONSES})
    limit_headers = ((LimitName.RPD, "requests"), (LimitName.TPM, "tokens"))
