"""What a decision of the scheduler costs, and what a virtual hour does: CPU and memory.

    ./dev run python benchmarks/scheduler_cost.py

It fills a queue with 100,000 units of 100 tenants in three classes, then goes on for 4,000 more a
round: each is submitted, one is granted, and one settled, in a tick for each event. Then the whole
life of a call that nobody hinders, as a gateway has it: submitted and granted, its answer's headers
read, settled, a tick each, while nobody waits. At last a virtual hour of the simulator.

Printed are microseconds of CPU for submission, for grant with settlement, and for a life, the
least of some rounds, since whatever else the machine does adds to it; bytes for each waiting unit,
the unit itself included; and CPU seconds of the hour for 30,000 calls. The exit code is 1 where one
is above its bound.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
import tracemalloc

from penstock.limits.pool import LimitsPlan
from penstock.scheduler.events import Event, Observed, Settled, Submitted
from penstock.scheduler.plan import ClassPlan, DeploymentPlan, Plan
from penstock.scheduler.scheduler import Scheduler
from penstock.simulate.policies.table import OURS
from penstock.simulate.report import play
from penstock.simulate.suite import rows_of
from penstock.simulate.workloads import Shape, scenario_of
from penstock.units import Estimate, LimitName, LimitReading, RunPlace, Unit, Usage

MICROSECONDS_MAX = 50.0
LIFE_MICROSECONDS_MAX = 50.0
HOUR_SECONDS_MAX = 10.0
BYTES_MAX = 1_024
WAITING = 100_000
TENANTS = 100
CALLS = 4_000
BLOCK = 500
ROUNDS = 15
LIVES = 2_000
LIVES_PER_SECOND = 100.0
TRACE, HOUR, HOUR_CALLS = "azure2023_code", 3_600.0, 30_000
CLASSES = (
    ClassPlan("interactive", 0, order="remaining", quantum_seconds=16.0, queue_max=10**9),
    ClassPlan("standard", 1, reserve=1.0, min_share=0.05, order="deadline", queue_max=10**9),
    ClassPlan("batch", 2, reserve=1.0, min_share=0.05, queue_max=10**9),
)


def unit_of(number: int, now: float) -> Unit:
    """One of many: most are batch."""
    name = f"unit-{number:09d}"
    class_name = ("interactive", "standard", "batch", "batch", "batch")[number % 5]
    return Unit(
        unit_id=name,
        model="model",
        tenant=f"tenant-{number % TENANTS}",
        class_name=class_name,
        estimate=Estimate(400 + number % 1_000, 200, 512),
        place=RunPlace(name, now),
        deadline=None if class_name != "standard" else now + 10**6,
    )


def scheduler_of() -> Scheduler:
    """One deployment with limits on requests and tokens."""
    limits = LimitsPlan({LimitName.RPM: 60_000.0, LimitName.TPM: 60e6}, None, 60.0)
    return Scheduler(Plan(CLASSES, (DeploymentPlan("one", ("model",), limits),)), 0.0)


def filled() -> tuple[Scheduler, float]:
    """A scheduler in which so many wait, and the bytes that each of them takes."""
    scheduler = scheduler_of()
    first = scheduler.tick(0.0, [Submitted(unit_of(n, 0.0)) for n in range(TENANTS)])
    # Nothing may go while it is filled: the provider asked to be left alone.
    deployment = scheduler.deployment("one")
    deployment.health.overloaded(1.0, 0.0)
    scheduler.tick(0.0, [Settled(grant.unit_id, Usage(1, 1)) for grant in first.grants])
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(TENANTS, TENANTS + WAITING):
        scheduler.tick(0.0, [Submitted(unit_of(number, 0.0))])
    gc.collect()
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return scheduler, used / WAITING


def run(scheduler: Scheduler, number: int, granted: list[str]) -> tuple[float, float]:
    """Microseconds of a submission, and of a grant with its settlement, over ``CALLS`` calls.

    In blocks: all of a block are submitted, a tick each, then as many ticks settle and grant one.
    """
    now = 2.0 + number
    submit_seconds = grant_seconds = 0.0
    grants = 0
    for first in range(number, number + CALLS, BLOCK):
        submitted = [[Submitted(unit_of(each, now))] for each in range(first, first + BLOCK)]
        begin = time.process_time()
        for events in submitted:
            decisions = scheduler.tick(now, events)
            granted += [grant.unit_id for grant in decisions.grants]
        middle = time.process_time()
        for _ in range(BLOCK):
            now += 0.001
            ended = [Settled(granted.pop(), Usage(400, 100))] if granted else []
            decisions = scheduler.tick(now, ended)
            granted += [grant.unit_id for grant in decisions.grants]
            grants += len(decisions.grants)
        grant_seconds += time.process_time() - middle
        submit_seconds += middle - begin
    assert grants > CALLS / 2, "the limit is refilled at the rate of the calls"
    return 1e6 * submit_seconds / CALLS, 1e6 * grant_seconds / grants


def lives(classes: tuple[ClassPlan, ...]) -> float:
    """Microseconds of the life of a call that does not wait: three ticks, two headers read."""
    rates = {LimitName.RPM: 600_000.0, LimitName.TPM: 600e6}
    plan = DeploymentPlan("one", ("model",), LimitsPlan(rates, 200, 60.0))
    scheduler = Scheduler(Plan(classes, (plan,)), 0.0)
    readings = tuple(LimitReading(name, rate, rate - 50, 0.5) for name, rate in rates.items())
    ticks: list[tuple[float, list[Event]]] = []
    for number in range(LIVES):
        now = number / LIVES_PER_SECOND
        name = f"unit-{number:09d}"
        place = RunPlace(name, now)
        estimate = Estimate(500, 200, 512)
        unit = Unit(name, "model", "tenant", "interactive", estimate, place, now + 60.0)
        ticks.append((now, [Submitted(unit)]))
        ticks.append((now + 0.004, [Observed("one", now, readings, accepted=True)]))
        ticks.append((now + 0.008, [Settled(name, Usage(480, 150))]))
    granted = 0
    begin = time.process_time()
    for now, events in ticks:
        granted += len(scheduler.tick(now, events).grants)
    seconds = time.process_time() - begin
    assert granted == LIVES, "nobody hinders them"
    return 1e6 * seconds / LIVES


def hour() -> tuple[float, int]:
    """CPU seconds of a virtual hour at 120 % of a limit, and how many calls it had."""
    scenario = scenario_of(TRACE, rows_of(TRACE, HOUR, 0), Shape(seconds=HOUR))
    begin = time.process_time()
    play(scenario, OURS)
    calls = sum(len(each.steps) for each in scenario.runs)
    return time.process_time() - begin, calls


def main() -> int:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    scheduler, unit_bytes = filled()
    gc.freeze()
    granted: list[str] = []
    begin = TENANTS + WAITING
    found = [run(scheduler, begin + CALLS * each, granted) for each in range(rounds)]
    submit, grant = (min(each) for each in zip(*found, strict=True))
    print(f"waiting           {scheduler.waiting_count:>9,}")
    print(f"submit            {submit:9.1f} us")
    print(f"grant and settle  {grant:9.1f} us")
    print(f"together          {submit + grant:9.1f} us, at most {MICROSECONDS_MAX:.0f}")
    print(f"a waiting unit    {unit_bytes:9.0f} bytes, at most {BYTES_MAX:,}")
    life = min(lives(CLASSES) for _ in range(rounds))
    print(f"an unhindered life{life:9.1f} us, at most {LIFE_MICROSECONDS_MAX:.0f}")
    seconds, calls = hour()
    per_hour = seconds * HOUR_CALLS / calls
    print(f"a virtual hour    {seconds:9.1f} s for {calls:,} calls")
    print(f"of {HOUR_CALLS:,} calls   {per_hour:9.1f} s, at most {HOUR_SECONDS_MAX:.0f}")
    fails = submit + grant > MICROSECONDS_MAX or unit_bytes > BYTES_MAX
    return int(fails or life > LIFE_MICROSECONDS_MAX or per_hour > HOUR_SECONDS_MAX)


if __name__ == "__main__":
    sys.exit(main())
