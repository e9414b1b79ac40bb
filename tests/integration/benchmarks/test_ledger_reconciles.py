"""The provider and the ledger agree on every call, whoever hung up and whatever failed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "ledger_reconciles.py"


def test_the_ledger_agrees_with_the_provider_to_the_token():
    finished = subprocess.run(
        [sys.executable, str(BENCHMARK), "--calls", "300", "--seed", "0", "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert finished.returncode == 0, finished.stdout[-5_000:] + finished.stderr
    figures = json.loads(finished.stdout)
    groups = figures["groups"]

    assert figures["wrong"] == []
    assert figures["is_idle"]
    assert sum(one["calls"] for one in groups.values()) >= 280
    assert groups.keys() >= {"whole", "cut off", "never sent", "failed"}
    whole = groups["whole"]
    assert whole["ledger_input"] == whole["provider_input"] > 1_000
    assert whole["ledger_output"] == whole["provider_output"] > 1_000
    # The rule is 100 ms for each; other tests share the machine with this one.
    assert figures["wait_ended_ms"]["count"] >= 10
    assert figures["wait_ended_ms"]["p50"] <= 100
    assert figures["upstream_ended_ms"]["p50"] <= 500
