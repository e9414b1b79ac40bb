"""Every policy by the name that the command line takes."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from penstock.simulate.engine import Policy, Simulation
from penstock.simulate.policies.line import (
    bound_fifo,
    bound_runs,
    bound_shortest,
    fifo,
    strict_priority,
)
from penstock.simulate.policies.ours import Ours
from penstock.simulate.policies.retries import LangChainLimiter, LiteLlmShares, SdkRetries

OURS = "penstock"
BOUND = "alone-fifo"
SHORTEST = "alone-shortest"


class Entry(msgspec.Struct, frozen=True):
    """One policy. ``is_bound``: it is played with the most urgent class alone."""

    make: Callable[[Simulation], Policy]
    words: str
    is_bound: bool = False


POLICIES: dict[str, Entry] = {
    OURS: Entry(Ours, "this scheduler"),
    "strict-priority": Entry(strict_priority, "urgent first, at the exact limit"),
    "fifo": Entry(fifo, "first come, first served, at the exact limit"),
    "sdk-retries": Entry(SdkRetries, "every client retries by itself"),
    "litellm-shares": Entry(LiteLlmShares, "shares of a minute for each class"),
    "langchain-limiter": Entry(LangChainLimiter, "so many requests a second, by chance"),
    BOUND: Entry(bound_fifo, "urgent calls alone, first come, first served", is_bound=True),
    "alone-runs": Entry(bound_runs, "urgent calls alone, the run that came first", is_bound=True),
    SHORTEST: Entry(bound_shortest, "urgent calls alone, shortest run first", is_bound=True),
}
