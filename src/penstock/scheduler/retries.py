"""What an unsuccessful attempt means: the rule as a table, for both drivers of the scheduler.

Normal pressure on a limit is a wait, never an error: the unit goes back to its place and is
granted again when the provider allows it, until its caller's patience ends (the scheduler
evicts it then). Only what cannot become better by waiting goes to the caller at once.
"""

from __future__ import annotations

from penstock.providers.base import Failure, FailureKind
from penstock.scheduler.events import Event, KeyRefused, Limited, Overloaded

ATTEMPTS_MAX_UNAVAILABLE = 3
"""A 500 may be the request's own fault: it is not sent for ever."""

PAUSE_SECONDS_DAY = 600.0
"""After a daily limit that names no time: asked again every ten minutes."""

PATIENT = frozenset({FailureKind.RATE, FailureKind.DAY, FailureKind.OVERLOADED})
"""Kinds for which a unit waits as long as its caller does."""

_BRIEF = frozenset({FailureKind.UNAVAILABLE, FailureKind.INVALID})
"""Kinds for which a few attempts are made; after an answer that is none elsewhere only."""


def may_retry(kind: FailureKind, attempt: int) -> bool:
    """Whether a unit goes back to its place after its ``attempt``-th try (from 1)."""
    if kind in PATIENT:
        return True
    return kind in _BRIEF and attempt < ATTEMPTS_MAX_UNAVAILABLE


def consequence(failure: Failure, deployment: str, *, goes_elsewhere: bool = False) -> Event | None:
    """What the scheduler learns about the deployment from a failure.

    After an answer that is none it is left alone for a moment where that sends the unit to
    another one; else the others who need it do not wait for what may be this call's alone.
    """
    named_seconds = failure.retry_after_seconds
    match failure.kind:
        case FailureKind.RATE:
            return Limited(deployment, named_seconds, failure.limit)
        case FailureKind.DAY:
            # A daily refusal can name the seconds of the minute limit beside it.
            pause_seconds = max(named_seconds or 0.0, PAUSE_SECONDS_DAY)
            return Limited(deployment, pause_seconds, failure.limit)
        case FailureKind.OVERLOADED | FailureKind.UNAVAILABLE | FailureKind.TIMED_OUT:
            return Overloaded(deployment, named_seconds)
        case FailureKind.INVALID:
            return Overloaded(deployment, backs_off=goes_elsewhere)
        case FailureKind.AUTH | FailureKind.FATAL:
            return KeyRefused(deployment, has_quota=failure.kind is FailureKind.AUTH)
        case FailureKind.REJECTED:
            return None
