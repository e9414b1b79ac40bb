"""The suite: which cells there are, and that a cell is the same wherever it is played."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from penstock.errors import ConfigError
from penstock.simulate.policies.table import BOUND, OURS
from penstock.simulate.suite import (
    TRACES,
    cell_table,
    cells,
    play_all,
    play_cell,
    policy_table,
    samples,
)


def test_every_trace_is_played_under_every_load_burst_and_charge():
    chosen = cells(samples(), 600.0, 0)
    plain = [cell for cell in chosen if cell.disturbance == "none"]

    assert {Path(cell.workload).stem for cell in plain} == set(TRACES)
    assert len(plain) == 5 * 3 * 4 * 2
    assert len({cell.name for cell in chosen}) == len(chosen)
    assert {cell.disturbance for cell in chosen} >= {"burst-unknown", "burst-6x", "all"}


def test_a_directory_without_traces_is_told(tmp_path):
    with pytest.raises(ConfigError, match="no trace"):
        cells(tmp_path, 600.0, 0)


def test_processes_change_nothing():
    chosen = [
        cell for cell in cells(samples(), 120.0, 0) if cell.name == "azure2023_code 1.2x 10s openai"
    ]
    policies = (OURS, BOUND)

    alone = play_cell(chosen[0], policies)
    [(number, apart)] = play_all(chosen, policies)
    assert number == 0
    assert msgspec.to_builtins(apart) == msgspec.to_builtins(alone)
    assert {len(line) for line in cell_table([alone])} == {len(cell_table([])[0])}
    assert len(policy_table([alone])) == 1 + len(policies)
