"""What is noted while a simulation runs: little, since it runs for every event.

Calls and runs are kept whole; what cannot be computed from them afterwards is added up here:
the use of each limit, the refill that was lost while work waited, and what each of several
tenants with equal backlogs was given at the same time.
"""

from __future__ import annotations

from typing import NamedTuple

from penstock.providers.base import Failure, FailureKind
from penstock.simulate.provider_world import Account, ProviderWorld
from penstock.simulate.runs import Call
from penstock.simulate.scenario import Scenario, charged_amounts
from penstock.units import LimitName

USED_UP_SHARE = 0.05
"""A limit with less than this of its capacity left keeps calls waiting whatever others hold."""

USED_UP_REQUESTS = 2.0
"""So does one with fewer requests or tokens than this."""


class Sample:
    """The state at one moment, for the picture: levels by account and limit."""

    __slots__ = ("at", "levels", "waiting")

    def __init__(self, at: float, levels: list[dict[LimitName, float]], waiting: int) -> None:
        self.at = at
        self.levels = levels
        self.waiting = waiting


class Mark(NamedTuple):
    """What one limit has come to at a moment: taken, lost while somebody waited, still there."""

    taken: float
    lost: float
    level: float


class Record:
    """The books of one simulation; times are virtual seconds."""

    def __init__(self, scenario: Scenario, worlds: list[ProviderWorld]) -> None:
        self.calls: list[Call] = []
        self.attempts = 0
        self.answers_429 = 0
        self.answers_failed = 0
        self.samples: list[Sample] = []
        self.shares: dict[str, float] = {}
        self.shared_calls = 0
        self.largest_seconds = 0.0
        self.marks: list[dict[tuple[int, LimitName], Mark]] = []
        self.first_rank = min(each.rank for each in scenario.classes)
        self._last_class = max(scenario.classes, key=lambda each: each.rank).name
        self._settling_seconds = scenario.settling_seconds
        self._seconds = scenario.seconds
        self._worlds = worlds
        self._rates = {
            number: scenario.sites[number].rates() for number in scenario.pools().values()
        }
        self._rates_in_all = scenario.rates()
        self._slots = scenario.slots()
        self._charge = scenario.sites[0].plan.charge
        self._waiting = 0
        self._unused_seen: dict[tuple[int, LimitName], float] = {}
        self._blocking: dict[int, list[LimitName]] = {site: [] for site in self._rates}
        self.lost: dict[tuple[int, LimitName], float] = {}
        batch_tenants = {run.tenant for run in scenario.runs if run.class_name == self._last_class}
        self._backlog = dict.fromkeys(sorted(batch_tenants), 0)
        self._backlog_seconds = dict.fromkeys(self._backlog, 0.0)
        self.batch_tenants = len(self._backlog)
        self._idle_tenants = self.batch_tenants
        for site, rates in self._rates.items():
            for limit in rates:
                self._unused_seen[site, limit] = 0.0
                self.lost[site, limit] = 0.0

    def ready(self, call: Call, now: float) -> None:
        """A call waits from now on."""
        self.calls.append(call)
        self._wait(1, now)
        if call.run.class_name == self._last_class:
            call.cost_seconds = self._cost_seconds(call)
            tenant = call.run.tenant
            self._backlog_seconds[tenant] += call.cost_seconds
            call.ahead_seconds = self._backlog_seconds[tenant]
            self._idle_tenants -= not self._backlog[tenant]
            self._backlog[tenant] += 1

    def sent(self, now: float) -> None:
        """A call is on its way: it does not wait."""
        self.attempts += now >= self._settling_seconds
        self._wait(-1, now)

    def refused(self, failure: Failure, now: float) -> None:
        """It waits again."""
        self._wait(1, now)
        if now < self._settling_seconds:
            return
        if failure.kind in (FailureKind.RATE, FailureKind.DAY, FailureKind.REJECTED):
            self.answers_429 += 1
        else:
            self.answers_failed += 1

    def accepted(self, call: Call, now: float) -> None:
        """The provider took it."""
        self._flush(now)
        if call.run.class_name == self._last_class:
            tenant = call.run.tenant
            is_shared = not self._idle_tenants and now >= self._settling_seconds
            if is_shared and now < self._seconds:
                self.shares[tenant] = self.shares.get(tenant, 0.0) + call.cost_seconds
                self.shared_calls += 1
            if call.cost_seconds > self.largest_seconds:
                self.largest_seconds = call.cost_seconds
            self._unqueue(call)

    def produced(self, now: float) -> None:
        """Output was charged: a limit may be used up from now on."""
        self._flush(now)

    def gave_up(self, call: Call, now: float) -> None:
        """It is not sent any more."""
        self._wait(-1, now)
        if call.run.class_name == self._last_class:
            self._unqueue(call)

    def mark(self, now: float) -> None:
        """The counted time begins, or ends: note what each limit has come to."""
        self._flush(now)
        marked = {}
        for (site, limit), lost in self.lost.items():
            account = self._worlds[site].account(now, limit)
            marked[site, limit] = Mark(account.taken, lost, account.level)
        self.marks.append(marked)

    def close(self, now: float) -> None:
        """Nothing more comes."""
        while len(self.marks) < 2:
            self.mark(now)

    def sample(self, now: float) -> None:
        """Note the levels."""
        levels = []
        for site, rates in self._rates.items():
            world = self._worlds[site]
            levels.append({limit: world.account(now, limit).level for limit in rates})
            slots = world.limits.concurrency
            if slots is not None:
                levels[-1][LimitName.CONCURRENCY] = float(slots - world.counters.in_flight)
        self.samples.append(Sample(now, levels, self._waiting))

    def _unqueue(self, call: Call) -> None:
        tenant = call.run.tenant
        self._backlog[tenant] -= 1
        self._backlog_seconds[tenant] -= call.cost_seconds
        self._idle_tenants += not self._backlog[tenant]

    def _wait(self, change: int, now: float) -> None:
        if self._waiting == 0 or self._waiting + change == 0:
            self._flush(now)
        self._waiting += change

    def _flush(self, now: float) -> None:
        """Count the refill lost since the last look, if somebody waited since then.

        Where another limit of the account is used up, that one is the reason, and nothing of
        this one could have been used.
        """
        for site, rates in self._rates.items():
            world = self._worlds[site]
            accounts = [(limit, world.account(now, limit)) for limit in rates]
            blocking = [limit for limit, account in accounts if _is_used_up(account)]
            for limit, account in accounts:
                key = (site, limit)
                unused = account.unused
                if unused == self._unused_seen[key]:
                    continue
                is_blocked = any(other != limit for other in (*blocking, *self._blocking[site]))
                if self._waiting and not is_blocked:
                    self.lost[key] += unused - self._unused_seen[key]
                self._unused_seen[key] = unused
            self._blocking[site] = blocking

    def _cost_seconds(self, call: Call) -> float:
        step = call.step
        amounts = charged_amounts(
            self._charge, (step.tokens_input, step.tokens_output, step.tokens_output_max)
        )
        costs = [amounts[name] / rate for name, rate in self._rates_in_all.items()]
        return max(costs, default=1.0 / (self._slots or 1))


def _is_used_up(account: Account) -> bool:
    level = account.level
    return level < USED_UP_REQUESTS or level < USED_UP_SHARE * account.capacity
