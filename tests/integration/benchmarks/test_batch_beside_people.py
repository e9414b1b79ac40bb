"""A batch runs beside people, and is killed in between: every line is answered and paid once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "batch_beside_people.py"


def test_a_batch_that_is_killed_and_taken_up_answers_every_line_once_while_people_do_not_wait():
    options = ["--lines", "300", "--rpm", "6000", "--alone-seconds", "2"]
    finished = subprocess.run(
        [sys.executable, str(BENCHMARK), *options, "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    figures = json.loads(finished.stdout)

    assert figures["status"] == "completed"
    assert figures["lines_answered_once"] == figures["lines"] == 300
    assert figures["lines_answered_more_than_once"] == figures["lines_failed"] == 0
    assert 0 < figures["lines_on_disk_at_the_kill"] < 300
    assert figures["lines_repeated"] == figures["lines_in_flight_at_the_kill"]
