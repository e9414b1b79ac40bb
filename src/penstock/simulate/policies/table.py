"""Every policy by the name that the command line takes."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from penstock.simulate.engine import Policy, Simulation
from penstock.simulate.fluid import FluidWorld
from penstock.simulate.policies.line import (
    bound_fifo,
    bound_runs,
    bound_shortest,
    bound_urgent,
    fifo,
    strict_priority,
)
from penstock.simulate.policies.ours import Ours
from penstock.simulate.policies.retries import LangChainLimiter, LiteLlmShares, SdkRetries
from penstock.simulate.provider_world import ProviderLimits, ProviderWorld
from penstock.simulate.scenario import Scenario
from penstock.units import ChargeModel

OURS = "penstock"
BOUND = "alone-fifo"
BOUND_STANDARD = "alone-urgent"
FLUID = "fluid"
NEEDED = (OURS, BOUND, BOUND_STANDARD)
"""What the gates of ours are computed from."""


class Entry(msgspec.Struct, frozen=True):
    """One policy. ``classes``: it is played with so many of the most urgent classes alone."""

    make: Callable[[Simulation], Policy]
    words: str
    classes: int | None = None
    make_world: Callable[[ProviderLimits, ChargeModel], ProviderWorld] = ProviderWorld

    @property
    def is_bound(self) -> bool:
        """Whether it is something to measure by, not something to use."""
        return self.classes is not None

    def simulation(self, scenario: Scenario, *, with_picture: bool = False) -> Simulation:
        """What plays it on a scenario."""
        world = scenario if self.classes is None else scenario.alone(self.classes)
        return Simulation(world, self.make, with_picture=with_picture, make_world=self.make_world)


POLICIES: dict[str, Entry] = {
    OURS: Entry(Ours, "this scheduler"),
    "strict-priority": Entry(strict_priority, "urgent first, at the exact limit"),
    "fifo": Entry(fifo, "first come, first served, at the exact limit"),
    "sdk-retries": Entry(SdkRetries, "every client retries by itself"),
    "litellm-shares": Entry(LiteLlmShares, "shares of a minute for each class"),
    "langchain-limiter": Entry(LangChainLimiter, "so many requests a second, by chance"),
    BOUND: Entry(bound_fifo, "urgent calls alone, first come, first served", 1),
    "alone-runs": Entry(bound_runs, "urgent calls alone, the run that came first", 1),
    "alone-shortest": Entry(bound_shortest, "urgent calls alone, shortest run first", 1),
    BOUND_STANDARD: Entry(bound_urgent, "urgent and standard calls alone, by deadline", 2),
    FLUID: Entry(bound_fifo, "the fluid limit: calls can be divided at will", 1, FluidWorld),
}
