"""How a provider *enforces* its limits: the other side of our ledger.

One :class:`ProviderWorld` is what one provider account keeps for one model. The sandbox
server puts HTTP around it and feeds it real time; a simulator feeds it virtual time. So it
has no clock and no I/O: ``now`` is an argument, decisions are values, each is O(1).

What is modelled, and where it is known from:

- **Continuous token bucket** (OpenAI, Anthropic): OpenAI's 429 texts fit it to the
  millisecond. "Limit 10000, Used 8554, Requested 3082. Please try again in 9.816s" is
  (8554 + 3082 - 10000) / (10000 / 60 s), and the reset headers give the time until the
  bucket is *full*. No provider publishes the bucket's capacity: ``burst_seconds`` sets it.
- **Fixed windows** (Azure's token counter, "reset each minute"): ``fixed_window``.
- **Sub-windows on requests** (Azure evaluates RPM over 1 s or 10 s, Anthropic says that
  60 RPM "might be enforced as 1 request per second"): ``quantum_seconds``, beside the
  minute limit. A request over its sub-window is told to wait for the next one.
- **Concurrency** (DeepSeek, self-hosted): a slot from admission to the end of the answer.
- **What is charged** is a ``ChargeModel``. OpenAI charges the larger of ``max_tokens`` and
  the input estimated from its characters on admission, Azure their sum; both give nothing
  back, and count failed calls. Anthropic charges an estimate of the input and corrects it to
  what was used, and charges output only as it is produced.

A denied call is charged nothing: "Used" in OpenAI's texts never passes "Limit", and a
retry after the told delay gets in.

Rejected: a log of the last minute's calls (exact sliding window). It costs memory for
each call, and contradicts the 429 texts above.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import msgspec

from penstock.units import (
    CONCURRENCY,
    ITPM,
    OTPM,
    PERIOD_SECONDS,
    RPD,
    RPM,
    TPD,
    TPM,
    ChargeModel,
    LimitName,
    LimitReading,
    Usage,
)

OPENAI_CHARGE = ChargeModel(output_at_admission="maximum")
"""The larger of input and ``max_tokens`` on admission, no refund."""
AZURE_CHARGE = ChargeModel(output_at_admission="sum")
"""Input and ``max_tokens`` on admission, no refund."""
ANTHROPIC_CHARGE = ChargeModel(
    output_at_admission="none", settles_input=True, cached_input_is_free=True
)
"""Input estimated, then corrected; output as produced; ``max_tokens`` ignored."""

CLOCK_TOLERANCE_SECONDS = 1e-6
"""``now + wait`` is rounded to a float: a retry this much too early still counts as on time."""


class ProviderLimits(msgspec.Struct, frozen=True):
    """The limits of one account for one model, as published; None means unlimited.

    ``rpm``, ``tpm``, ``itpm``, ``otpm`` are amounts a minute, ``rpd`` and ``tpd`` requests and
    tokens a day, ``concurrency`` calls at once. ``burst_seconds`` is the capacity of the minute
    limits' buckets in seconds of their rate (a day's bucket always holds a day).
    """

    rpm: float | None = None
    tpm: float | None = None
    itpm: float | None = None
    otpm: float | None = None
    rpd: float | None = None
    tpd: float | None = None
    concurrency: int | None = None
    burst_seconds: float = 60.0
    quantum_seconds: float | None = None
    fixed_window: bool = False


class ProviderCall(msgspec.Struct, frozen=True):
    """What the provider sees of a call on arrival; input is the provider's own estimate."""

    tokens_input: int
    tokens_output_max: int | None = None


class Admitted(msgspec.Struct):
    """A call in flight; hand it back to ``produced`` and, exactly once, to ``finished``."""

    tokens_input: int
    tokens_charged: float
    tokens_produced: int = 0
    finished: bool = False


class Denied(msgspec.Struct, frozen=True):
    """A call that was not admitted, and by which limit.

    ``retry_after_seconds`` is exact: if nobody else sends, a retry then is admitted. It is
    None where nobody can tell (concurrency) and where waiting does not help (``too_large``).
    """

    limit: LimitName
    retry_after_seconds: float | None
    capacity: float
    remaining: float
    requested: float
    too_large: bool = False


class Counters(msgspec.Struct):
    """What has been admitted, denied and produced since the start, or the last reset."""

    requests_admitted: int = 0
    tokens_charged: float = 0.0
    tokens_produced: int = 0
    in_flight: int = 0
    in_flight_most: int = 0
    denied: dict[LimitName, int] = {}


