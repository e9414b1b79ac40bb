"""Small worlds in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from penstock.scheduler.plan import ClassPlan, DeploymentPlan
from penstock.simulate.disturbances import NONE, Disturbances
from penstock.simulate.engine import Simulation
from penstock.simulate.policies.table import POLICIES
from penstock.simulate.provider_world import OPENAI_CHARGE, ProviderLimits
from penstock.simulate.runs import Run, Step
from penstock.simulate.scenario import Scenario, Site, Timing, limits_plan
from penstock.units import ChargeModel

CLASSES = (
    ClassPlan("interactive", 0),
    ClassPlan("standard", 1, reserve=0.5, min_share=0.05),
    ClassPlan("batch", 2, reserve=1.0, min_share=0.05, queue_max=100_000),
)


PUNCTUAL = Timing(jitter_seconds=0.0)


class Worlds:
    """Makes scenarios of one deployment, and plays them."""

    @staticmethod
    def run(
        name: str,
        at: float,
        class_name: str = "interactive",
        *,
        tokens: int = 100,
        output: int = 8,
        steps: int = 1,
        tool_seconds: float = 1.0,
        tenant: str = "",
        patience_seconds: float | None = None,
    ) -> Run:
        """A run of equal steps."""
        made = tuple(
            Step(tokens, output, output, tool_seconds if number else 0.0) for number in range(steps)
        )
        return Run(name, "m", tenant or class_name, class_name, at, made, patience_seconds)

    @staticmethod
    def scenario(
        runs: Sequence[Run],
        limits: ProviderLimits,
        *,
        seconds: float = 60.0,
        charge: ChargeModel = OPENAI_CHARGE,
        disturbances: Disturbances = NONE,
        settling_seconds: float = 0.0,
        timing: Timing = PUNCTUAL,
        seed: int = 0,
    ) -> Scenario:
        """One deployment ``one`` that serves the model ``m``."""
        plan = DeploymentPlan("one", ("m",), limits_plan(limits, disturbances), charge)
        return Scenario(
            name="test",
            sites=(Site(plan, limits),),
            classes=CLASSES,
            runs=runs,
            seconds=seconds,
            settling_seconds=settling_seconds,
            seed=seed,
            timing=timing,
            disturbances=disturbances,
        )

    @staticmethod
    def played(scenario: Scenario, policy: str) -> tuple[Simulation, str]:
        """The simulation after its end, and its hash."""
        simulation = Simulation(scenario, POLICIES[policy].make)
        return simulation, simulation.run()

    @classmethod
    def waits(cls, scenario: Scenario, policy: str) -> dict[str, float]:
        """How long each call waited until it was sent, by its run and step."""
        simulation, _ = cls.played(scenario, policy)
        return {
            call.name: call.accepted_at - call.ready_at
            for call in simulation.record.calls
            if call.accepted_at is not None
        }


@pytest.fixture(scope="session")
def worlds() -> type[Worlds]:
    """The maker of worlds, as a fixture: test folders are no packages."""
    return Worlds


@pytest.fixture(scope="session")
def policy_names() -> Callable[[], list[str]]:
    """Every policy that is no bound."""
    return lambda: [name for name, entry in POLICIES.items() if not entry.is_bound]
