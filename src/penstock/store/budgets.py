"""Budgets: what a key or a tenant may spend in a day and in a month (UTC), in dollars and tokens.

Each call is checked on two counters in memory, the key's and the tenant's. A call reserves what
it is expected to use before it waits, and gives that back for what it has used when it ends; so
calls at the same time cannot overrun a hard budget together by more than their estimates were
wrong. A call counts in the day and month in which it arrived.

The counters begin with the sums that the ledger holds, so after a crash they lack the rows that
were lost (those of the last 100 ms) and what was under way. Rejected: asking the database at each
call (a millisecond, and a wait for the writer), and reserving the maximum instead of the estimate
(a budget of a dollar would then admit three calls at a time where it pays for thousands).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, Literal, TypeAlias

import msgspec

from penstock.errors import BudgetExceeded
from penstock.store.ledger import DAY_SECONDS, CallRow, Spent, day_of

WARNING_SHARE: Final = 0.8
"""From this share of a budget on, answers carry a warning."""
NANO_DOLLARS: Final = 1_000_000_000

Scope: TypeAlias = tuple[Literal["key", "tenant"], str]
"""Whose budget: a key by its id, or a tenant by its name."""
Period: TypeAlias = Literal["day", "month"]
Measure: TypeAlias = Literal["usd", "tokens"]

_SPENT: Final = (
    "SELECT day, tenant, key_id, calls, tokens, nano_dollars FROM spent WHERE day >= :day"
)


class Budget(msgspec.Struct, frozen=True):
    """What may be spent; None where nothing bounds it. Over a soft one calls are only warned."""

    day_usd: float | None = None
    month_usd: float | None = None
    day_tokens: int | None = None
    month_tokens: int | None = None
    hard: bool = True

    def limits(self) -> Iterator[tuple[Period, Measure, int]]:
        """Each bound, in nano-dollars or tokens."""
        if self.day_usd is not None:
            yield "day", "usd", round(self.day_usd * NANO_DOLLARS)
        if self.month_usd is not None:
            yield "month", "usd", round(self.month_usd * NANO_DOLLARS)
        if self.day_tokens is not None:
            yield "day", "tokens", self.day_tokens
        if self.month_tokens is not None:
            yield "month", "tokens", self.month_tokens


class Counter(msgspec.Struct):
    """What one scope has spent in the running day and month, and what is under way.

    ``spent_before`` is the month's without the day's, so that a call is counted once.
    """

    day: int = 0
    month: int = 0
    spent_day: Spent = msgspec.field(default_factory=Spent)
    spent_before: Spent = msgspec.field(default_factory=Spent)
    reserved_tokens: int = 0
    reserved_nano_dollars: int = 0

    def move_to(self, day: int) -> None:
        """Begin a new day, and a new month where one has begun."""
        if day <= self.day:
            return
        month = month_of(day)
        self.spent_before = self.spent_month if month == self.month else Spent()
        self.day, self.month, self.spent_day = day, month, Spent()

    @property
    def spent_month(self) -> Spent:
        """What it has spent in the running month."""
        before, day = self.spent_before, self.spent_day
        return Spent(
            before.calls + day.calls,
            before.tokens + day.tokens,
            before.nano_dollars + day.nano_dollars,
        )

    def used(self, period: Period, measure: Measure) -> int:
        """Spent and under way."""
        spent = self.spent_day if period == "day" else self.spent_month
        if measure == "tokens":
            return spent.tokens + self.reserved_tokens
        return spent.nano_dollars + self.reserved_nano_dollars


class Reservation(msgspec.Struct, frozen=True):
    """What one call is expected to spend, on which counters; settled exactly once."""

    counters: tuple[Counter, Counter]
    tokens: int
    nano_dollars: int


class Budgets:
    """Counts what everybody spends, and holds it against the budgets. On the event loop only."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._budgets: Mapping[Scope, tuple[bool, tuple[tuple[Period, Measure, int], ...]]] = {}
        self._counters: dict[Scope, Counter] = {}

    def adopt(self, budgets: Mapping[Scope, Budget]) -> None:
        """Go by these from now on; what has been spent stays."""
        bounds = {scope: (one.hard, tuple(one.limits())) for scope, one in budgets.items()}
        self._budgets = {scope: bound for scope, bound in bounds.items() if bound[1]}

    def begin_with(self, sums: Iterable[tuple[int, str, str, Spent]]) -> None:
        """Take over what the ledger says of this month: day, tenant, key and what they spent."""
        today = day_of(self._wall())
        for day, tenant, key_id, spent in sums:
            scopes: tuple[Scope, Scope] = (("key", key_id), ("tenant", tenant))
            for scope in scopes:
                counter = self.counter(scope, today)
                if day == today:
                    counter.spent_day.add(*msgspec.structs.astuple(spent))
                elif month_of(day) == counter.month:
                    counter.spent_before.add(*msgspec.structs.astuple(spent))

    def reserve(
        self, tenant: str, key_id: str, tokens: int, nano_dollars: int
    ) -> tuple[Reservation, str | None]:
        """Set aside what a call is expected to spend; with it a warning where little is left.

        Raises BudgetExceeded where a hard budget does not hold so much any more.
        """
        today = day_of(self._wall())
        scopes: tuple[Scope, Scope] = (("key", key_id), ("tenant", tenant))
        warning: str | None = None
        counters = self.counter(scopes[0], today), self.counter(scopes[1], today)
        for scope, counter in zip(scopes, counters, strict=True) if self._budgets else ():
            bound = self._budgets.get(scope)
            if bound is None:
                continue
            is_hard, limits = bound
            for period, measure, limit in limits:
                expected = tokens if measure == "tokens" else nano_dollars
                used = counter.used(period, measure)
                if is_hard and (used >= limit or used + expected > limit):
                    raise self._exceeded(scope, period, measure, today, is_gone=used >= limit)
                share = (used + expected) / limit if limit else 1.0
                if share >= WARNING_SHARE and warning is None:
                    warning = f"{scope[0]}; period={period}; unit={measure}; used={share:.2f}"
        for counter in counters:
            counter.reserved_tokens += tokens
            counter.reserved_nano_dollars += nano_dollars
        return Reservation(counters, tokens, nano_dollars), warning

    def release(self, reservation: Reservation) -> None:
        """Nothing was spent: what was set aside is free again."""
        for counter in reservation.counters:
            counter.reserved_tokens -= reservation.tokens
            counter.reserved_nano_dollars -= reservation.nano_dollars

    def settle(self, reservation: Reservation, row: CallRow) -> None:
        """Put what the call has used in the place of what it was expected to."""
        self.release(reservation)
        today, arrived = day_of(self._wall()), day_of(row.arrived_at)
        tokens, nano_dollars = row.tokens_input + row.tokens_output, row.nano_dollars or 0
        for counter in reservation.counters:
            counter.move_to(today)
            if arrived == counter.day:
                counter.spent_day.add(1, tokens, nano_dollars)
            elif month_of(arrived) == counter.month:
                counter.spent_before.add(1, tokens, nano_dollars)

    def names(self, kind: Literal["key", "tenant"]) -> list[str]:
        """Whose spending is counted, of that kind."""
        return [name for scope, name in self._counters if scope == kind]

    def counter(self, scope: Scope, today: int | None = None) -> Counter:
        """What one scope has spent, now."""
        counter = self._counters.get(scope)
        if counter is None:
            counter = self._counters[scope] = Counter()
        counter.move_to(day_of(self._wall()) if today is None else today)
        return counter

    def _exceeded(
        self, scope: Scope, period: Period, measure: Measure, today: int, *, is_gone: bool
    ) -> BudgetExceeded:
        whose = "this API key" if scope[0] == "key" else "this tenant"
        unit = "dollars" if measure == "usd" else "tokens"
        state = "is used up" if is_gone else "holds less than this call is expected to use"
        reset = _reset(period, today)
        return BudgetExceeded(
            f"The budget of {whose} for this {period}, in {unit}, {state}. It begins anew on "
            f"{reset:%Y-%m-%d} at 00:00 UTC; the operator of this service can raise it.",
            resets_at=reset.timestamp(),
        )


def spent_since(connection: sqlite3.Connection, day: int) -> list[tuple[int, str, str, Spent]]:
    """What the ledger says was spent from that day on."""
    rows = connection.execute(_SPENT, {"day": day})
    return [(row[0], row[1], row[2], Spent(*row[3:])) for row in rows]


@lru_cache(maxsize=64)
def month_of(day: int) -> int:
    """The month of a day, counted from the year 0."""
    date = datetime.fromtimestamp(day * DAY_SECONDS, UTC)
    return date.year * 12 + date.month - 1


def first_of_month(day: int) -> int:
    """The first day of a day's month."""
    return day - datetime.fromtimestamp(day * DAY_SECONDS, UTC).day + 1


def _reset(period: Period, today: int) -> datetime:
    now = datetime.fromtimestamp(today * DAY_SECONDS, UTC)
    if period == "day":
        return now + timedelta(days=1)
    return (now.replace(day=1) + timedelta(days=32)).replace(day=1)
