"""Discrete events in virtual time: runs arrive, a policy sends, providers admit and answer.

The classic event list (a heap of times, ties by order of entry), so that the same seed gives
the same sequence of decisions, to the last bit; ``Result.digest`` is a hash over it. Nothing
here decides what goes when: that is a :class:`Policy`, one of which drives the real scheduler.

A call's way: ``ready`` at the policy, ``send`` to a site, one way later admission by its
:class:`ProviderWorld`, then either a 429 back or the first token, output charged second by
second where the provider does so, and the end. The next step of its run is ready after the
end and its tool's time.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Protocol

import msgspec

from penstock.limits.days import DAY_LIMITS
from penstock.providers.base import Failure, FailureKind
from penstock.simulate.provider_world import (
    Admitted,
    Denied,
    ProviderCall,
    ProviderLimits,
    ProviderWorld,
)
from penstock.simulate.record import Record
from penstock.simulate.runs import Call, Ending, Run
from penstock.simulate.scenario import Scenario, Site
from penstock.units import CONCURRENCY, RPD, RPM, ChargeModel, LimitName, LimitReading, Usage

DRAIN_SECONDS = 900.0
"""How long urgent runs are given to end after the last arrival; what is left then has failed."""

PRODUCED_EVERY_SECONDS = 1.0
"""Output that is charged as it is produced is charged so often."""

HIDDEN_EVERY_SECONDS = 0.5
"""How often the hidden consumer sends."""

ANTHROPIC_ROUNDING = 1_000
"""Its token headers are rounded to thousands."""

_DECISION = struct.Struct("<dII")
"""What the hash takes of a sending: when, which call, to which site."""


class Head(msgspec.Struct, frozen=True):
    """What arrives first of an answer; ``readings`` only where the policy reads headers."""

    call: Call
    sent_at: float
    readings: tuple[LimitReading, ...] = ()


class Policy(Protocol):
    """Who decides what is sent when. It calls ``Simulation.send`` and ``give_up``."""

    reads_headers: bool

    def ready(self, call: Call) -> None:
        """A call may be sent from now on."""

    def answered(self, head: Head) -> None:
        """The head of a good answer is here; only where ``reads_headers``."""

    def failed(self, head: Head, failure: Failure) -> None:
        """The provider refused the call, or could not take it: it waits again."""

    def ended(self, call: Call) -> None:
        """The whole answer is here."""


class Simulation:
    """One scenario under one policy."""

    def __init__(
        self,
        scenario: Scenario,
        make_policy: Callable[[Simulation], Policy],
        *,
        with_picture: bool = False,
        make_world: Callable[[ProviderLimits, ChargeModel], ProviderWorld] = ProviderWorld,
    ) -> None:
        self.now = 0.0
        self.scenario = scenario
        self.random = Random(scenario.seed)  # noqa: S311 - seeded chance, no secret
        accounts = {
            name: make_world(scenario.sites[number].limits, scenario.sites[number].plan.charge)
            for name, number in scenario.pools().items()
        }
        self.worlds = [accounts[site.plan.pool_name] for site in scenario.sites]
        self.record = Record(scenario, self.worlds)
        self._heap: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._sequence = 0
        self._calls = 0
        last_urgent = self.record.first_rank + 1
        self._urgent = {each.name for each in scenario.classes if each.rank <= last_urgent}
        self._urgent_left = 0
        self._digest = hashlib.sha256()
        self._timing = scenario.timing
        self._disturbances = scenario.disturbances
        self.policy = make_policy(self)
        self._with_picture = with_picture

    def at(self, time: float, action: Callable[..., None], *arguments: object) -> None:
        """Do something then, after all that was planned for the same time before."""
        self._sequence += 1
        heappush(self._heap, (time, self._sequence, action, arguments))

    def run(self) -> str:
        """Play everything; the hash of all decisions."""
        scenario = self.scenario
        for run in scenario.runs:
            self._urgent_left += run.class_name in self._urgent
            self.at(run.arrival, self._arrive, run)
        for time in (scenario.settling_seconds, scenario.seconds):
            self.at(time, self.record.mark, time)
        if self._disturbances.hidden_share:
            for site in scenario.pools().values():
                self.at(0.0, self._hidden, site, Random(scenario.seed + 1 + site))  # noqa: S311 - as above
        if self._with_picture:
            self.at(0.0, self._sample)
        heap = self._heap
        latest = scenario.seconds + DRAIN_SECONDS
        while heap:
            time, _, action, arguments = heappop(heap)
            if time > latest or (time > scenario.seconds and not self._urgent_left):
                break
            self.now = time
            action(*arguments)
        self.record.close(self.now)
        return self._digest.hexdigest()

    def send(self, call: Call, site: int) -> None:
        """Send a call to a site now; what becomes of it the policy is told."""
        self._depart(call, site)
        self.at(self.now + self._one_way(), self._reach, call, self.now)

    def send_exactly(self, call: Call, site: int) -> float:
        """Send a call that the provider is known to admit now; else how long it would refuse.

        For bounds only: nobody can look into a provider's books. Zero where it was sent,
        infinity where only the end of another call makes room.
        """
        outage, storm = self._disturbances.outage, self._disturbances.storm
        for span in (outage, storm):
            if span is not None and span.holds(self.now):
                return span.end_seconds - self.now
        answer = self.worlds[site].admit(self.now, call.provider_call)
        if isinstance(answer, Denied):
            wait_seconds = answer.retry_after_seconds
            return math.inf if wait_seconds is None else max(wait_seconds, 1e-6)
        self._depart(call, site)
        self._accept(call, self.now, answer, self._timing.one_way_seconds)
        return 0.0

    def give_up(self, call: Call, ending: Ending) -> None:
        """A waiting call is not sent any more; its run ends with it."""
        call.ending = ending
        call.ended_at = self.now
        self.record.gave_up(call, self.now)
        self._end_run(call.run)

    def _depart(self, call: Call, site: int) -> None:
        call.attempts += 1
        call.site = site
        self.record.sent(self.now)
        self._digest.update(_DECISION.pack(self.now, call.identity, site))

    def _one_way(self) -> float:
        return self._timing.one_way_seconds + self._timing.jitter_seconds * self.random.random()

    def _arrive(self, run: Run) -> None:
        self._ready(run, 0)

    def _ready(self, run: Run, step_number: int) -> None:
        call = Call(run, step_number, self._calls, self.now)
        self._calls += 1
        noise = self._disturbances.estimate_noise
        if noise:
            # By the call, not by the order of events: each policy sees the same estimates.
            chance = Random(f"{self.scenario.seed} {call.name}")  # noqa: S311 - as above
            factor = math.exp(chance.gauss(0.0, noise))
            call.tokens_input_estimated = max(1, round(call.step.tokens_input * factor))
        self.record.ready(call, self.now)
        self.policy.ready(call)

    def _reach(self, call: Call, sent_at: float) -> None:
        """A request reaches the provider's limiter."""
        failure = self._trouble()
        if failure is not None:
            self.at(self.now + self._one_way(), self._back, Head(call, sent_at), failure)
            return
        answer = self.worlds[call.site].admit(self.now, call.provider_call)
        if isinstance(answer, Admitted):
            self._accept(call, sent_at, answer, 0.0)
            return
        readings = self._readings(call.site) if self.policy.reads_headers else ()
        failure = _denial(self.scenario.sites[call.site], answer)
        self.at(self.now + self._one_way(), self._back, Head(call, sent_at, readings), failure)

    def _trouble(self) -> Failure | None:
        outage, storm = self._disturbances.outage, self._disturbances.storm
        if outage is not None and outage.holds(self.now):
            return Failure(FailureKind.OVERLOADED)
        is_storm = storm is not None and storm.holds(self.now)
        if is_storm and self.random.random() < self._disturbances.storm_share:
            return Failure(FailureKind.RATE)
        return None

    def _back(self, head: Head, failure: Failure) -> None:
        """A refusal is back at the caller."""
        self.record.refused(failure, self.now)
        self.policy.failed(head, failure)

    def _accept(self, call: Call, sent_at: float, admitted: Admitted, delay_seconds: float) -> None:
        site = call.site
        call.accepted_at = sent_at
        self.record.accepted(call, self.now)
        first_at = self.now + delay_seconds + self._timing.first_after(call.step)
        end_at = first_at + self._timing.rest_after(call.step)
        if self.policy.reads_headers:
            late = self._disturbances.reorder_seconds
            way = self._one_way() + (late * self.random.random() if late else 0.0)
            self.at(first_at + way, self.policy.answered, Head(call, sent_at, self._readings(site)))
        output = call.step.tokens_output
        pieces = 1
        if self.scenario.sites[site].is_anthropic:
            pieces = max(1, math.ceil((end_at - first_at) / PRODUCED_EVERY_SECONDS))
        produced = 0
        for piece in range(1, pieces):
            time = first_at + (end_at - first_at) * piece / pieces
            due = output * piece // pieces
            self.at(time, self._produce, site, admitted, due - produced)
            produced = due
        self.at(end_at, self._finish, call, admitted, output - produced)

    def _produce(self, site: int, admitted: Admitted, tokens: int) -> None:
        self.worlds[site].produced(self.now, admitted, tokens)
        self.record.produced(self.now)

    def _finish(self, call: Call, admitted: Admitted, tokens: int) -> None:
        """The provider's last token leaves."""
        world = self.worlds[call.site]
        world.produced(self.now, admitted, tokens)
        world.finished(self.now, admitted, call.usage)
        self.at(self.now + self._timing.one_way_seconds, self._end, call)

    def _end(self, call: Call) -> None:
        call.ended_at = self.now
        call.ending = Ending.SUCCESS
        self.policy.ended(call)
        if call.is_last:
            self._end_run(call.run)
        else:
            following = call.run.steps[call.step_number + 1]
            self.at(self.now + following.tool_seconds, self._ready, call.run, call.step_number + 1)

    def _end_run(self, run: Run) -> None:
        self._urgent_left -= run.class_name in self._urgent

    def _readings(self, site: int) -> tuple[LimitReading, ...]:
        """The limit headers as of now, as our adapters would read them."""
        readings = self.worlds[site].remaining(self.now)
        readings.pop(CONCURRENCY, None)
        is_anthropic = self.scenario.sites[site].is_anthropic
        skew = self._disturbances.clock_skew_seconds
        if not is_anthropic and not skew:
            return tuple(readings.values())
        return tuple(
            [
                _reworded(reading, skew, is_rounded=is_anthropic and name not in _BY_REQUEST)
                for name, reading in readings.items()
            ]
        )

    def _hidden(self, site: int, chance: Random) -> None:
        """Somebody else takes their share of every limit, in calls of the usual size."""
        if self.now < self.scenario.seconds:
            self.at(
                self.now + HIDDEN_EVERY_SECONDS * 2 * chance.random(), self._hidden, site, chance
            )
        world, rates = self.worlds[site], self.scenario.sites[site].rates()
        tokens = self._disturbances.hidden_share * HIDDEN_EVERY_SECONDS * _token_rate(rates)
        answer = world.admit(self.now, ProviderCall(max(1, round(tokens)), 0))
        if isinstance(answer, Admitted):
            world.finished(self.now, answer, Usage(answer.tokens_input, 0))

    def _sample(self) -> None:
        self.record.sample(self.now)
        if self.now < self.scenario.seconds:
            self.at(self.now + self.scenario.seconds / 600, self._sample)


