"""What a deployment takes for a unit, by its plan."""

from __future__ import annotations

from penstock.limits.pool import LimitsPlan, Pool
from penstock.scheduler.deployment import Deployment
from penstock.scheduler.plan import DeploymentPlan
from penstock.units import OTPM, TPM, ChargeModel, Estimate

ESTIMATE = Estimate(100, 50, 400)


def plan_with(output_at_admission):
    return DeploymentPlan("one", ("m",), charge=ChargeModel(output_at_admission))


def pool_of(*limits):
    return Pool(LimitsPlan(dict.fromkeys(limits, 60_000.0)), 0.0)


def test_the_same_estimate_is_charged_by_the_plan_of_the_moment():
    deployment = Deployment(plan_with("maximum"), pool_of(TPM))
    assert 400 == deployment.amounts(ESTIMATE)[TPM]
    deployment.adopt(plan_with("sum"), pool_of(TPM))
    assert 500 == deployment.amounts(ESTIMATE)[TPM]


def test_what_a_class_has_produced_corrects_its_next_unit_and_no_other_class():
    deployment = Deployment(plan_with("none"), pool_of(OTPM))
    for _ in range(500):
        deployment.produced("batch", ESTIMATE, 100)
    assert 50 == deployment.amounts(ESTIMATE)[OTPM]
    assert 99 < deployment.amounts(ESTIMATE, "batch")[OTPM] <= 100
    assert 50 == deployment.amounts(ESTIMATE, "interactive")[OTPM]
