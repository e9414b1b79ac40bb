"""Why a unit waited, in causes that add up to its wait.

At any moment at which units wait for a model in a class, the first of them is held up by one
thing: a limit that refills, a pause, slots that are taken, or a more urgent unit. That moment
is on the account of whoever stands first. So one clock per class and model, which knows who
stands first and what holds him up, accounts for everybody behind him as well: for a unit of the
same tenant the cause is the same, for one of another tenant it is the other's fair share.
A tenant that waits for its own limits stands beside the line: that time is its own.
A mark is taken when a unit begins to wait; the difference to it is the unit's own account.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from penstock.units import LimitName


class Cause(StrEnum):
    """What a unit can wait for. Refill is told by limit: ``refill:tpm``."""

    HIGHER_CLASS = "higher_class"  # a more urgent unit is to be sent first
    FAIR_SHARE = "fair_share"  # it is another tenant's turn
    TENANT_LIMIT = "tenant_limit"  # its tenant has used up a limit of its own
    CONCURRENCY = "concurrency"  # every slot is taken
    DAY_KEPT = "day_kept"  # what is left of the day is kept for more urgent classes
    PAUSE = "pause"  # the provider asked to be left alone
    SLOW_START = "slow_start"  # the provider was in trouble, and is asked by few at first
    ATTEMPT = "attempt"  # it was sent before, and the provider did not answer it


REFILL = {limit: f"refill:{limit.value}" for limit in LimitName}

HIGHER_CLASS: str = Cause.HIGHER_CLASS.value
FAIR_SHARE: str = Cause.FAIR_SHARE.value
DAY_KEPT: str = Cause.DAY_KEPT.value
CONCURRENT: str = Cause.CONCURRENCY.value
PAUSE: str = Cause.PAUSE.value
SLOW_START: str = Cause.SLOW_START.value
TENANT_LIMIT: str = Cause.TENANT_LIMIT.value


class Beside(msgspec.Struct, frozen=True, gc=False):
    """What passed while a tenant stood beside a line: seconds, and those of a higher class."""

    seconds: float
    higher_class: float


NEVER_BESIDE = Beside(0.0, 0.0)
NO_ACCOUNT: Mapping[str, float] = {}


class Mark(msgspec.Struct, frozen=True, gc=False):
    """A line's accounts at the moment at which a unit began to wait."""

    at: float
    higher_class: float
    own: Mapping[str, float]
    beside: Beside


class LineClock:
    """The account of one line: the units of one class that wait for one model."""

    __slots__ = ("_at", "_beside", "_by_tenant", "_cause", "_higher_class", "_since", "_tenant")

    def __init__(self, now: float) -> None:
        self._at = now
        self._cause = ""
        self._tenant = ""
        self._higher_class = 0.0
        self._by_tenant: dict[str, dict[str, float]] = {}
        self._beside: dict[str, Beside] = {}
        self._since: dict[str, Beside] = {}

    def advance(self, now: float) -> None:
        """Put the time since the last call on the account of what holds up the first unit."""
        seconds = now - self._at
        if seconds <= 0:
            return
        self._at = now
        if self._cause == HIGHER_CLASS:
            self._higher_class += seconds
        else:
            account = self._by_tenant.setdefault(self._tenant, {})
            account[self._cause] = account.get(self._cause, 0.0) + seconds

    def held_up(self, tenant: str, cause: str) -> None:
        """From now on this tenant's unit stands first, and this holds it up."""
        self._tenant, self._cause = tenant, cause

    def step_beside(self, tenant: str) -> None:
        """A tenant waits for its own limits from now on."""
        self._since.setdefault(tenant, Beside(self._at, self._higher_class))
        if self._tenant == tenant:
            self._tenant, self._cause = "", ""

    def step_back(self, tenant: str) -> None:
        """It stands in line again."""
        if tenant in self._since:
            self._beside[tenant] = self._been_beside(tenant)
            del self._since[tenant]

    def _been_beside(self, tenant: str) -> Beside:
        been, since = self._beside.get(tenant, NEVER_BESIDE), self._since.get(tenant)
        if since is None:
            return been
        return Beside(
            been.seconds + self._at - since.seconds,
            been.higher_class + self._higher_class - since.higher_class,
        )

    def mark(self, tenant: str) -> Mark:
        """Where the accounts stand for a unit that begins to wait."""
        account = self._by_tenant.get(tenant)
        own = dict(account) if account else NO_ACCOUNT
        return Mark(self._at, self._higher_class, own, self._been_beside(tenant))

    def causes(self, mark: Mark, tenant: str) -> dict[str, float]:
        """Seconds by cause since the mark; they add up to the time since it."""
        waited = self._at - mark.at
        if waited <= 0:
            return {}
        beside, beside_before = self._been_beside(tenant), mark.beside
        higher_class = self._higher_class - mark.higher_class
        higher_class -= beside.higher_class - beside_before.higher_class
        causes = {HIGHER_CLASS: higher_class, TENANT_LIMIT: beside.seconds - beside_before.seconds}
        own_before = mark.own
        for cause, seconds in self._by_tenant.get(tenant, NO_ACCOUNT).items():
            causes[cause] = seconds - own_before.get(cause, 0.0)
        causes[FAIR_SHARE] = waited - sum(causes.values())
        return {cause: seconds for cause, seconds in causes.items() if seconds > 1e-9}
