"""What clients do by themselves: send, be refused, and try again.

Modelled on code that was read: the openai package (3.x) tries three times in all, waits what
``retry-after-ms`` or ``retry-after`` say up to 120 s, else 0.5 s doubled up to 8 s with a
quarter of jitter taken off; around it stands what applications add, six rounds of random
exponential waiting (tenacity, 1 to 60 s). Batch jobs run with a pool of workers a tenant,
the others send whenever they like.

``LiteLlmShares`` puts LiteLLM's ``dynamic_rate_limiter_v3`` in front: counters that start
again every minute; below four fifths of the limit everybody is let through, above it each
class up to its share, and who is over is answered 429 with the rest of the minute.

``LangChainLimiter`` puts LangChain's ``InMemoryRateLimiter`` in front: requests a second, a
bucket of one, polled every 0.1 s by all who wait, so that chance decides who is next. Its
rate is the one at which calls of the mean size use the limit.
"""

from __future__ import annotations

import math
from collections import deque

from penstock.providers.base import Failure, FailureKind
from penstock.simulate.engine import Head, Simulation
from penstock.simulate.runs import Call, Ending
from penstock.simulate.scenario import charged_amounts
from penstock.units import LimitName

TRIES_PER_ROUND = 3
ROUNDS_MAX = 6
ROUND_SECONDS_MAX = 60.0
BACKOFF_SECONDS_FIRST = 0.5
BACKOFF_SECONDS_MAX = 8.0
RETRY_AFTER_SECONDS_MAX = 120.0
BATCH_WORKERS = 32
"""Calls that one batch tenant has under way, waiting for a retry included."""

WINDOW_SECONDS = 60.0
SHARED_BELOW = 0.8
CLASS_SHARES = (0.6, 0.25, 0.15)
"""By rank, as an operator would set ``priority_reservation``."""

POLL_SECONDS = 0.1


class SdkRetries:
    """Everybody for themselves."""

    reads_headers = False

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        scenario = simulation.scenario
        self._last_class = max(scenario.classes, key=lambda each: each.rank).name
        self._queued: dict[str, deque[Call]] = {}
        self._busy: dict[str, int] = {}
        self._tries: dict[int, int] = {}
        self._sites = {
            model: [n for n, site in enumerate(scenario.sites) if model in site.plan.models]
            for site in scenario.sites
            for model in site.plan.models
        }

    def ready(self, call: Call) -> None:
        """Send it, or leave it to the next free worker of its tenant."""
        tenant = call.run.tenant
        if call.run.class_name != self._last_class:
            self._begin(call)
        elif self._busy.get(tenant, 0) < BATCH_WORKERS:
            self._busy[tenant] = self._busy.get(tenant, 0) + 1
            self._begin(call)
        else:
            self._queued.setdefault(tenant, deque()).append(call)

    def answered(self, head: Head) -> None:
        """Headers of good answers are not listened to."""

    def failed(self, head: Head, failure: Failure) -> None:
        """Try again, later."""
        self._retry(head.call, failure)

    def ended(self, call: Call) -> None:
        """The worker takes the next call."""
        self._tries.pop(call.identity, None)
        self._next(call)

    def _begin(self, call: Call) -> None:
        """The first try; limiters stand here."""
        self._try(call)

    def _refusal(self, call: Call) -> Failure | None:  # noqa: ARG002 - for those below
        """A 429 from in front of the provider; None lets the call through."""
        return None

    def _try(self, call: Call) -> None:
        self._tries[call.identity] = self._tries.get(call.identity, 0) + 1
        refusal = self._refusal(call)
        if refusal is not None:
            self._retry(call, refusal)
            return
        self._simulation.send(call, self._simulation.random.choice(self._sites[call.run.model]))

    def _retry(self, call: Call, failure: Failure) -> None:
        simulation = self._simulation
        chance = simulation.random.random()
        rounds, tried = divmod(self._tries[call.identity], TRIES_PER_ROUND)
        told_seconds = failure.retry_after_seconds
        if failure.kind is FailureKind.REJECTED or (tried == 0 and rounds == ROUNDS_MAX):
            del self._tries[call.identity]
            simulation.give_up(call, Ending.GAVE_UP)
            self._next(call)
            return
        if tried == 0:
            wait_seconds = chance * min(ROUND_SECONDS_MAX, 2.0**rounds)
        elif told_seconds is not None and told_seconds <= RETRY_AFTER_SECONDS_MAX:
            wait_seconds = told_seconds
        else:
            backoff_seconds = BACKOFF_SECONDS_FIRST * 2.0 ** (tried - 1)
            wait_seconds = min(BACKOFF_SECONDS_MAX, backoff_seconds) * (1 - 0.25 * chance)
        simulation.at(simulation.now + wait_seconds, self._try, call)

    def _next(self, call: Call) -> None:
        if call.run.class_name != self._last_class:
            return
        queued = self._queued.get(call.run.tenant)
        if queued:
            # In a turn of its own: a worker whose calls all fail must not recurse.
            self._simulation.at(self._simulation.now, self._begin, queued.popleft())
        else:
            self._busy[call.run.tenant] -= 1