class _Bucket:
    """A level that refills continuously up to a capacity; corrections may push it below 0."""

    __slots__ = ("capacity", "level", "rate", "taken", "unused", "updated_at")

    def __init__(self, rate: float, capacity: float, start: float) -> None:
        self.rate = rate
        self.capacity = capacity
        self.level = capacity
        self.updated_at = start
        self.taken = 0.0
        self.unused = 0.0

    def advance(self, now: float) -> None:
        if now > self.updated_at:
            refilled = self.level + self.rate * (now - self.updated_at)
            if refilled > self.capacity:
                self.unused += refilled - self.capacity
                refilled = self.capacity
            self.level = refilled
            self.updated_at = now

    def wait_seconds(self, now: float, amount: float) -> float:
        """How long until ``amount`` fits: 0 now, infinity never."""
        self.advance(now)
        lacking = amount - self.level
        if lacking <= self.rate * CLOCK_TOLERANCE_SECONDS:
            return 0.0
        return lacking / self.rate if amount <= self.capacity else math.inf

    def take(self, now: float, amount: float) -> None:
        self.advance(now)
        self.taken += amount
        level = self.level - amount
        self.level = level if level < self.capacity else self.capacity

    def remaining(self, now: float) -> float:
        self.advance(now)
        return self.level if self.level > 0.0 else 0.0

    def reset_seconds(self, now: float) -> float:
        """How long until it is full."""
        self.advance(now)
        return (self.capacity - self.level) / self.rate


class _Window:
    """A counter that starts again at every multiple of its period after ``start``."""

    __slots__ = ("capacity", "index", "period_seconds", "start", "taken", "unused", "used")

    def __init__(self, period_seconds: float, capacity: float, start: float) -> None:
        self.period_seconds = period_seconds
        self.capacity = capacity
        self.start = start
        self.index = 0
        self.used = 0.0
        self.taken = 0.0
        self.unused = 0.0

    def advance(self, now: float) -> None:
        index = math.floor((now - self.start + CLOCK_TOLERANCE_SECONDS) / self.period_seconds)
        if index > self.index:
            self.unused += (index - self.index) * self.capacity - self.used
            self.index = index
            self.used = 0.0

    def wait_seconds(self, now: float, amount: float) -> float:
        """How long until ``amount`` fits: 0 now, infinity never."""
        self.advance(now)
        if self.used + amount <= self.capacity:
            return 0.0
        return self._seconds_left(now) if amount <= self.capacity else math.inf

    def take(self, now: float, amount: float) -> None:
        self.advance(now)
        self.taken += amount
        self.used = max(0.0, self.used + amount)

    def remaining(self, now: float) -> float:
        self.advance(now)
        return max(0.0, self.capacity - self.used)

    def reset_seconds(self, now: float) -> float:
        """How long until it is full."""
        self.advance(now)
        return self._seconds_left(now) if self.used else 0.0

    def _seconds_left(self, now: float) -> float:
        return self.start + (self.index + 1) * self.period_seconds - now


_BY_OUTPUT, _BY_INPUT = (OTPM, TPM, TPD), (ITPM, TPM, TPD)

_Gauge: TypeAlias = _Bucket | _Window


class Account(msgspec.Struct, frozen=True):
    """What became of one limit since the start.

    ``taken`` was charged, what was given back taken off again; ``unused`` is refill that found
    the bucket full, or what a window still held when it ended: lost to everybody. ``level`` is
    what is there now (negative: a debt), of ``capacity``.
    """

    taken: float
    unused: float
    level: float
    capacity: float