_BY_REQUEST = frozenset({RPM, RPD})


def _token_rate(rates: dict[LimitName, float]) -> float:
    """Input tokens a second that the limits allow."""
    return min(
        (rates[name] for name in (LimitName.ITPM, LimitName.TPM) if name in rates), default=0.0
    )


def _reworded(reading: LimitReading, skew: float, *, is_rounded: bool) -> LimitReading:
    remaining = reading.remaining
    if is_rounded and remaining is not None:
        remaining = round(remaining / ANTHROPIC_ROUNDING) * float(ANTHROPIC_ROUNDING)
    return LimitReading(
        reading.limit,
        reading.capacity,
        remaining,
        max(0.0, (reading.reset_seconds or 0.0) + skew),
        float(ANTHROPIC_ROUNDING) if is_rounded else 1.0,
    )


def _denial(site: Site, denied: Denied) -> Failure:
    """A 429 as our adapters would classify it."""
    wait_seconds = denied.retry_after_seconds
    if wait_seconds is not None:
        # Anthropic's retry-after is in whole seconds, OpenAI's retry-after-ms in milliseconds.
        scale = 1.0 if site.is_anthropic else 1_000.0
        wait_seconds = max(1, math.ceil(round(wait_seconds * scale, 3))) / scale
    kind = FailureKind.RATE
    if denied.too_large:
        kind = FailureKind.REJECTED
    elif denied.limit in DAY_LIMITS:
        kind = FailureKind.DAY
    return Failure(kind, wait_seconds, denied.limit)
