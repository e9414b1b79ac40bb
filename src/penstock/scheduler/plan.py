"""What the scheduler is told: classes, tenants, deployments. Plain data from the configuration."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from penstock.limits.pool import LimitsPlan
from penstock.units import ChargeModel


class ClassPlan(msgspec.Struct, frozen=True):
    """One class. ``rank``: lower goes first. ``reserve``: the share of each bucket that it
    leaves to more urgent classes. ``min_share``: its floor when they leave it nothing.
    ``seniority_seconds``: how much earlier than it came a later step of a run counts, at most.
    ``quantum_seconds``: dominant seconds by which tenants may differ without being preferred.
    ``queue_tenant_share``: how much of ``queue_max`` one tenant may fill.
    """

    name: str
    rank: int
    reserve: float = 0.0
    min_share: float = 0.0
    order: Literal["arrival", "deadline", "remaining"] = "arrival"
    seniority_seconds: float = math.inf
    quantum_seconds: float = 0.0
    queue_max: int = 10_000
    queue_tenant_share: float = 1.0


class DeploymentPlan(msgspec.Struct, frozen=True):
    """One callable target: the public models that it serves, its limits, how it charges.

    Deployments that name the same ``pool`` share its limits (an organisation's, a project's);
    the first of them that has limits states them. Without a name it has a pool of its own.
    ``cost`` is what a typical call costs there, in any unit that all deployments of a model
    share; the cheaper one is taken where both have room.
    """

    name: str
    models: tuple[str, ...]
    limits: LimitsPlan = LimitsPlan()
    charge: ChargeModel = ChargeModel()
    pool: str | None = None
    cost: float = 0.0

    @property
    def pool_name(self) -> str:
        """The pool whose limits hold; a deployment's own has a name that no shared one has."""
        return f"pool {self.pool}" if self.pool else f"deployment {self.name}"


class Plan(msgspec.Struct, frozen=True):
    """Everything. A tenant that is not named has weight 1 and no limits of its own.

    Of ``tenant_limits`` requests and tokens a minute and concurrency count (``allowance``).
    """

    classes: tuple[ClassPlan, ...]
    deployments: tuple[DeploymentPlan, ...]
    tenant_weights: dict[str, float] = {}
    tenant_limits: dict[str, LimitsPlan] = {}
