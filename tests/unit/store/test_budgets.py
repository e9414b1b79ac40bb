"""Budgets: what is refused, what is warned of, when they begin anew, and that nothing leaks."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import BudgetExceeded
from penstock.store.budgets import (
    Budget,
    Budgets,
    Reservation,
    Scope,
    first_of_month,
    month_of,
)
from penstock.store.ledger import DAY_SECONDS, CallRow, Spent, day_of

NOON = datetime(2026, 12, 31, 12, tzinfo=UTC).timestamp()
KEY: Scope = ("key", "k")
TENANT: Scope = ("tenant", "web")


class World:
    def __init__(self, budget: Budget, scope: Scope = TENANT) -> None:
        self.now = NOON
        self.budgets = Budgets(lambda: self.now)
        self.budgets.adopt({scope: budget})

    def reserve(self, tokens: int, nano: int = 0, key: str = "k") -> Reservation:
        return self.budgets.reserve("web", key, tokens, nano)[0]

    def settle(self, reservation: Reservation, tokens: int, nano: int | None = 0) -> None:
        row = CallRow(
            request_id="r",
            arrived_at=self.now,
            tenant="web",
            key_id="k",
            tokens_input=tokens,
            nano_dollars=nano,
        )
        self.budgets.settle(reservation, row)


@pytest.mark.parametrize("scope", [KEY, TENANT])
def test_a_hard_budget_refuses_what_it_does_not_hold(scope: Scope) -> None:
    world = World(Budget(day_tokens=100), scope)
    world.settle(world.reserve(60), 60)
    with pytest.raises(BudgetExceeded, match="holds less than this call is expected"):
        world.reserve(41)
    world.settle(world.reserve(40), 40)
    with pytest.raises(BudgetExceeded, match="in tokens, is used up") as caught:
        world.reserve(0)

    assert caught.value.status == 402
    assert caught.value.code == "insufficient_quota"
    assert caught.value.resets_at == datetime(2027, 1, 1, tzinfo=UTC).timestamp()


def test_calls_at_the_same_time_cannot_overrun_a_budget_together() -> None:
    world = World(Budget(month_usd=1e-6))
    flying = [world.reserve(1, nano=100) for _ in range(10)]
    with pytest.raises(BudgetExceeded, match="in dollars"):
        world.reserve(1, nano=100)
    world.settle(flying.pop(), 1, nano=10)

    assert world.reserve(1, nano=90)


def test_a_soft_budget_warns_and_refuses_nothing() -> None:
    world = World(Budget(day_tokens=100, hard=False))
    assert world.budgets.reserve("web", "k", 79, 0)[1] is None
    assert world.budgets.reserve("web", "k", 1, 0)[1] == (
        "tenant; period=day; unit=tokens; used=0.80"
    )
    assert world.budgets.reserve("web", "k", 1000, 0)[1] is not None


def test_a_day_and_a_month_begin_anew_by_utc() -> None:
    world = World(Budget(day_tokens=10, month_tokens=15))
    world.now -= DAY_SECONDS
    world.settle(world.reserve(10), 10)
    world.now += DAY_SECONDS
    world.settle(world.reserve(5), 5)
    with pytest.raises(BudgetExceeded, match="for this month") as caught:
        world.reserve(1)
    world.now = caught.value.resets_at

    world.settle(world.reserve(10), 10)
    with pytest.raises(BudgetExceeded, match="for this day"):
        world.reserve(1)


def test_a_call_counts_where_it_arrived_and_its_reservation_ends_anyway() -> None:
    world = World(Budget(month_tokens=10))
    reservation = world.reserve(10)
    row = CallRow(request_id="r", arrived_at=world.now, tenant="web", key_id="k", tokens_input=10)
    world.now += DAY_SECONDS  # the next year
    world.budgets.settle(reservation, row)

    assert world.reserve(10)


def test_counting_goes_on_from_the_sums_of_the_ledger() -> None:
    world = World(Budget(day_tokens=10, month_tokens=100))
    today = day_of(NOON)
    world.budgets.begin_with(
        [
            (today, "web", "k", Spent(1, 6, 0)),
            (today - 1, "web", "other", Spent(1, 50, 0)),
            (first_of_month(today) - 1, "web", "k", Spent(1, 1000, 0)),
        ]
    )
    counter = world.budgets.counter(TENANT)

    assert (counter.spent_day.tokens, counter.spent_month.tokens) == (6, 56)
    assert world.budgets.counter(KEY).spent_month.tokens == 6
    with pytest.raises(BudgetExceeded):
        world.reserve(5)


@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.integers(0, 50), st.booleans()), min_size=1, max_size=30
    )
)
def test_a_hard_budget_is_overrun_by_no_more_than_estimates_were_wrong(
    plays: list[tuple[int, int, bool]],
) -> None:
    """And when all calls have ended nothing is reserved any more."""
    world = World(Budget(day_tokens=200))
    flying: list[tuple[Reservation, int]] = []
    wrong = used = 0
    for expected, actual, ends in plays:
        try:
            flying.append((world.reserve(expected), actual))
        except BudgetExceeded:
            continue
        wrong += max(0, actual - expected)
        if ends:
            reservation, amount = flying.pop(0)
            world.settle(reservation, amount)
            used += amount
    for reservation, amount in flying:
        world.settle(reservation, amount)
        used += amount
    counter = world.budgets.counter(TENANT)

    assert used <= 200 + wrong
    assert counter.spent_day.tokens == counter.spent_month.tokens == used
    assert counter.reserved_tokens == 0


@given(st.integers(0, 40_000))
def test_the_month_of_a_day_is_the_calendars(day: int) -> None:
    date = datetime.fromtimestamp(day * DAY_SECONDS, UTC)

    assert divmod(month_of(day), 12) == (date.year, date.month - 1)
    assert datetime.fromtimestamp(first_of_month(day) * DAY_SECONDS, UTC).day == 1
    assert month_of(first_of_month(day)) == month_of(day)
