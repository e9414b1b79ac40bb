"""Workloads: rows of arrivals and sizes, and how they become a world with a certain load.

A *row* is one call that was really made (``rows``: read from a file), or was made up by one of the
synthetic patterns.

How rows become a load (``scenario_of``): the rows are the *interactive* work, with their own
times, so their own bursts. A trace thinner than ``ROWS_PER_SECOND_MIN`` is played faster. Rows
of one session or run, up to five, are one chain, its later steps following the earlier ones after a
tool's time; where a trace has no sessions, every second run takes three to five rows in a row.
The limits are then set so that this work takes ``INTERACTIVE_SHARE`` of the binding one and
less of the others. *Standard* calls (Poisson, with deadlines of 30 to 120 s) take
``STANDARD_SHARE``, and four equal *batch* tenants, who dump jobs of rows drawn from the same
trace, take the rest up to ``load`` times the limit. A call is cut to one second of the limit
so that it fits the smallest burst tried.

Where a *day's* limit binds, the interactive share is of what a day gives; the others are of the day
that is there in the beginning and of the one that comes back. Beside it is a minute of requests.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Literal, NamedTuple

import msgspec

from penstock.config.defaults import CLASSES
from penstock.scheduler.plan import ClassPlan, DeploymentPlan
from penstock.simulate.disturbances import NONE, Disturbances
from penstock.simulate.provider_world import ANTHROPIC_CHARGE, OPENAI_CHARGE, ProviderLimits
from penstock.simulate.rows import Row
from penstock.simulate.runs import Run, Step
from penstock.simulate.scenario import (
    Scenario,
    Site,
    Timing,
    charged_amounts,
    limits_plan,
)
from penstock.units import PERIOD_SECONDS, ChargeModel, LimitName

INTERACTIVE_SHARE = 0.35
STANDARD_SHARE = 0.10
OTHER_TOKENS_SHARE = 0.20
REQUESTS_SHARE = 0.22
"""Of the limits that do not bind, so much is taken by the interactive work."""

DAY_LIMITS = {"day's requests": LimitName.RPD, "day's tokens": LimitName.TPD}
DAY_MINUTES = 1_440.0
DAY_MINUTE_TIMES = 10.0
"""Beside a limit of the day a minute's requests allow so many times its rate."""

ROWS_PER_SECOND_MIN = 2.5
CHAIN_STEPS_MAX = 5
TOOL_SECONDS = (0.5, 3.0)
DEADLINE_SECONDS = (30.0, 120.0)
INTERACTIVE_TENANTS = 3
STANDARD_TENANTS = 2
BATCH_SIZES = (0.5, 1.0, 1.0, 2.0)
"""Each batch tenant's calls in sizes of the trace's: equal tenants with unlike work."""
BATCH_VOLUMES = (1.0, 1.0, 1.0, 2.0)
BATCH_DUMPS = 4
QUEUE_MAX = 1_000_000

CHARGES: dict[str, ChargeModel] = {"anthropic": ANTHROPIC_CHARGE, "openai": OPENAI_CHARGE}
MODEL = "model"


class Shape(msgspec.Struct, frozen=True):
    """What is varied between the cells of the suite.

    ``burst_seconds`` None stands for fixed windows of a minute; ``request_window_seconds`` is a
    sub-window on requests beside the minute. The limits are divided among so many ``accounts``,
    each with so many ``deployments``. ``begin_seconds``: so much of a trace is left out.
    ``slower``: the rows are played so many times slower.
    """

    load: float = 1.2
    burst_seconds: float | None = 60.0
    charge: Literal["anthropic", "openai"] = "anthropic"
    binding: Literal["tokens", "requests", "slots", "day's requests", "day's tokens"] = "tokens"
    request_window_seconds: float | None = None
    accounts: int = 1
    deployments: int = 1
    begin_seconds: float = 0.0
    slower: float = 1.0
    seconds: float = 600.0
    settling_seconds: float = 120.0
    seed: int = 0
    disturbances: Disturbances = NONE

    @property
    def rows_seconds(self) -> float:
        """How much of a workload is played."""
        return self.seconds / self.slower


