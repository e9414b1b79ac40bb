"""One line for all calls: FIFO and strict priority at the exact limit, and the bounds.

What may be sent is known from a *twin*: a :class:`ProviderWorld` with the configured limits,
charged with what the calls are taken to use. It is as good a client-side limiter as can be
written without listening to the provider: it knows the algorithm and the burst capacity.

The bounds look into the provider's own books instead (``send_exactly``), so that no guess and
no way lies between. With only the interactive runs in the world, FIFO's longest wait is the
least that anybody can reach who does not reorder; by runs is the same with the order that ours
has within a tenant, so that what ours waits beyond it is due to other classes or to what it does
not know; shortest-remaining is the reference for the mean of chains (no proof: it does not
preempt). With the standard runs beside them, after them and by deadline, it is seen how many
deadlines anybody can keep who lets interactive work go first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heappop, heappush

import msgspec

from penstock.providers.base import Failure, FailureKind
from penstock.simulate.engine import Head, Simulation
from penstock.simulate.provider_world import Admitted, Denied, ProviderCall, ProviderWorld
from penstock.simulate.runs import Call, Ending
from penstock.simulate.scenario import Site
from penstock.units import Usage

TWIN_MARGIN_SECONDS = 0.1
"""The twin's burst is smaller than the provider's by so much of its rate: what is on its way."""

PAUSE_SECONDS_UNKNOWN = 1.0
"""After a failure that names no time."""

UNAVAILABLE_ATTEMPTS_MAX = 50

Order = Callable[[Call], tuple[float, ...]]


def by_arrival(call: Call) -> tuple[float, ...]:
    """First come, first served."""
    return (call.ready_at, call.identity)


def by_run(call: Call) -> tuple[float, ...]:
    """The run that came first, whichever step it is at."""
    return (call.run.arrival, call.identity)


def by_remaining(call: Call) -> tuple[float, ...]:
    """The run with the least left to do."""
    steps = call.run.steps[call.step_number :]
    return (sum(step.tokens_input + step.tokens_output for step in steps), call.identity)


class Line:
    """Calls in an order; the first that does not fit holds all behind it."""

    reads_headers = False

    def __init__(self, simulation: Simulation, order: Order) -> None:
        self._simulation = simulation
        self._order = order
        self._waiting: list[tuple[tuple[float, ...], Call]] = []
        self._wake_at = math.inf
        self._paused_until = 0.0

    def ready(self, call: Call) -> None:
        """Join the line."""
        heappush(self._waiting, (self._order(call), call))
        self._serve()

    def answered(self, head: Head) -> None:
        """Headers are not listened to."""

    def failed(self, head: Head, failure: Failure) -> None:
        """Back to its place; the line pauses as long as the provider says."""
        call = head.call
        self._release(call, Usage())
        if failure.kind is FailureKind.REJECTED or call.attempts >= UNAVAILABLE_ATTEMPTS_MAX:
            self._simulation.give_up(call, Ending.GAVE_UP)
            return
        pause_seconds = failure.retry_after_seconds or PAUSE_SECONDS_UNKNOWN
        self._paused_until = max(self._paused_until, self._simulation.now + pause_seconds)
        heappush(self._waiting, (self._order(call), call))
        self._serve()

    def ended(self, call: Call) -> None:
        """What it held is free."""
        self._release(call, call.usage)
        self._serve()

    def _serve(self) -> None:
        simulation = self._simulation
        while self._waiting:
            now = simulation.now
            if now < self._paused_until:
                self._wake(self._paused_until)
                return
            wait_seconds = self._try(self._waiting[0][1])
            if wait_seconds:
                self._wake(now + wait_seconds)
                return
            heappop(self._waiting)

    def _wake(self, at: float) -> None:
        if at < self._wake_at and not math.isinf(at):
            self._wake_at = at
            self._simulation.at(at, self._woken, at)

    def _woken(self, at: float) -> None:
        if at == self._wake_at:
            self._wake_at = math.inf
            self._serve()

    def _try(self, call: Call) -> float:
        """Send it where it fits; else how long until it does."""
        raise NotImplementedError

    def _release(self, call: Call, usage: Usage) -> None:
        """Take note of an ending."""


class Exact(Line):
    """A bound: asks the provider itself."""

    def _try(self, call: Call) -> float:
        simulation = self._simulation
        wait_seconds = math.inf
        for number, site in enumerate(simulation.scenario.sites):
            if call.run.model in site.plan.models:
                site_seconds = simulation.send_exactly(call, number)
                if not site_seconds:
                    return 0.0
                wait_seconds = min(wait_seconds, site_seconds)
        return wait_seconds


class ExactByClass(Exact):
    """A reference: by class, and within one the earliest deadline; who is past his is let go."""

    def _try(self, call: Call) -> float:
        simulation = self._simulation
        if call.deadline is not None and call.deadline < simulation.now:
            simulation.give_up(call, Ending.EVICTED)
            return 0.0
        return super()._try(call)


class Twinned(Line):
    """Keeps its own books of the configured limits."""

    def __init__(self, simulation: Simulation, order: Order) -> None:
        super().__init__(simulation, order)
        scenario = simulation.scenario
        twins = {name: _twin(scenario.sites[number]) for name, number in scenario.pools().items()}
        self._twins = [twins[site.plan.pool_name] for site in scenario.sites]
        self._admitted: dict[int, Admitted] = {}

    def _try(self, call: Call) -> float:
        simulation = self._simulation
        wait_seconds = math.inf
        expected = ProviderCall(call.tokens_input_estimated, call.step.tokens_output_max)
        for number, site in enumerate(simulation.scenario.sites):
            if call.run.model not in site.plan.models:
                continue
            answer = self._twins[number].admit(simulation.now, expected)
            if isinstance(answer, Admitted):
                self._admitted[call.identity] = answer
                simulation.send(call, number)
                return 0.0
            wait_seconds = min(wait_seconds, _twin_wait_seconds(answer))
        if math.isinf(wait_seconds) and not self._admitted:
            # Too large for what is configured: it is sent when nothing else is under way.
            self._admitted[call.identity] = Admitted(0, 0.0)
            simulation.send(call, 0)
            return 0.0
        return wait_seconds

    def _release(self, call: Call, usage: Usage) -> None:
        admitted = self._admitted.pop(call.identity, None)
        if admitted is not None and admitted.tokens_input:
            twin, now = self._twins[call.site], self._simulation.now
            twin.produced(now, admitted, usage.tokens_output)
            twin.finished(now, admitted, usage)


def _twin(site: Site) -> ProviderWorld:
    limits = site.limits
    configured_seconds = site.plan.limits.burst_seconds
    burst_seconds = limits.burst_seconds if configured_seconds is None else configured_seconds
    smaller = msgspec.structs.replace(
        limits, burst_seconds=max(burst_seconds / 2, burst_seconds - TWIN_MARGIN_SECONDS)
    )
    return ProviderWorld(smaller, site.plan.charge)


def _twin_wait_seconds(denied: Denied) -> float:
    wait_seconds = denied.retry_after_seconds
    return math.inf if wait_seconds is None else max(wait_seconds, 1e-6)


def fifo(simulation: Simulation) -> Line:
    """First come, first served at the exact limit, whoever it is."""
    return Twinned(simulation, by_arrival)


def strict_priority(simulation: Simulation) -> Line:
    """The more urgent class always first, nothing kept back for it."""
    rank = simulation.scenario.rank
    return Twinned(simulation, lambda call: (rank(call.run.class_name), *by_arrival(call)))


def bound_fifo(simulation: Simulation) -> Line:
    """To be run on ``Scenario.alone``: what waiting the provider itself causes."""
    return Exact(simulation, by_arrival)


def bound_urgent(simulation: Simulation) -> Line:
    """To be run on ``Scenario.alone(2)``: what interactive work leaves to those with deadlines."""
    rank = simulation.scenario.rank

    def order(call: Call) -> tuple[float, ...]:
        due = call.ready_at if call.deadline is None else call.deadline
        return (rank(call.run.class_name), due, call.identity)

    return ExactByClass(simulation, order)


def bound_runs(simulation: Simulation) -> Line:
    """To be run on ``Scenario.alone``: what the order of runs, as ours is, makes of it."""
    return Exact(simulation, by_run)


def bound_shortest(simulation: Simulation) -> Line:
    """To be run on ``Scenario.alone``: the reference for the mean of chains."""
    return Exact(simulation, by_remaining)
