"""A world to simulate: deployments as they are and as they are believed to be, and the runs."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from penstock.limits.pool import LimitsPlan
from penstock.scheduler.plan import ClassPlan, DeploymentPlan, Plan
from penstock.simulate.disturbances import NONE, Disturbances
from penstock.simulate.provider_world import ProviderLimits
from penstock.simulate.runs import Run, Step
from penstock.units import PERIOD_SECONDS, ChargeModel, LimitName

MINUTE_SECONDS = 60.0


class Timing(msgspec.Struct, frozen=True):
    """How long a provider takes: the way there and back, the first token, each further one."""

    one_way_seconds: float = 0.02
    jitter_seconds: float = 0.01
    first_token_seconds: float = 0.3
    seconds_per_token_input: float = 2e-5
    tokens_per_second: float = 80.0

    def first_after(self, step: Step) -> float:
        """Seconds from admission to the first token."""
        return self.first_token_seconds + self.seconds_per_token_input * step.tokens_input

    def rest_after(self, step: Step) -> float:
        """Seconds from the first token to the last."""
        return step.tokens_output / self.tokens_per_second

    def answer_seconds(self, step: Step) -> float:
        """Seconds from admission to the last token: so long it has a slot."""
        return self.first_after(step) + self.rest_after(step)


class Site(msgspec.Struct, frozen=True):
    """One deployment: how its provider enforces limits, and what we are told of them.

    Sites of one pool share one provider account: all of them hold its limits.
    """

    plan: DeploymentPlan
    limits: ProviderLimits

    @property
    def is_anthropic(self) -> bool:
        """Whether it words its headers as Anthropic does: rounded, whole seconds."""
        return self.plan.charge.output_at_admission == "none"

    def rates(self) -> dict[LimitName, float]:
        """Every limit's amount a second."""
        published = {name: getattr(self.limits, name.value) for name in PERIOD_SECONDS}
        return {
            name: amount / PERIOD_SECONDS[name]
            for name, amount in published.items()
            if amount is not None
        }


class Scenario(msgspec.Struct, frozen=True):
    """Everything that a policy is tried on.

    Runs arrive within ``[0, seconds)``; what arrives before ``settling_seconds`` is played and
    not counted, so that buckets and what is learnt have settled.
    """

    name: str
    sites: tuple[Site, ...]
    classes: tuple[ClassPlan, ...]
    runs: Sequence[Run]
    seconds: float
    settling_seconds: float = 120.0
    seed: int = 0
    timing: Timing = Timing()
    disturbances: Disturbances = NONE
    tenant_weights: dict[str, float] = {}

    def plan(self) -> Plan:
        """What the scheduler is told."""
        return Plan(self.classes, tuple(site.plan for site in self.sites), self.tenant_weights)

    def pools(self) -> dict[str, int]:
        """The provider accounts by name, each with the first of its sites."""
        found: dict[str, int] = {}
        for number, site in enumerate(self.sites):
            found.setdefault(site.plan.pool_name, number)
        return found

    def rates(self) -> dict[LimitName, float]:
        """Every limit's amount a second, over all accounts."""
        found: dict[LimitName, float] = {}
        for number in self.pools().values():
            for limit, rate in self.sites[number].rates().items():
                found[limit] = found.get(limit, 0.0) + rate
        return found

    def given(self, limit: LimitName) -> float:
        """What all accounts' limit gives in the counted time: its refill, and of a day the day.

        A minute's bucket is filled again many times in it, a day's is there once.
        """
        period_seconds = PERIOD_SECONDS[limit]
        seconds = self.seconds - self.settling_seconds
        rate = self.rates().get(limit, 0.0)
        return rate * (seconds if period_seconds == MINUTE_SECONDS else seconds + period_seconds)

    def slots(self) -> int | None:
        """How many calls may run at once over all accounts; None where one has no such limit."""
        found = [self.sites[number].limits.concurrency for number in self.pools().values()]
        slots = [each for each in found if each is not None]
        return sum(slots) if len(slots) == len(found) else None

    def rank(self, class_name: str) -> int:
        """The rank of a class; the most urgent one has the lowest."""
        return next(each.rank for each in self.classes if each.name == class_name)

    def alone(self, classes: int = 1) -> Scenario:
        """The same world with the runs of the most urgent classes, so many, and nobody else's."""
        ranked = sorted(self.classes, key=lambda each: each.rank)
        first = {each.name for each in ranked[:classes]}
        runs = [run for run in self.runs if run.class_name in first]
        return msgspec.structs.replace(self, runs=runs)


def limits_plan(limits: ProviderLimits, disturbances: Disturbances = NONE) -> LimitsPlan:
    """What an operator would configure for these limits, right or wrong."""
    rates = {
        name: float(amount)
        for name in PERIOD_SECONDS
        if (amount := getattr(limits, name.value)) is not None
    }
    burst_seconds = None
    if disturbances.burst_is_configured:
        burst_seconds = limits.burst_seconds * disturbances.burst_factor
    return LimitsPlan(
        rates,
        limits.concurrency,
        burst_seconds,
        "window" if limits.fixed_window else "bucket",
        limits.quantum_seconds,
    )


def charged_amounts(charge: ChargeModel, step_tokens: tuple[int, int, int]) -> dict[str, float]:
    """What a call of (input, output, output maximum) tokens takes of each limit in the end."""
    tokens_input, tokens_output, tokens_output_max = step_tokens
    if charge.output_at_admission == "maximum":
        total = max(tokens_input, tokens_output_max)
    elif charge.output_at_admission == "sum":
        total = tokens_input + tokens_output_max
    else:
        total = tokens_input + tokens_output
    return {
        LimitName.RPM: 1.0,
        LimitName.RPD: 1.0,
        LimitName.TPM: total,
        LimitName.TPD: total,
        LimitName.ITPM: tokens_input,
        LimitName.OTPM: tokens_output,
    }