def classes_built_in() -> tuple[ClassPlan, ...]:
    """The product's own classes, with queues that take what the suite puts into them."""
    return tuple(
        ClassPlan(name=name, queue_max=QUEUE_MAX, **fields) for name, fields in CLASSES.items()
    )


def scenario_of(name: str, rows: Sequence[Row], shape: Shape) -> Scenario:
    """A world in which ``rows`` are the interactive work; see the module's head."""
    chance = Random(shape.seed)  # noqa: S311 - seeded chance, no secret
    charge = CHARGES[shape.charge]
    window = _window(rows, shape, chance)
    limits = _limits(window, shape, charge)
    account = _divided(limits, shape.accounts)
    fitted = [_fitted(row, account) for row in window]
    runs = _interactive(fitted, chance)
    draw = _Draw(fitted, account, chance)
    load = _load(limits, shape, charge, runs)
    runs += _standard(draw, load, STANDARD_SHARE * load.capacity, shape.seconds)
    left = shape.load - INTERACTIVE_SHARE - STANDARD_SHARE
    sizes = BATCH_SIZES if shape.binding == "tokens" else (1.0,) * len(BATCH_SIZES)
    for tenant, size in enumerate(sizes):
        volume = max(0.0, left) * load.capacity * BATCH_VOLUMES[tenant] / sum(BATCH_VOLUMES)
        runs += _batch(draw, load, volume, shape.seconds, tenant, size)
    return Scenario(
        name=name,
        sites=_sites(account, shape, charge),
        classes=classes_built_in(),
        runs=sorted(runs, key=lambda run: run.arrival),
        seconds=shape.seconds,
        settling_seconds=min(shape.settling_seconds, shape.seconds / 2),
        seed=shape.seed,
        disturbances=shape.disturbances,
    )


def _sites(account: ProviderLimits, shape: Shape, charge: ChargeModel) -> tuple[Site, ...]:
    """Deployments of the one model, those of an account in one pool."""
    told = limits_plan(account, shape.disturbances)
    if shape.accounts == shape.deployments == 1:
        return (Site(DeploymentPlan("one", (MODEL,), told, charge), account),)
    return tuple(
        Site(
            DeploymentPlan(f"{pool}-{number}", (MODEL,), told, charge, pool=f"account-{pool}"),
            account,
        )
        for pool in range(shape.accounts)
        for number in range(shape.deployments)
    )


