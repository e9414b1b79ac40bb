"""Workers and the front are killed under durable runs: nothing is lost or paid for twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "durable_runs.py"


def test_killed_again_and_again_every_run_ends_once_and_pays_for_what_was_in_flight_only():
    options = ["--runs", "6", "--kills", "3", "--call-seconds", "0.3", "--between", "0.6"]
    finished = subprocess.run(
        [sys.executable, str(BENCHMARK), *options, "--slack", "2", "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    figures = json.loads(finished.stdout)

    assert figures["runs_ended_right"] == figures["runs"] == 6
    assert (
        figures["calls_paid"] - figures["calls_needed"]
        == (figures["calls_in_flight_at_a_kill_and_repeated"])
    )
    assert figures["calls_repeated_without_reason"] == 0
