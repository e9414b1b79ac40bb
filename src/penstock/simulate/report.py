"""What a simulation came to: figures, the gates that ours has to pass, tables.

Figures are of what arrived after the settling time. Waits are from ready to the sending of the
attempt that the provider took. A percentile is the smallest value that so many do not exceed.
A limit *binds* when the work asks for most of it; its use and the refill that was lost while
work waited (and no other limit was used up) are shares of what it refills.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from penstock.limits.days import DAY_LIMITS
from penstock.simulate.disturbances import NONE
from penstock.simulate.engine import Simulation
from penstock.simulate.fluid import use_at_most
from penstock.simulate.policies.table import BOUND, BOUND_STANDARD, FLUID, OURS, POLICIES
from penstock.simulate.record import Record
from penstock.simulate.runs import Call, Ending
from penstock.simulate.scenario import Scenario, charged_amounts
from penstock.simulate.slots import use_of_slots
from penstock.units import LimitName

CREDIT_GRACE_WAIT_SECONDS = 60.0
"""How long a class may go without before its floor serves it."""

RECOVERY_SECONDS = 15.0
"""After an outage or a storm of 429s: when all is used again."""

WINDOW_SECONDS = 60.0
"""The longest that a used up window keeps everybody waiting."""

SMALL_BURST_CALLS = 4.0
"""A burst that holds fewer of the largest batch calls shows each of them to urgent ones."""

SHARED_CALLS_MIN = 200
SHARED_LARGEST_MIN = 10.0
"""Fewer calls granted while every batch tenant waited say nothing about fairness; nor does less for
each than so many of the largest, by one of which two tenants may differ. That is the largest ever
granted: one that went before all of them waited may be settled, and so paid for, while they do."""

DAY_USE = 0.95
"""Of a day that begins with a full bucket, and what comes back in it: what is kept for urgent calls
at its end is the rest."""


class Spread(msgspec.Struct, frozen=True):
    """How values spread; zeros where there were none."""

    count: int
    mean: float
    p50: float
    p95: float
    p99: float
    maximum: float


class ClassFigures(msgspec.Struct, frozen=True):
    """One class: its calls, how long they waited or had waited when arrivals ended, its chains."""

    name: str
    wait: Spread
    chain: Spread
    refused: int
    failures: int


class Figures(msgspec.Struct, frozen=True):
    """One policy on one scenario. Seconds, shares of 1, counts.

    ``wait`` and ``wait_single``: interactive calls, and those that are a run by themselves.
    ``slowdown``: time of an interactive run over the time it takes unhindered. ``failures``: of
    interactive and standard calls. ``refused``: calls that were refused, or removed at their
    deadline, with the reason. ``goodput``: standard calls sent before their deadline, of
    all. ``saved``: what the binding buckets hold more in the end than at first, as a share of what
    was refilled. ``wait_batch_over_bound``: the largest batch wait as a share of its bound. Where a
    figure has nothing to stand on it is None.
    """

    policy: str
    wait: Spread
    wait_single: Spread
    chain: Spread
    slowdown: Spread
    failures: int
    failures_batch: int
    refused: int
    goodput: float | None
    use: float
    lost: float
    saved: float
    binding: str
    answers_429: int
    answers_failed: int
    attempts: int
    jain: float | None
    wait_batch: Spread
    wait_batch_over_bound: float
    classes: list[ClassFigures]
    digest: str


class Gate(msgspec.Struct, frozen=True):
    """One bound on one figure, and whether it holds."""

    name: str
    value: float
    bound: float
    holds: bool


def spread(values: Iterable[float]) -> Spread:
    """How values spread."""
    found = sorted(values)
    if not found:
        return Spread(0, 0.0, 0.0, 0.0, 0.0, 0.0)

    def at(share: float) -> float:
        return found[max(0, math.ceil(share * len(found)) - 1)]

    return Spread(len(found), sum(found) / len(found), at(0.5), at(0.95), at(0.99), found[-1])


def play(scenario: Scenario, policy: str) -> Figures:
    """Play a scenario under a policy. Raises KeyError for an unknown one."""
    simulation = POLICIES[policy].simulation(scenario)
    digest = simulation.run()
    binding = binding_limit(scenario)
    found = figures(simulation, policy, digest, binding)
    if policy == FLUID:
        # Played is the interactive work alone; use is what all work together could come to.
        found = msgspec.structs.replace(
            found, use=use_at_most(scenario, binding), lost=0.0, saved=0.0
        )
    return found


def figures(simulation: Simulation, policy: str, digest: str, binding: LimitName) -> Figures:
    """The figures of a simulation that has run."""
    scenario, record = simulation.scenario, simulation.record
    ranks = sorted(scenario.classes, key=lambda each: each.rank)
    first, last = ranks[0].name, ranks[-1].name
    counted = [call for call in record.calls if call.ready_at >= scenario.settling_seconds]
    urgent = [call for call in counted if call.run.class_name == first]
    batch = [call for call in counted if call.run.class_name == last]
    middle = [call for call in counted if call.run.class_name not in (first, last)]
    used, lost, saved = _use(scenario, record, binding)
    chains, slowdowns = _runs(scenario, urgent)
    return Figures(
        policy=policy,
        wait=spread(_waits(urgent)),
        wait_single=spread(_waits(call for call in urgent if len(call.run.steps) == 1)),
        chain=spread(chains),
        slowdown=spread(slowdowns),
        failures=_failures(urgent) + _failures(middle),
        failures_batch=sum(call.ending not in (None, Ending.SUCCESS) for call in batch),
        refused=sum(call.ending in (Ending.REFUSED, Ending.EVICTED) for call in counted),
        goodput=_goodput(middle),
        use=used,
        lost=lost,
        saved=saved,
        binding=binding.value,
        answers_429=record.answers_429,
        answers_failed=record.answers_failed,
        attempts=record.attempts,
        jain=_jain(record),
        wait_batch=spread(wait_so_far(call, scenario) for call in batch),
        wait_batch_over_bound=_over_bound(scenario, batch),
        classes=[_of_class(scenario, each.name, counted) for each in ranks],
        digest=digest,
    )


def _of_class(scenario: Scenario, name: str, counted: Iterable[Call]) -> ClassFigures:
    calls = [call for call in counted if call.run.class_name == name]
    return ClassFigures(
        name=name,
        wait=spread(wait_so_far(call, scenario) for call in calls),
        chain=spread(_runs(scenario, calls)[0]),
        refused=sum(call.ending in (Ending.REFUSED, Ending.EVICTED) for call in calls),
        failures=sum(call.ending is Ending.GAVE_UP for call in calls),
    )


def binding_limit(scenario: Scenario) -> LimitName:
    """The limit of which all work together asks most, over all accounts."""
    totals: dict[str, float] = {}
    charge = scenario.sites[0].plan.charge
    timing = scenario.timing
    slot_seconds = 0.0
    for run in scenario.runs:
        for step in run.steps:
            slot_seconds += timing.answer_seconds(step)
            for limit, amount in charged_amounts(charge, step[:3]).items():
                totals[limit] = totals.get(limit, 0.0) + amount
    asked = {limit: totals.get(limit, 0.0) / scenario.given(limit) for limit in scenario.rates()}
    slots = scenario.slots()
    if slots is not None:
        counted_seconds = scenario.seconds - scenario.settling_seconds
        asked[LimitName.CONCURRENCY] = slot_seconds / (slots * counted_seconds)
    return max(asked, key=lambda limit: asked[limit])


def gates(found: Mapping[str, Figures], scenario: Scenario) -> list[Gate]:
    """What ours has to reach beside the bounds, undisturbed or disturbed.

    ``found``: the figures of ``policies.table.NEEDED``, by policy.
    """
    ours, bound = found[OURS], found[BOUND]
    disturbances = scenario.disturbances
    held = [_at_most("failures", ours.failures, 0)]
    if ours.jain is not None:
        held.append(_at_least("jain", ours.jain, 0.98))
    broken_seconds = disturbances.broken_seconds()
    if broken_seconds:
        counted_seconds = scenario.seconds - scenario.settling_seconds
        lost = (broken_seconds + RECOVERY_SECONDS) / counted_seconds
        chain = 1.25 * bound.chain.p99 + 1.0 + RECOVERY_SECONDS
        return [*held, _at_most("chain p99", ours.chain.p99, chain),
                _at_most("lost", ours.lost, lost)]  # fmt: skip
    share_429 = ours.answers_429 / max(1, ours.attempts)
    if disturbances != NONE:
        held.append(_at_most("429s", share_429, 0.002))
        held.append(_at_most("chain p99", ours.chain.p99, 1.25 * bound.chain.p99 + 1.0))
        if ours.wait_batch.count:
            # What is in the bucket in the end is not used yet and not lost.
            held.append(_at_least("use", ours.use + max(0.0, ours.saved), 0.98))
        return held
    call_seconds, chain_seconds = _allowances(scenario, ours.binding)
    held += [
        _at_most("chain p99", ours.chain.p99, 1.10 * bound.chain.p99 + chain_seconds),
        _at_most("chain mean", ours.chain.mean, 1.05 * bound.chain.mean + chain_seconds),
        _at_most("wait p99", ours.wait_single.p99, 1.15 * bound.wait_single.p99 + call_seconds),
        _at_most("lost", ours.lost, 0.01),
        _at_most("429s", share_429, 0.001),
        _at_most("batch wait", ours.wait_batch_over_bound, 1.0),
    ]
    if ours.binding in DAY_LIMITS:
        held.append(_at_least("use", ours.use, DAY_USE))
    if ours.goodput is not None:
        reachable = found[BOUND_STANDARD].goodput
        held.append(_at_least("goodput", ours.goodput, min(0.97, reachable or 0.0)))
    return held


def _allowances(scenario: Scenario, binding: str) -> tuple[float, float]:
    """Seconds that a call and a chain may take beyond the bound, which knows what nobody can.

    0.1 s; and a single call what a batch call that has just gone leaves it to wait, chains having
    more than that in their 5 and 10 %; and where slots bind, for each step the wait for the next
    that is free; and where a provider counts requests by the second or by ten, one such sub-window:
    nobody outside knows when it begins, so its amount is kept to in every such period, while the
    bound has twice of it around a beginning.
    """
    slot_seconds = _slot_wait_seconds(scenario) if binding == LimitName.CONCURRENCY else 0.0
    steps = max(len(run.steps) for run in scenario.runs)
    window_seconds = max(site.limits.quantum_seconds or 0.0 for site in scenario.sites)
    call_seconds = 0.1 + window_seconds + slot_seconds + _residual_seconds(scenario, binding)
    return call_seconds, 0.1 + window_seconds + steps * slot_seconds


def _residual_seconds(scenario: Scenario, binding: str) -> float:
    """What is on average still to be refilled of a batch call that has just gone.

    Whoever goes first, a call that was sent is not taken back: an urgent one that comes then waits
    for the residual of its cost, in the mean E[c²] / 2 E[c] (Cobham, "Priority assignment in
    waiting line problems", 1954). A burst that holds several of the largest makes up for it.
    """
    site = scenario.sites[0]
    rate = site.rates().get(LimitName(binding), 0.0)
    last = max(scenario.classes, key=lambda each: each.rank).name
    steps = [step for run in scenario.runs if run.class_name == last for step in run.steps]
    if not rate or not steps or site.limits.fixed_window or binding in DAY_LIMITS:
        return 0.0
    charge = site.plan.charge
    costs = [charged_amounts(charge, step[:3])[binding] / rate for step in steps]
    if site.limits.burst_seconds >= SMALL_BURST_CALLS * max(costs):
        return 0.0
    return sum(cost * cost for cost in costs) / (2 * sum(costs))


def _slot_wait_seconds(scenario: Scenario) -> float:
    """The 99th percentile of the time until one of all slots is free, while all are held.

    Nothing can be kept back of slots without wasting it, and no call under way is broken off; so
    beside batch work an urgent call waits for the next call that ends. With many slots, ends
    come nearly as a Poisson process (Palm and Khintchine) of rate slots over mean time held.
    """
    slots = scenario.slots() or 1
    steps = [step for run in scenario.runs for step in run.steps]
    timing = scenario.timing
    held_seconds = sum(timing.answer_seconds(step) for step in steps) / len(steps)
    return math.log(100) * (held_seconds + 2 * timing.one_way_seconds) / slots


def _at_most(name: str, value: float, bound: float) -> Gate:
    return Gate(name, value, bound, value <= bound)


def _at_least(name: str, value: float, bound: float) -> Gate:
    return Gate(name, value, bound, value >= bound)


def _waits(calls: Iterable[Call]) -> Iterable[float]:
    return (call.accepted_at - call.ready_at for call in calls if call.accepted_at is not None)


def wait_so_far(call: Call, scenario: Scenario) -> float:
    """How long a call waited, until it was refused too, or has waited when the arrivals end."""
    until = call.accepted_at
    if until is None:
        until = scenario.seconds if call.ended_at is None else call.ended_at
    return max(0.0, until - call.ready_at)


def _failures(calls: Iterable[Call]) -> int:
    """Calls that were sent and not answered, or given up; a refusal is an honest answer."""
    return sum(call.ending in (None, Ending.GAVE_UP) for call in calls)


def _goodput(calls: Sequence[Call]) -> float | None:
    """Calls with a deadline that were sent before it, of all of them."""
    due = [call for call in calls if call.deadline is not None]
    if not due:
        return None
    good = sum(
        call.accepted_at is not None
        and call.deadline is not None
        and call.accepted_at <= call.deadline
        for call in due
    )
    return good / len(due)


def _runs(scenario: Scenario, calls: Iterable[Call]) -> tuple[list[float], list[float]]:
    """The times of chains, and the slowdowns of all runs, that began in the counted time."""
    timing = scenario.timing
    chains, slowdowns = [], []
    for call in calls:
        run = call.run
        if not call.is_last or call.ending is not Ending.SUCCESS or call.ended_at is None:
            continue
        if run.arrival < scenario.settling_seconds:
            continue
        seconds = call.ended_at - run.arrival
        unhindered = sum(
            step.tool_seconds + 2 * timing.one_way_seconds + timing.answer_seconds(step)
            for step in run.steps
        )
        slowdowns.append(seconds / unhindered)
        if len(run.steps) > 1:
            chains.append(seconds)
    return chains, slowdowns


def _use(scenario: Scenario, record: Record, limit: LimitName) -> tuple[float, float, float]:
    """The use of a limit over all accounts, what was lost of it while work waited, and saved."""
    if limit is LimitName.CONCURRENCY:
        return *use_of_slots(scenario, record.calls), 0.0
    given = scenario.given(limit)
    used = lost = saved = 0.0
    for number in scenario.pools().values():
        begin, end = (mark.get((number, limit)) for mark in record.marks[:2])
        if begin is not None and end is not None:
            used += end.taken - begin.taken
            lost += end.lost - begin.lost
            # A window gives what it holds anew; nothing of it is saved.
            is_window = scenario.sites[number].limits.fixed_window
            saved += 0.0 if is_window else end.level - begin.level
    return (used / given, lost / given, saved / given) if given else (0.0, 0.0, 0.0)


def _jain(record: Record) -> float | None:
    """Jain's index of what the batch tenants were given while each of them had work waiting."""
    shares = list(record.shares.values())
    if record.shared_calls < SHARED_CALLS_MIN or record.batch_tenants < 2:
        return None
    if sum(shares) < SHARED_LARGEST_MIN * record.batch_tenants * record.largest_seconds:
        return None
    return sum(shares) ** 2 / (record.batch_tenants * sum(share * share for share in shares))


def _over_bound(scenario: Scenario, calls: Sequence[Call]) -> float:
    """The largest wait of a batch call over what is promised for it.

    Promised is the bound of start-time fair queueing (Goyal, Vin and Cheng 1996) at the least
    rate that the class is ever served at, its floor: what its tenant had waiting when it came, it
    included, in dominant seconds, times the tenants, and one largest call of each other tenant,
    over ``min_share``; after the grace, and, where a window may be used up just then, after its
    end.
    """
    plan = max(scenario.classes, key=lambda each: each.rank)
    if plan.min_share <= 0:
        return 0.0
    tenants = len({run.tenant for run in scenario.runs if run.class_name == plan.name})
    largest_seconds = max((call.cost_seconds for call in calls), default=0.0)
    patience_seconds = CREDIT_GRACE_WAIT_SECONDS + largest_seconds * (tenants - 1) / plan.min_share
    if any(site.limits.fixed_window for site in scenario.sites):
        patience_seconds += WINDOW_SECONDS
    return max(
        (
            wait_so_far(call, scenario)
            / (call.ahead_seconds * tenants / plan.min_share + patience_seconds)
            for call in calls
        ),
        default=0.0,
    )


def table(found: Sequence[Figures]) -> list[list[str]]:
    """Policies as rows of text, the first row being the heads."""
    head = [
        "policy", "wait p50", "p95", "p99", "max", "chain mean", "p99", "slowdown p99",
        "failed", "batch failed", "refused", "goodput", "use", "lost", "429s",
        "jain", "batch wait max",
    ]  # fmt: skip
    return [head, *(_row(each) for each in found)]


def _row(each: Figures) -> list[str]:
    return [
        each.policy,
        *(f"{value:.2f}" for value in (each.wait.p50, each.wait.p95, each.wait.p99)),
        f"{each.wait.maximum:.1f}",
        f"{each.chain.mean:.2f}",
        f"{each.chain.p99:.2f}",
        f"{each.slowdown.p99:.2f}",
        str(each.failures),
        str(each.failures_batch),
        str(each.refused),
        _share(each.goodput),
        f"{each.use:.3f}",
        f"{each.lost:.3f}",
        str(each.answers_429),
        _share(each.jain),
        f"{each.wait_batch.maximum:.0f}",
    ]


def class_table(ours: Figures, bound: Figures) -> list[list[str]]:
    """Classes as rows of text, the first row being the heads; then the first class alone."""
    head = ["class", "calls", "wait p50", "p95", "p99", "max", "chains", "mean", "p99",
            "refused", "failed"]  # fmt: skip
    alone = bound.classes[0]
    return [
        head,
        *(_class_row(each.name, each) for each in ours.classes if each.wait.count),
        _class_row(f"{alone.name} alone", alone),
    ]


def _class_row(name: str, each: ClassFigures) -> list[str]:
    wait, chain = each.wait, each.chain
    return [
        name,
        str(wait.count),
        *(f"{value:.2f}" for value in (wait.p50, wait.p95, wait.p99, wait.maximum)),
        str(chain.count),
        *(f"{value:.2f}" if chain.count else "-" for value in (chain.mean, chain.p99)),
        str(each.refused),
        str(each.failures),
    ]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
