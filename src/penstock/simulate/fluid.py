"""The fluid limit: what nobody can beat, whatever the order and however small the calls.

A bucket of capacity ``B`` and rate ``r`` lets at most ``B + r t`` through in any time ``t``
(Cruz, "A calculus for network delay", 1991: the arrival curve of a leaky bucket). Two bounds
follow from it.

**Use.** In a counted time ``T`` no order takes more of a limit than ``B + r T``, nor more than
is asked of it; ``n`` windows of capacity ``C`` that touch that time give ``n C``. (Output that is
charged as it is produced can overdraw either by what is under way at the end.)

**Waits.** Let calls be divided at will, as a fluid is, and be served in the order in which they
come. A call then begins to pass as soon as all before it has passed, which is when no limit is
overdrawn; the whole of it need not be there. What is charged stays the same (a window forgives
what the last call in it overdrew), so with whole calls, first come, first served, nobody waits
less. ``FluidWorld`` is a provider that admits so; played with the interactive calls alone it shows
what of their wait is due to the limit itself, and the difference to ``alone-fifo`` what is due to
calls being whole.

Rejected: fluid *shortest remaining first*. It bounds the mean of chains if all steps of a chain
could be had at once; with tools between them it lies so low that it says nothing.
"""

from __future__ import annotations

import math

from penstock.simulate.provider_world import ProviderCall, ProviderWorld
from penstock.simulate.scenario import Scenario, charged_amounts
from penstock.units import PERIOD_SECONDS, LimitName


class FluidWorld(ProviderWorld):
    """A provider that admits a call as soon as nothing is overdrawn, and lets it overdraw."""

    def _room(self, name: LimitName, call: ProviderCall) -> float:  # noqa: ARG002 - overrides
        return 0.0


def use_at_most(scenario: Scenario, limit: LimitName) -> float:
    """The largest share of a limit's refill in the counted time that could have been taken."""
    begin, end = scenario.settling_seconds, scenario.seconds
    steps = [step for run in scenario.runs for step in run.steps]
    if limit is LimitName.CONCURRENCY:
        held_seconds = sum(scenario.timing.answer_seconds(step) for step in steps)
        return min(1.0, held_seconds / ((scenario.slots() or 1) * (end - begin)))
    at_most = 0.0
    for number in scenario.pools().values():
        site = scenario.sites[number]
        rate = site.rates().get(limit, 0.0)
        period_seconds = PERIOD_SECONDS[limit]
        if site.limits.fixed_window:
            windows = math.ceil(end / period_seconds) - math.floor(begin / period_seconds)
            at_most += windows * rate * period_seconds
        else:
            held = site.limits.burst_seconds if period_seconds == 60.0 else period_seconds
            at_most += rate * (end - begin + held)
    charge = scenario.sites[0].plan.charge
    asked = sum(charged_amounts(charge, step[:3])[limit] for step in steps)
    given = scenario.given(limit)
    return min(at_most, asked) / given if given else 0.0
