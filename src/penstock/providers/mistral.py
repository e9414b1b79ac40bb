"""Mistral: OpenAI's wire for chat and embeddings, limits in both directions.

Source, read 2026-11: Mistral, "Rate limits and usage tiers": requests per *second* and tokens per
minute (input and output together) for an organisation, all of its workspaces, and tokens per
month; a 429 of any of them is retried. ``rpm`` is sixty times the requests per second, with
``request_window_seconds = 1``. The same page calls requests per second "the maximum number of
concurrent API requests": where that is meant, set ``concurrency``. What is charged up front is not
documented: the cautious model is taken, without a refund. Nor are headers: third parties name
``x-ratelimit-*``, which are read where they come.
"""

from __future__ import annotations

from penstock.providers.base import Endpoint
from penstock.providers.openai import OpenAIAdapter
from penstock.units import ChargeModel, LimitName


class MistralAdapter(OpenAIAdapter):
    """The kind "mistral"."""

    kind = "mistral"
    endpoints = frozenset({Endpoint.CHAT, Endpoint.EMBEDDINGS})
    charge = ChargeModel(output_at_admission="sum")
    limit_headers = ((LimitName.TPM, "tokens"),)
