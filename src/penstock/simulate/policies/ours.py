"""The real scheduler in virtual time: told what the dispatcher would tell it, obeyed as there.

Events of one moment are taken in one tick, as the dispatcher takes those of one turn of its
loop; what a failure means is the dispatcher's own table (``scheduler.retries``). Output is
estimated as the gateway does, by what a tenant's calls of a class have produced so far.
"""

from __future__ import annotations

from penstock.providers.base import Failure
from penstock.scheduler.events import Event, Failed, Observed, Settled, Submitted
from penstock.scheduler.retries import consequence, may_retry
from penstock.scheduler.scheduler import Scheduler
from penstock.simulate.engine import Head, Simulation
from penstock.simulate.runs import Call, Ending
from penstock.units import Estimate, LimitName, RunPlace, Unit

LEARNING_RATE = 0.1
TOKENS_OUTPUT_PRIOR = 256.0
"""What a call is taken to produce before its tenant has shown anything."""


class Ours:
    """Drives a :class:`Scheduler`."""

    reads_headers = True

    def __init__(self, simulation: Simulation) -> None:
        self.scheduler = Scheduler(simulation.scenario.plan(), 0.0)
        self._simulation = simulation
        self._sites = {site.plan.name: n for n, site in enumerate(simulation.scenario.sites)}
        self._names = [site.plan.name for site in simulation.scenario.sites]
        self._calls: dict[str, Call] = {}
        self._events: list[Event] = []
        self._wake_at: float | None = None
        self._will_tick = False
        self._output: dict[tuple[str, str], float] = {}

    def ready(self, call: Call) -> None:
        """Submit it."""
        run = call.run
        self._calls[call.name] = call
        expected = self._output.get((run.tenant, run.class_name), TOKENS_OUTPUT_PRIOR)
        output_max = call.step.tokens_output_max
        estimate = Estimate(
            call.tokens_input_estimated, max(1, min(round(expected), output_max)), output_max
        )
        # As live: the scheduler knows that it is a chain, and learns how many steps those have.
        chain = "chain" if len(run.steps) > 1 else ""
        place = RunPlace(run.name, run.arrival, call.step_number, chain)
        self._post(
            Submitted(
                Unit(
                    unit_id=call.name,
                    model=run.model,
                    tenant=run.tenant,
                    class_name=run.class_name,
                    estimate=estimate,
                    place=place,
                    deadline=call.deadline,
                )
            )
        )

    def answered(self, head: Head) -> None:
        """Headers."""
        name = self._names[head.call.site]
        self._post(Observed(name, head.sent_at, head.readings, accepted=True))

    def failed(self, head: Head, failure: Failure) -> None:
        """A refusal: what it teaches, then back to its place, or the end."""
        call = head.call
        name = self._names[call.site]
        requeue = may_retry(failure.kind, call.attempts)
        self._post(Failed(call.name, requeue))
        if head.readings:
            self._post(Observed(name, head.sent_at, head.readings))
        learnt = consequence(failure, name)
        if learnt is not None:
            self._post(learnt)
        if not requeue:
            del self._calls[call.name]
            self._simulation.give_up(call, Ending.GAVE_UP)

    def ended(self, call: Call) -> None:
        """Settle."""
        usage = call.usage
        del self._calls[call.name]
        key = (call.run.tenant, call.run.class_name)
        known = self._output.get(key, TOKENS_OUTPUT_PRIOR)
        self._output[key] = known + LEARNING_RATE * (usage.tokens_output - known)
        self._post(Settled(call.name, usage))

    def reserves(self, site: int) -> dict[LimitName, float]:
        """What the least urgent class leaves of each of a site's limits, for the picture."""
        pool = self.scheduler.deployment(self._names[site]).pool
        return {limit: pool.reserve_of(limit) for limit in pool.buckets}

    def _post(self, event: Event) -> None:
        self._events.append(event)
        if not self._will_tick:
            self._will_tick = True
            self._simulation.at(self._simulation.now, self._tick)

    def _wake(self, at: float) -> None:
        if at == self._wake_at and not self._will_tick:
            self._tick()

    def _tick(self) -> None:
        self._will_tick = False
        simulation = self._simulation
        events, self._events = self._events, []
        decisions = self.scheduler.tick(simulation.now, events)
        for grant in decisions.grants:
            simulation.send(self._calls[grant.unit_id], self._sites[grant.deployment])
        for refusal in decisions.refusals:
            simulation.give_up(self._calls.pop(refusal.unit_id), Ending.REFUSED)
        for eviction in decisions.evictions:
            simulation.give_up(self._calls.pop(eviction.unit_id), Ending.EVICTED)
        if decisions.wake_at is not None and decisions.wake_at != self._wake_at:
            self._wake_at = decisions.wake_at
            simulation.at(max(simulation.now, self._wake_at), self._wake, self._wake_at)
