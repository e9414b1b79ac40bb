"""Which call fails, and how: on request, one after the other, or by chance.

A call's fault is, first match wins: its header ``x-sandbox-fault``; the next entry of the
list set by ``POST /faults`` (for callers behind a gateway, which passes no unknown headers
on); a draw against the rates given at start. The draws repeat with the seed.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence

import msgspec

PLANNED_MAX = 100_000

FAULTS: dict[str, str] = {
    "400-context": "refuses a prompt as too long for the model",
    "401": "refuses the key",
    "403": "refuses the model",
    "429": "rate limited; come back in 100 ms",
    "429-bare": "rate limited, without any header that says when to come back",
    "429-nonsense": "rate limited, with retry headers that are no numbers",
    "429-quota": "no credit left: waiting does not help",
    "500": "server error",
    "502": "bad gateway, as an HTML page",
    "503": "overloaded",
    "529": "overloaded (Anthropic's status)",
    "reset-before": "resets the connection before any answer",
    "reset-mid-stream": "resets the connection in the middle of the answer",
    "close-mid-stream": "closes the connection in the middle of the answer",
    "stall": "never answers",
    "stall-mid-stream": "falls silent in the middle of the answer",
    "error-mid-stream": "sends the protocol's own error in the middle of a stream",
    "malformed-sse": "sends lines in the middle of a stream that are no events",
    "truncated-json": "ends the answer in the middle of its JSON",
    "no-usage": "answers without usage",
    "html": "answers 200 with an HTML page",
    "empty": "answers 200 with nothing",
    "null": "answers 200 with null",
    "bad-utf8": "answers 200 with bytes that are no UTF-8",
    "bad-gzip": "says gzip and sends none",
    "gzip-bomb": "answers with 64 MiB in 64 kB of gzip",
    "huge-line": "answers with one line of 16 MiB",
    "huge-header": "answers with one header of 1 MiB",
    "endless": "never stops answering",
}
"""Every fault and what the caller sees. A test finds each in the documentation."""


class FaultRate(msgspec.Struct, frozen=True):
    """A fault that strikes by chance; ``probability`` is of each call."""

    name: str
    probability: float


def known(name: str) -> str:
    """``name``, if it is a fault. Raises ValueError."""
    if name not in FAULTS:
        raise ValueError(f"{name[:64]!r} is no fault; known are: {', '.join(FAULTS)}")
    return name


def parse_rate(text: str) -> FaultRate:
    """``NAME:PROBABILITY``, or ``NAME`` for every call. Raises ValueError."""
    name, colon, probability = text.partition(":")
    try:
        value = float(probability) if colon else 1.0
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ValueError(f"{text[:64]!r}: a probability is between 0 and 1, as in 500:0.01")
    return FaultRate(known(name), value)


class Faults:
    """Decides each call's fault, and counts what was injected."""

    def __init__(self, rates: Sequence[FaultRate] = (), seed: int = 0) -> None:
        self.rates = tuple(rates)
        self.injected: dict[str, int] = {}
        self.planned: deque[str | None] = deque()
        # Not for secrets: a seeded generator is what makes a run repeatable.
        self._random = random.Random(seed)  # noqa: S311

    def plan(self, faults: Sequence[str | None], calls: int | None = None) -> None:
        """The faults of the next calls, in order (None: none), repeated to fill ``calls``.

        Replaces what was planned before; an empty list clears it. Raises ValueError.
        """
        for name in faults:
            if name is not None:
                known(name)
        count = len(faults) if calls is None else calls
        if not 0 <= count <= PLANNED_MAX:
            raise ValueError(f"calls is {count}; between 0 and {PLANNED_MAX} can be planned")
        self.planned.clear()
        if faults:
            self.planned.extend(faults[index % len(faults)] for index in range(count))

    def next(self, asked: str | None) -> str | None:
        """The fault of this call, ``asked`` being what its header says. Raises ValueError."""
        fault = known(asked) if asked is not None else self._next_unasked()
        if fault is not None:
            self.injected[fault] = self.injected.get(fault, 0) + 1
        return fault

    def _next_unasked(self) -> str | None:
        if self.planned:
            return self.planned.popleft()
        for rate in self.rates:
            if self._random.random() < rate.probability:
                return rate.name
        return None
