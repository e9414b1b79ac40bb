"""The benchmark that holds the simulator to the truth can be run, and all of it is answered."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "live_equals_simulated.py"


def test_the_same_scenario_is_played_live_and_simulated_without_failures():
    finished = subprocess.run(
        [sys.executable, str(BENCHMARK), "--seconds", "15", "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    # Whether the times agree is for a quiet machine to say, and for the exit code.
    assert finished.returncode in (0, 1), finished.stderr
    assert finished.stdout, finished.stderr
    report = json.loads(finished.stdout)
    lines = {line["name"]: line for line in report["lines"]}

    assert report["calls_interactive"] > report["chains"] > 0
    assert lines["failures"]["live"] == lines["failures"]["simulated"] == 0
    assert lines["standard goodput"]["live"] > 0
    assert lines["use of the limit"]["live"] > 0
    assert report["agrees"] == (finished.returncode == 0)
