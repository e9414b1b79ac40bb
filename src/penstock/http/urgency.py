"""How urgent a call is: its class and its deadline, from what stock clients already send.

Class, first match wins:

1. ``Priority: u=0..7`` (RFC 9218; lower is more urgent). The eight urgencies are spread evenly
   over the configured classes in rank order; the built-in three get 0-2, 3-4 and 5-7.
2. Body ``priority``, an integer, lower first, as LiteLLM and vLLM have it. It counts classes in
   rank order: 0 or less is the first, 1 the second, and so on; beyond the last is the last.
3. ``service_tier``: ``priority`` and ``fast`` as u=0; ``default``, ``auto`` and
   ``standard_only`` as u=3; ``flex`` as u=7.
4. The chain's default, then the key's.

Whatever wins is clamped to the key's ceiling, so that a request can only ever lower itself.
What does not parse is ignored: RFC 9218 and RFC 7240 both say so of their headers.

Deadline: ``Prefer: wait=N`` (RFC 7240), then ``x-stainless-read-timeout`` and
``x-stainless-timeout``, in seconds, which the SDKs send by themselves (their 600 s is a default
and says nothing), then the body's ``metadata.deadline``, a number of seconds or an RFC 3339 time
with its zone, then ``background_options.completion_window`` ("90s", "15m", "24h"). The class's
``wait_seconds_max`` is the upper bound, and the answer for a caller who names none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final

import msgspec

from penstock.config.model import ClassTable
from penstock.http.auth import Principal
from penstock.providers.base import ParsedCall

STAINLESS_TIMEOUT_DEFAULT_SECONDS: Final = 600.0

_TIER_URGENCIES: Final = {
    "priority": 0,
    "fast": 0,
    "default": 3,
    "auto": 3,
    "standard_only": 3,
    "flex": 7,
}
# Structured Field Values, RFC 9651: a dictionary of items with parameters, no inner lists
# (Priority has none; a header with one is ignored as a whole, as any other that is malformed).
_KEY: Final = r"[a-z*][a-z0-9_.*-]*"
_BARE: Final = (
    r"(?:-?[0-9]{1,12}\.[0-9]{1,3}|-?[0-9]{1,15}|\?[01]|:[A-Za-z0-9+/=]*:"
    r'|"(?:[ !#-\[\]-~]|\\["\\])*"|[A-Za-z*][A-Za-z0-9!#$%&\'*+.^_`|~:/-]*)'
)
_PARAMETERS: Final = rf"(?:; *{_KEY}(?:={_BARE})?)*"
_MEMBER: Final = re.compile(rf"({_KEY})(?:=({_BARE}))?{_PARAMETERS}")
_COMMA: Final = re.compile(r"[ \t]*,[ \t]*")
_WAIT: Final = re.compile(r"wait[ \t]*=[ \t]*\"?([0-9]{1,9})\"?[ \t]*(?:;|\Z)", re.IGNORECASE)
_SECONDS: Final = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?\Z")
_HEADER_CHARACTERS_MAX: Final = 256


class Urgency(msgspec.Struct, frozen=True):
    """The class a call gets, and the moment (monotonic seconds) after which it is no use."""

    class_name: str
    deadline: float | None


def urgency(
    principal: Principal,
    headers: Mapping[str, str],
    classes: Mapping[str, ClassTable],
    now: float,
    *,
    priority: int | None = None,
    service_tier: str | None = None,
    default: str | None = None,
) -> Urgency:
    """The effective class and deadline; ``now`` in seconds. See ``class_and_seconds``."""
    class_name, seconds = class_and_seconds(
        principal,
        headers,
        classes,
        priority=priority,
        service_tier=service_tier,
        default=default,
    )
    return Urgency(class_name, now + seconds)


def class_and_seconds(
    principal: Principal,
    headers: Mapping[str, str],
    classes: Mapping[str, ClassTable],
    *,
    priority: int | None = None,
    service_tier: str | None = None,
    body_seconds: float | None = None,
    default: str | None = None,
) -> tuple[str, float]:
    """The effective class, and how long the call may take. ``headers`` have lower-case names.

    ``priority`` and ``service_tier`` are the body's, as is ``body_seconds``, how long it may take;
    ``default`` is the chain's class.
    """
    urgent = _header_urgency(headers.get("priority"))
    if urgent is None and priority is None:
        urgent = _TIER_URGENCIES.get(service_tier or "")
    if urgent is not None:
        wanted = _by_urgency(_ordered(classes), urgent)
    elif priority is not None:
        wanted = _ordered(classes)[min(max(priority, 0), len(classes) - 1)]
    elif default is not None and default in classes:
        wanted = default
    else:
        wanted = principal.class_default
    class_name = _clamped(wanted, principal.ceiling, classes)
    patience = classes[class_name].wait_seconds_max
    asked = _asked_seconds(headers)
    if asked is None:
        asked = body_seconds
    return class_name, patience if asked is None else min(asked, patience)


def body_seconds(call: ParsedCall, wall: float) -> float | None:
    """How long a body says that its call may take from now, at Unix time ``wall``; not negative."""
    text = call.deadline
    if text is not None and len(text) <= _HEADER_CHARACTERS_MAX:
        if _SECONDS.match(text):
            return float(text)
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return call.window_seconds
        if moment.tzinfo is not None:
            return max(0.0, moment.timestamp() - wall)
    return call.window_seconds


def _ordered(classes: Mapping[str, ClassTable]) -> list[str]:
    """The names of the classes, the most urgent first."""
    return sorted(classes, key=lambda name: (classes[name].rank, name))


def _clamped(wanted: str, ceiling: str, classes: Mapping[str, ClassTable]) -> str:
    """``wanted``, or the ceiling where that is less urgent; names unknown to both are last."""
    highest = ceiling if ceiling in classes else _ordered(classes)[-1]
    if wanted not in classes or classes[wanted].rank < classes[highest].rank:
        return highest
    return wanted


def _by_urgency(ordered: list[str], urgent: int) -> str:
    """Urgency 0-7 to a class: the middle of each eighth decides, which gives 0-2, 3-4, 5-7."""
    return ordered[(2 * urgent + 1) * len(ordered) // 16]


def _header_urgency(text: str | None) -> int | None:
    """``u`` of a Priority header; None when absent, out of range or malformed."""
    if text is None or len(text) > _HEADER_CHARACTERS_MAX:
        return None
    found: str | None = None
    for member in _COMMA.split(text.strip(" ")):
        match = _MEMBER.fullmatch(member)
        if match is None:
            return None
        if match[1] == "u":
            found = match[2]
    return int(found) if found is not None and re.fullmatch("[0-7]", found) else None


def _asked_seconds(headers: Mapping[str, str]) -> float | None:
    """How long the caller says that it will wait; None when it does not say."""
    prefer = headers.get("prefer")
    if prefer is not None and len(prefer) <= _HEADER_CHARACTERS_MAX:
        for preference in _COMMA.split(prefer.strip(" \t")):
            match = _WAIT.match(preference)
            if match is not None:
                return float(match[1])
    for name in ("x-stainless-read-timeout", "x-stainless-timeout"):
        text = headers.get(name)
        if text is not None and _SECONDS.match(text):
            seconds = float(text)
            if seconds > 0 and not math.isclose(seconds, STAINLESS_TIMEOUT_DEFAULT_SECONDS):
                return seconds
    return None
