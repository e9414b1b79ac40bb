"""A whole day against a day's limit: urgent calls as if alone, and nothing left at its end."""

from __future__ import annotations

from random import Random

import pytest

from penstock.simulate.provider_world import ProviderLimits
from penstock.simulate.report import play
from penstock.units import PERIOD_SECONDS, LimitName

DAY_SECONDS = PERIOD_SECONDS[LimitName.RPD]
PER_DAY = 1_000
"""With the full bucket of its beginning a day gives twice as many."""


@pytest.mark.parametrize(
    ("limits", "urgent"),
    [
        (ProviderLimits(rpm=600, rpd=PER_DAY), 0.25),
        (ProviderLimits(rpm=600, rpd=PER_DAY), 0.6),
        (ProviderLimits(rpm=600, tpd=100 * PER_DAY), 0.5),
    ],
)
def test_batch_gets_what_urgent_calls_leave_of_a_day(worlds, limits, urgent):
    """Poisson arrivals of a share of the limit; more batch from the first moment than it holds."""
    chance, now = Random(3), 0.0
    runs = [worlds.run(f"b{n}", n * 0.01, "batch") for n in range(2 * PER_DAY)]
    while (now := now + chance.expovariate(urgent * PER_DAY / DAY_SECONDS)) < DAY_SECONDS:
        runs.append(worlds.run(f"i{len(runs)}", now))
    scenario = worlds.scenario(runs, limits, seconds=DAY_SECONDS)
    ours, alone = play(scenario, "penstock"), play(scenario, "alone-fifo")

    assert ours.binding in ("rpd", "tpd")
    assert ours.wait.p99 <= alone.wait.p99 + 0.1
    assert ours.use >= 0.99
    assert ours.lost == 0.0
    assert ours.failures == 0
    assert ours.answers_429 <= 0.001 * ours.attempts


def test_urgent_calls_that_come_when_the_day_is_used_up_go_before_batch(worlds):
    """Nobody forecast them; from then on the refill is theirs, but for batch's own share."""
    runs = [worlds.run(f"b{n}", n * 0.01, "batch") for n in range(2 * PER_DAY)]
    runs += [worlds.run(f"i{n}", 30_000.0 + 200.0 * n) for n in range(100)]
    scenario = worlds.scenario(runs, ProviderLimits(rpm=600, rpd=PER_DAY), seconds=60_000.0)
    ours = play(scenario, "penstock")

    assert ours.failures == 0
    assert ours.wait.p99 <= 0.1
