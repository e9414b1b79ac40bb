"""Workloads: rows out of files and patterns, and worlds with the load that was asked for."""

from __future__ import annotations

from random import Random

import pytest

from penstock.simulate.report import binding_limit
from penstock.simulate.rows import Row, read_rows
from penstock.simulate.scenario import charged_amounts
from penstock.simulate.suite import TRACES, samples
from penstock.simulate.workloads import (
    SYNTHETIC,
    Shape,
    scenario_of,
    synthetic_rows,
)


def share_of(scenario, class_name=None):
    """What a class, or all, takes of the binding limit."""
    limit = binding_limit(scenario)
    site = scenario.sites[0]
    taken = sum(
        charged_amounts(site.plan.charge, step[:3])[limit]
        for run in scenario.runs
        if class_name in (None, run.class_name)
        for step in run.steps
    )
    return taken / (site.rates()[limit] * scenario.seconds)


@pytest.mark.parametrize("workload", [*TRACES, *SYNTHETIC])
@pytest.mark.parametrize("charge", ["anthropic", "openai"])
def test_a_world_has_the_load_that_was_asked_for(workload, charge):
    if workload in SYNTHETIC:
        rows = synthetic_rows(workload, 600.0, 0)
    else:
        rows = read_rows(samples() / f"{workload}.csv")
    scenario = scenario_of(workload, rows, Shape(load=1.2, charge=charge))

    assert share_of(scenario) == pytest.approx(1.2, rel=0.05)
    assert 0.3 <= share_of(scenario, "interactive") <= 0.4
    assert share_of(scenario, "standard") == pytest.approx(0.1, rel=0.1)


def test_every_call_fits_the_smallest_burst():
    rows = read_rows(samples() / "servegen_tenants.csv")
    for charge in ("anthropic", "openai"):
        scenario = scenario_of("w", rows, Shape(burst_seconds=2.0, charge=charge))
        site = scenario.sites[0]
        for run in scenario.runs:
            for step in run.steps:
                amounts = charged_amounts(site.plan.charge, step[:3])
                assert amounts["tpm"] <= site.rates().get("tpm", 1e9) * 2.0
                assert amounts["itpm"] <= site.rates().get("itpm", 1e9) * 2.0


def test_the_seed_decides_everything_and_the_load_changes_no_interactive_run():
    rows = read_rows(samples() / "azure2023_code.csv")
    one, same, other = (scenario_of("w", rows, Shape(seed=seed)) for seed in (1, 1, 2))
    heavier = scenario_of("w", rows, Shape(seed=1, load=3.0))

    assert one.runs == same.runs
    assert one.runs != other.runs
    assert one.alone().runs == heavier.alone().runs


def test_a_workload_may_begin_later():
    rows = [Row(float(n), n + 1, 10) for n in range(4_000)]
    scenario = scenario_of("w", rows, Shape(seconds=60.0, begin_seconds=900.0))

    # The rows are played two and a half times as fast.
    first = min(scenario.alone().runs, key=lambda run: run.arrival).steps[0]
    assert first.tokens_input == 901


def test_rows_of_one_session_are_chains_of_up_to_five():
    rows = [Row(float(n), 100, 10, session="a") for n in range(7)]
    rows += [Row(n / 3 + 0.1, 100, 10, session=f"alone-{n}") for n in range(200)]
    scenario = scenario_of("w", sorted(rows), Shape(seconds=60.0))
    steps = [len(run.steps) for run in scenario.alone().runs]

    assert sorted(steps, reverse=True)[:3] == [5, 2, 1]


def test_a_thin_trace_is_played_faster():
    rows = [Row(n * 100.0, 100, 10) for n in range(1_000)]
    scenario = scenario_of("w", rows, Shape(seconds=300.0))

    assert sum(len(run.steps) for run in scenario.alone().runs) == pytest.approx(750, abs=10)


@pytest.mark.parametrize("name", SYNTHETIC)
def test_a_pattern_is_seeded_and_in_order(name):
    rows = SYNTHETIC[name](600.0, Random(3))

    assert rows == SYNTHETIC[name](600.0, Random(3))
    assert rows == sorted(rows, key=lambda row: row.at)
    assert 900 <= len(rows) <= 6_000