class ProviderWorld:
    """One account's limits for one model, enforced. ``start`` anchors the fixed windows."""

    def __init__(
        self, limits: ProviderLimits, charge: ChargeModel = OPENAI_CHARGE, start: float = 0.0
    ) -> None:
        self.limits = limits
        self.charge = charge
        self.counters = Counters()
        self._gauges = _gauges(limits, start)
        self._published: dict[LimitName, float] = {
            name: getattr(limits, name) for name in self._gauges
        }
        self._quantum = _sub_window(limits, start)
        self._charges_output_at_admission = charge.output_at_admission != "none"
        self._charges_maximum = charge.output_at_admission == "maximum"

    def admit(self, now: float, call: ProviderCall) -> Admitted | Denied:
        """Take a call if every limit has room for it, else charge nothing and say which has none.

        Where several have none, the one that takes longest is named.
        """
        denied = self._denied(now, call)
        if denied is not None:
            self.counters.denied[denied.limit] = self.counters.denied.get(denied.limit, 0) + 1
            return denied
        for name, gauge in self._gauges.items():
            gauge.take(now, self._charge(name, call))
        if self._quantum is not None:
            self._quantum.take(now, 1.0)
        charged = self._charge(TPM, call)
        counters = self.counters
        counters.requests_admitted += 1
        counters.tokens_charged += charged
        counters.in_flight += 1
        counters.in_flight_most = max(counters.in_flight_most, counters.in_flight)
        return Admitted(tokens_input=call.tokens_input, tokens_charged=charged)

    def produced(self, now: float, admitted: Admitted, tokens: int) -> None:
        """Output tokens left the model: charged now where admission did not charge them."""
        admitted.tokens_produced += tokens
        self.counters.tokens_produced += tokens
        if not self._charges_output_at_admission:
            self._take(now, _BY_OUTPUT, tokens)
            self.counters.tokens_charged += tokens

    def finished(self, now: float, admitted: Admitted, usage: Usage | None) -> None:
        """The call has ended, well or not: frees its slot and settles its input.

        ``usage`` is what was really used; None where the call failed before that was known,
        which leaves the estimate standing. Output is counted by ``produced`` alone.
        """
        if admitted.finished:
            raise ValueError("a call is finished exactly once; this one already was")
        admitted.finished = True
        self.counters.in_flight -= 1
        if usage is None and not self.charge.failed_requests_count:
            self._take(now, (RPM, RPD), -1.0)
        if usage is None or not self.charge.settles_input:
            return
        used = usage.tokens_input
        if self.charge.cached_input_is_free:
            used -= usage.tokens_input_cached
        correction = used - admitted.tokens_input
        self._take(now, _BY_INPUT, correction)
        self.counters.tokens_charged += correction

    def remaining(self, now: float) -> dict[LimitName, LimitReading]:
        """Each limit as its headers show it: published amount, what is left, time to full."""
        readings = {
            name: LimitReading(
                name, self._published[name], gauge.remaining(now), gauge.reset_seconds(now)
            )
            for name, gauge in self._gauges.items()
        }
        if self.limits.concurrency is not None:
            readings[CONCURRENCY] = LimitReading(
                limit=CONCURRENCY,
                capacity=self.limits.concurrency,
                remaining=self.limits.concurrency - self.counters.in_flight,
            )
        return readings

    def account(self, now: float, limit: LimitName) -> Account:
        """What became of a limit. Raises KeyError where there is none of that name."""
        gauge = self._gauges[limit]
        gauge.advance(now)
        level = gauge.level if isinstance(gauge, _Bucket) else gauge.capacity - gauge.used
        return Account(gauge.taken, gauge.unused, level, gauge.capacity)

    def reset_counters(self) -> None:
        """Count from zero again; what is in flight stays counted, limits stay as they are."""
        in_flight = self.counters.in_flight
        self.counters = Counters(in_flight=in_flight, in_flight_most=in_flight)

    def _denied(self, now: float, call: ProviderCall) -> Denied | None:
        concurrency = self.limits.concurrency
        if concurrency is not None and self.counters.in_flight >= concurrency:
            return Denied(CONCURRENCY, None, concurrency, 0.0, 1.0)
        worst: LimitName | None = None
        longest = 0.0
        for name, gauge in self._gauges.items():
            wait = gauge.wait_seconds(now, self._room(name, call))
            if wait > longest:
                worst, longest = name, wait
        if self._quantum is not None and self._quantum.wait_seconds(now, 1.0) > longest:
            worst, longest = RPM, self._quantum.wait_seconds(now, 1.0)
        if worst is None:
            return None
        too_large = math.isinf(longest)
        return Denied(
            limit=worst,
            retry_after_seconds=None if too_large else longest,
            capacity=self._published[worst],
            remaining=self._gauges[worst].remaining(now),
            requested=self._charge(worst, call),
            too_large=too_large,
        )

    def _room(self, name: LimitName, call: ProviderCall) -> float:
        """What must be there: output charged as produced still needs room for its first token."""
        charge = self._charge(name, call)
        return charge if charge > 1.0 else 1.0

    def _charge(self, name: LimitName, call: ProviderCall) -> float:
        if name is RPM or name is RPD:
            return 1.0
        if name is ITPM:
            return call.tokens_input
        output = (call.tokens_output_max or 0) if self._charges_output_at_admission else 0
        if name is OTPM:
            return output
        if self._charges_maximum:
            return max(call.tokens_input, output)
        return call.tokens_input + output

    def _take(self, now: float, names: tuple[LimitName, ...], amount: float) -> None:
        gauges = self._gauges
        for name in names:
            if name in gauges:
                gauges[name].take(now, amount)


def _gauges(limits: ProviderLimits, start: float) -> dict[LimitName, _Gauge]:
    gauges: dict[LimitName, _Gauge] = {}
    for name, period_seconds in PERIOD_SECONDS.items():
        amount: float | None = getattr(limits, name)
        if amount is None:
            continue
        if amount <= 0:
            raise ValueError(f"{name} is {amount:g}; a limit is above 0, or left out")
        if limits.fixed_window:
            gauges[name] = _Window(period_seconds, max(1.0, amount), start)
            continue
        rate = amount / period_seconds
        held_seconds = limits.burst_seconds if period_seconds == 60.0 else period_seconds
        # A bucket that cannot hold one request or token would never admit anything.
        gauges[name] = _Bucket(rate, max(1.0, rate * held_seconds), start)
    return gauges


def _sub_window(limits: ProviderLimits, start: float) -> _Window | None:
    if limits.quantum_seconds is None or limits.rpm is None:
        return None
    held = math.floor(limits.rpm * limits.quantum_seconds / 60.0)
    return _Window(limits.quantum_seconds, max(1, held), start)
