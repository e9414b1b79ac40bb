"""What can be set on a sandbox, and its defaults; the command line repeats them."""

from __future__ import annotations

import msgspec

from penstock.sandbox.faults import FaultRate
from penstock.simulate.provider_world import ProviderLimits

MODEL = "sandbox"


class SandboxSettings(msgspec.Struct, frozen=True):
    """One sandbox.

    ``limits`` hold for each model and each shape (OpenAI, Anthropic) by itself.
    ``latency_seconds`` is the time to the first token; ``tokens_per_second`` the pace after
    it. 0 for either means at once.
    """

    limits: ProviderLimits = ProviderLimits()
    models: tuple[str, ...] = (MODEL,)
    latency_seconds: float = 0.3
    tokens_per_second: float = 100.0
    fault_rates: tuple[FaultRate, ...] = ()
    seed: int = 0