class LiteLlmShares(SdkRetries):
    """Minute counters with shares for each class above four fifths of the limit."""

    def __init__(self, simulation: Simulation) -> None:
        super().__init__(simulation)
        scenario = simulation.scenario
        self._limits = {limit: rate * WINDOW_SECONDS for limit, rate in scenario.rates().items()}
        self._charge = scenario.sites[0].plan.charge
        self._window = -1
        self._used: dict[tuple[LimitName, str], float] = {}

    def _refusal(self, call: Call) -> Failure | None:
        now = self._simulation.now
        window = math.floor(now / WINDOW_SECONDS)
        if window > self._window:
            self._window = window
            self._used.clear()
        class_name = call.run.class_name
        rank = self._simulation.scenario.rank(class_name)
        share = CLASS_SHARES[min(rank, len(CLASS_SHARES) - 1)]
        step = call.step
        amounts = charged_amounts(
            self._charge,
            (call.tokens_input_estimated, step.tokens_output, step.tokens_output_max),
        )
        for limit, capacity in self._limits.items():
            total = self._used.get((limit, ""), 0.0) + amounts[limit]
            own = self._used.get((limit, class_name), 0.0) + amounts[limit]
            if total > SHARED_BELOW * capacity and own > share * capacity:
                return Failure(FailureKind.RATE, (window + 1) * WINDOW_SECONDS - now, limit)
        for limit in self._limits:
            for key in ((limit, ""), (limit, class_name)):
                self._used[key] = self._used.get(key, 0.0) + amounts[limit]
        return None


class LangChainLimiter(SdkRetries):
    """One shared limiter that counts requests."""

    def __init__(self, simulation: Simulation) -> None:
        super().__init__(simulation)
        self._rate = _mean_rate(simulation)
        self._pool: list[Call] = []
        self._free_at = 0.0
        self._is_polling = False

    def _begin(self, call: Call) -> None:
        self._pool.append(call)
        if not self._is_polling:
            self._is_polling = True
            simulation = self._simulation
            delay_seconds = POLL_SECONDS * simulation.random.random()
            simulation.at(max(simulation.now, self._free_at) + delay_seconds, self._poll)

    def _poll(self) -> None:
        """One of those who poll finds the next request free: whoever looks first."""
        simulation, pool = self._simulation, self._pool
        chosen = simulation.random.randrange(len(pool))
        pool[chosen], pool[-1] = pool[-1], pool[chosen]
        call = pool.pop()
        self._free_at = simulation.now + 1.0 / self._rate
        self._is_polling = bool(pool)
        if pool:
            delay_seconds = POLL_SECONDS / len(pool) * simulation.random.random()
            simulation.at(self._free_at + delay_seconds, self._poll)
        self._try(call)


def _mean_rate(simulation: Simulation) -> float:
    """Requests a second at which calls of the mean size use the scarcest limit."""
    scenario = simulation.scenario
    totals: dict[str, float] = {}
    count = 0
    for run in scenario.runs:
        for step in run.steps:
            count += 1
            amounts = charged_amounts(
                scenario.sites[0].plan.charge,
                (step.tokens_input, step.tokens_output, step.tokens_output_max),
            )
            for name, amount in amounts.items():
                totals[name] = totals.get(name, 0.0) + amount
    return min(
        (
            rate * count / totals[limit]
            for limit, rate in scenario.rates().items()
            if totals.get(limit)
        ),
        default=1_000.0,
    )
