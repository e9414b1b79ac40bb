"""The example that explains the product shows what it is said to show."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[3] / "examples" / "rush_hour.py"


def test_people_are_answered_while_a_batch_uses_the_rest_of_the_limit():
    finished = subprocess.run(
        [sys.executable, str(EXAMPLE), "--seconds", "6", "--json"],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    figures = json.loads(finished.stdout)
    penstock, straight = figures["penstock"], figures["straight"]

    assert penstock["interactive_calls"] == straight["interactive_calls"] > 0
    assert 1.0 == penstock["interactive_success"] == penstock["chain_success"]
    assert penstock["limit_use"] > 0.9
    assert penstock["answers_429"] < 10 < straight["answers_429"]
