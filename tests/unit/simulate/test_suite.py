"""The suite: which cells there are, and that a cell is the same wherever it is played."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from penstock.errors import ConfigError
from penstock.simulate.disturbances import NAMED
from penstock.simulate.policies.table import NEEDED
from penstock.simulate.report import binding_limit
from penstock.simulate.suite import (
    BEYOND,
    DAYS,
    TRACES,
    cell_table,
    cells,
    play_all,
    play_cell,
    policy_table,
    rows_of,
    samples,
)
from penstock.simulate.workloads import Shape, scenario_of


def test_every_trace_is_played_under_every_load_burst_and_charge():
    chosen = cells(samples(), Shape())
    plain = [cell for cell in chosen if not cell.special]

    assert {Path(cell.workload).stem for cell in plain} == set(TRACES)
    assert len(plain) == 5 * 3 * 4 * 2
    assert len({cell.name for cell in chosen}) == len(chosen)
    assert {cell.special for cell in chosen} == {"", *BEYOND, *NAMED, *DAYS} - {"none"}


def test_a_directory_without_traces_is_told(tmp_path):
    with pytest.raises(ConfigError, match="no trace"):
        cells(tmp_path, Shape())


def test_processes_change_nothing():
    chosen = [
        cell
        for cell in cells(samples(), Shape(seconds=120.0))
        if cell.name == "azure2023_code 1.2x 10s openai"
    ]
    policies = NEEDED

    alone = play_cell(chosen[0], policies)
    [(number, apart)] = play_all(chosen, policies)
    assert number == 0
    assert msgspec.to_builtins(apart) == msgspec.to_builtins(alone)
    assert {len(line) for line in cell_table([alone])} == {len(cell_table([])[0])}
    assert len(policy_table([alone])) == 1 + len(policies)


@pytest.mark.parametrize("special", list(BEYOND))
def test_what_is_beyond_the_grid_is_what_it_says(special):
    [cell] = [
        cell
        for cell in cells(samples(), Shape(seconds=60.0))
        if cell.special == special and cell.workload == "bursts" and cell.shape.charge == "openai"
    ]
    scenario = scenario_of(cell.name, rows_of(cell.workload, 60.0, 0), cell.shape)

    pools = scenario.pools()
    assert (len(pools), len(scenario.sites)) == {
        "two-accounts": (2, 2),
        "shared-account": (1, 3),
        "accounts-and-deployments": (2, 4),
    }.get(special, (1, 1))
    expected = {
        "slots": "concurrency",
        "requests-by-second": "rpm",
        "requests-by-10s": "rpm",
    }.get(special, "tpm")
    assert binding_limit(scenario) == expected
    assert play_cell(cell, NEEDED).figures[0].failures == 0


def test_a_day_s_cell_is_a_whole_day_whose_limit_binds():
    """Played four times slower than in the suite, so that it is short."""
    cell = next(each for each in cells(samples(), Shape()) if each.special == "day's tokens")
    shape = msgspec.structs.replace(cell.shape, slower=400.0)
    result = play_cell(msgspec.structs.replace(cell, shape=shape), NEEDED)
    ours = result.figures[0]

    assert cell.shape.seconds == 86_400.0
    assert ours.binding == "tpd"
    assert ours.wait.count > 400
    assert ours.wait.p99 <= 0.1
    assert {gate.name for gate in result.gates} >= {"use", "wait p99", "goodput", "failures"}
    assert [gate for gate in result.gates if not gate.holds and gate.name != "goodput"] == []