def _divided(limits: ProviderLimits, accounts: int) -> ProviderLimits:
    """What one of several equal accounts has."""
    if accounts == 1:
        return limits

    def part(amount: float | None) -> float | None:
        return None if amount is None else max(1.0, amount / accounts)

    slots = limits.concurrency
    return msgspec.structs.replace(
        limits,
        rpm=part(limits.rpm),
        tpm=part(limits.tpm),
        itpm=part(limits.itpm),
        otpm=part(limits.otpm),
        concurrency=None if slots is None else max(1, slots // accounts),
    )


class _Load(NamedTuple):
    """What work is measured in: a step's part of the binding limit, and the whole of it."""

    cost: Callable[[Step], float]
    capacity: float


def _load(limits: ProviderLimits, shape: Shape, charge: ChargeModel, runs: Sequence[Run]) -> _Load:
    if limits.concurrency is not None:
        return _Load(_slot_seconds, limits.concurrency * shape.seconds)
    day = DAY_LIMITS.get(shape.binding)
    if day is not None:
        # A day is there in the beginning, and comes back while it is played.
        capacity = getattr(limits, day.value) * (1.0 + shape.seconds / PERIOD_SECONDS[day])
        return _Load(lambda step: _amounts(charge, step)[day], capacity)
    binding = _binding(limits, charge, runs)
    capacity = getattr(limits, binding.value) / 60.0 * shape.seconds
    return _Load(lambda step: _amounts(charge, step)[binding], capacity)


def _slot_seconds(step: Step) -> float:
    """How long a call holds its slot."""
    return Timing().answer_seconds(step)


def _window(rows: Sequence[Row], shape: Shape, chance: Random) -> list[Row]:
    """So many seconds of a trace, from where it shall begin or, for a seed, from anywhere later.

    It is played faster where it is thin, and starts again at its end.
    """
    first, seconds = rows[0].at, shape.rows_seconds
    span = max(1.0, (rows[-1].at - first) * (1 + 1 / len(rows)))
    faster = max(1.0, ROWS_PER_SECOND_MIN * span / len(rows))
    begin = (shape.begin_seconds + (chance.random() * span if shape.seed else 0.0)) % span
    found: list[Row] = []
    for lap in range(math.ceil((seconds * faster + begin) / span) + 1):
        for row in rows:
            at = (row.at - first + lap * span - begin) / faster
            if 0 <= at < seconds:
                # A session that comes round again is another one.
                session = row.run or row.session
                session = f"{lap}:{session}" if session else ""
                found.append(row._replace(at=at * shape.slower, session=session))
    return found


def output_maximum(tokens_output: int) -> int:
    """What a caller would set as ``max_tokens``: a power of two with room to spare."""
    return max(256, 1 << math.ceil(math.log2(max(1.0, 1.25 * tokens_output))))


def _limits(rows: Sequence[Row], shape: Shape, charge: ChargeModel) -> ProviderLimits:
    """Limits a minute of which these rows take the shares above."""
    totals: dict[str, float] = {}
    for row in rows:
        for limit, amount in _amounts(charge, _step(row)).items():
            totals[limit] = totals.get(limit, 0.0) + amount

    def limit_for(limit: LimitName, share: float) -> float:
        return max(1.0, round(totals.get(limit, 0.0) / shape.seconds * 60.0 / share))

    day = DAY_LIMITS.get(shape.binding)
    if day is not None:
        per_minute = limit_for(LimitName.RPM, INTERACTIVE_SHARE / DAY_MINUTE_TIMES)
        per_day = limit_for(day, INTERACTIVE_SHARE / DAY_MINUTES)
        if day is LimitName.RPD:
            return ProviderLimits(rpm=per_minute, rpd=per_day)
        return ProviderLimits(rpm=per_minute, tpd=per_day)
    binds = shape.binding == "tokens"
    tokens = INTERACTIVE_SHARE if binds else OTHER_TOKENS_SHARE
    slots = None
    if shape.binding == "slots":
        held_seconds = sum(_slot_seconds(_step(row)) for row in rows)
        slots = max(1, round(held_seconds / shape.seconds / INTERACTIVE_SHARE))
    fixed = shape.burst_seconds is None
    by_requests = shape.binding == "requests"
    rpm = limit_for(LimitName.RPM, INTERACTIVE_SHARE if by_requests else REQUESTS_SHARE)
    if shape.request_window_seconds is not None:
        # Whole requests in each sub-window: else these, not the minute, would be the limit.
        windows = 60.0 / shape.request_window_seconds
        rpm = windows * math.ceil(rpm / windows)
    burst_seconds = 60.0 if shape.burst_seconds is None else shape.burst_seconds
    if charge.output_at_admission == "none":
        return ProviderLimits(
            rpm=rpm,
            itpm=limit_for(LimitName.ITPM, tokens),
            otpm=limit_for(LimitName.OTPM, OTHER_TOKENS_SHARE),
            concurrency=slots,
            burst_seconds=burst_seconds,
            quantum_seconds=shape.request_window_seconds,
            fixed_window=fixed,
        )
    return ProviderLimits(
        rpm=rpm,
        tpm=limit_for(LimitName.TPM, tokens),
        concurrency=slots,
        burst_seconds=burst_seconds,
        quantum_seconds=shape.request_window_seconds,
        fixed_window=fixed,
    )


def _fitted(row: Row, limits: ProviderLimits) -> Row:
    """Cut a row to what a second of the limits holds."""
    tokens_input, output_max = row.tokens_input, row.tokens_output_max
    output_max = output_max or output_maximum(row.tokens_output)
    whole = limits.itpm or limits.tpm
    if whole is not None:
        tokens_input = max(1, min(tokens_input, int(whole / 60.0)))
    if limits.tpm is not None:
        output_max = max(1, min(output_max, int(limits.tpm / 60.0)))
    tokens_output = min(row.tokens_output, output_max)
    return row._replace(
        tokens_input=tokens_input, tokens_output=tokens_output, tokens_output_max=output_max
    )


def _step(row: Row, tool_seconds: float = 0.0) -> Step:
    output_max = row.tokens_output_max or output_maximum(row.tokens_output)
    return Step(row.tokens_input, row.tokens_output, output_max, tool_seconds)


def _amounts(charge: ChargeModel, step: Step) -> dict[str, float]:
    return charged_amounts(charge, step[:3])


def _binding(limits: ProviderLimits, charge: ChargeModel, runs: Sequence[Run]) -> LimitName:
    """The limit of which the work takes most."""
    totals: dict[str, float] = {}
    for run in runs:
        for step in run.steps:
            for limit, amount in _amounts(charge, step).items():
                totals[limit] = totals.get(limit, 0.0) + amount
    shares = {
        name: totals[name] / getattr(limits, name.value)
        for name in LimitName
        if getattr(limits, name.value, None) is not None and totals.get(name)
    }
    return max(shares, key=lambda name: shares[name])


def _interactive(rows: Sequence[Row], chance: Random) -> list[Run]:
    """Runs of one or several rows, for equal tenants in turn."""
    has_sessions = any(row.session for row in rows)
    groups = _by_session(rows) if has_sessions else _by_neighbours(rows, chance)
    runs = []
    for number, group in enumerate(groups):
        steps = tuple(
            _step(row, chance.uniform(*TOOL_SECONDS) if step else 0.0)
            for step, row in enumerate(group)
        )
        tenant = f"people-{number % INTERACTIVE_TENANTS}"
        runs.append(Run(f"i{number}", MODEL, tenant, "interactive", group[0].at, steps))
    return runs


def _by_session(rows: Sequence[Row]) -> Iterator[list[Row]]:
    sessions: dict[str, list[Row]] = {}
    for row in rows:
        sessions.setdefault(row.session, []).append(row)
    groups = [
        session[start : start + CHAIN_STEPS_MAX]
        for session in sessions.values()
        for start in range(0, len(session), CHAIN_STEPS_MAX)
    ]
    return iter(sorted(groups, key=lambda group: group[0].at))


def _by_neighbours(rows: Sequence[Row], chance: Random) -> Iterator[list[Row]]:
    place = 0
    while place < len(rows):
        steps = chance.randint(3, CHAIN_STEPS_MAX) if chance.random() < 0.5 else 1
        yield list(rows[place : place + steps])
        place += steps


class _Draw:
    """Draws rows for the other classes."""

    def __init__(self, rows: Sequence[Row], limits: ProviderLimits, chance: Random) -> None:
        self.rows = rows
        self.limits = limits
        self.chance = chance

    def step(self, size: float = 1.0) -> Step:
        """A row's call, in another size."""
        row = self.chance.choice(self.rows)
        return _step(
            _fitted(
                row._replace(
                    tokens_input=max(1, round(row.tokens_input * size)),
                    tokens_output=round(row.tokens_output * size),
                    tokens_output_max=0,
                ),
                self.limits,
            )
        )


def _standard(draw: _Draw, load: _Load, volume: float, seconds: float) -> list[Run]:
    runs: list[Run] = []
    taken = 0.0
    while taken < volume:
        step = draw.step()
        taken += load.cost(step)
        tenant = f"service-{len(runs) % STANDARD_TENANTS}"
        at, patience = draw.chance.uniform(0, seconds), draw.chance.uniform(*DEADLINE_SECONDS)
        runs.append(Run(f"s{len(runs)}", MODEL, tenant, "standard", at, (step,), patience))
    return runs


def _batch(
    draw: _Draw, load: _Load, volume: float, seconds: float, tenant: int, size: float
) -> list[Run]:
    """Jobs dumped at four times, the first near the beginning, the last before four fifths."""
    runs: list[Run] = []
    for dump in range(BATCH_DUMPS):
        at = 0.8 * seconds * (dump + 0.3 * draw.chance.random()) / BATCH_DUMPS
        taken = 0.0
        while taken < volume / BATCH_DUMPS:
            step = draw.step(size)
            taken += load.cost(step)
            name = f"b{tenant}.{len(runs)}"
            runs.append(Run(name, MODEL, f"job-{tenant}", "batch", at, (step,)))
    return runs


def _sized(at: float, chance: Random) -> Row:
    """A call of the usual size: some 1,500 tokens in, 200 out, both with long tails."""
    tokens_input = min(20_000, max(20, round(chance.lognormvariate(7.0, 0.8))))
    tokens_output = min(2_000, max(5, round(chance.lognormvariate(5.0, 0.8))))
    return Row(at, tokens_input, tokens_output)


def _arrivals(
    seconds: float, chance: Random, rate_at: Callable[[float], float], rate_max: float
) -> list[Row]:
    """A Poisson process whose rate changes, by thinning (Lewis and Shedler 1979)."""
    rows, at = [], 0.0
    while (at := at + chance.expovariate(rate_max)) < seconds:
        if chance.random() * rate_max < rate_at(at):
            rows.append(_sized(at, chance))
    return rows


RATE = 3.0
"""Calls a second of the synthetic patterns, on average."""


def poisson(seconds: float, chance: Random) -> list[Row]:
    """Calls that know nothing of each other."""
    return _arrivals(seconds, chance, lambda _: RATE, RATE)


def bursts(seconds: float, chance: Random) -> list[Row]:
    """Quiet and busy times in turn (a Markov-modulated Poisson process): 10 s at up to 2.4 limits.

    Quiet times last 40 s on average, at half the mean rate.
    """
    phases: list[tuple[float, float]] = []
    at, busy = 0.0, False
    while at < seconds:
        lasts = chance.expovariate(1 / 10.0 if busy else 1 / 40.0)
        rate = RATE * chance.uniform(2.0, 2.4 / INTERACTIVE_SHARE) if busy else RATE / 2
        phases.append((at + lasts, rate))
        at, busy = at + lasts, not busy
    place = 0

    def rate_at(time: float) -> float:
        nonlocal place
        while phases[place][0] <= time:
            place += 1
        return phases[place][1]

    return _arrivals(seconds, chance, rate_at, RATE * 2.4 / INTERACTIVE_SHARE)


def diurnal(seconds: float, chance: Random) -> list[Row]:
    """Two days in the time that is simulated: noon has nine times the calls of midnight."""
    return _arrivals(
        seconds,
        chance,
        lambda at: RATE * (1 - 0.8 * math.cos(4 * math.pi * at / seconds)),
        RATE * 1.8,
    )


def flood(seconds: float, chance: Random) -> list[Row]:
    """As ``poisson``, and halfway a minute's worth of calls within five seconds."""
    half = seconds / 2
    return _arrivals(
        seconds,
        chance,
        lambda at: RATE * (12 if half <= at < half + 5 else 1),
        RATE * 12,
    )


SYNTHETIC: dict[str, Callable[[float, Random], list[Row]]] = {
    "poisson": poisson,
    "bursts": bursts,
    "diurnal": diurnal,
    "flood": flood,
}
"""By the name that the command line takes."""


def synthetic_rows(name: str, seconds: float, seed: int) -> list[Row]:
    """The rows of one of the synthetic patterns."""
    return SYNTHETIC[name](seconds, Random(seed))  # noqa: S311 - seeded chance, no secret
