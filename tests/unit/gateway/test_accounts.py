"""What a call's row holds where no answer came."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from penstock.dispatch.prices import Price
from penstock.gateway.accounts import Accounts
from penstock.gateway.who import Caller
from penstock.http.auth import Principal
from penstock.store.budgets import Budget, Budgets
from penstock.store.ledger import CallRow
from penstock.units import Estimate, Grant, Outcome, RunPlace, Unit, Usage

PRINCIPAL = Principal("key", "web", "standard", "interactive")
UNIT = Unit("u", "openai/m", "web", "standard", Estimate(900, 200, 400), RunPlace("u", 0.0), 60.0)
GRANT = Grant("u", "one", {}, 0.0, 0.1, 1)


def row_of(outcome: Outcome, usage: Usage | None = None) -> tuple[CallRow, Budgets]:
    rows: list[CallRow] = []
    budgets = Budgets(lambda: 1e9)
    budgets.adopt({("tenant", "web"): Budget(day_tokens=10_000)})
    ledger: Any = SimpleNamespace(add=rows.append)
    accounts = Accounts(ledger, budgets, lambda: 1e9, lambda: 0.0)
    accounts.prices = {"one": Price(1_000_000_000, 500_000_000, None, 2_000_000_000)}
    exchange: Any = SimpleNamespace(request_id="r", at_end=None, started=False, response_headers={})
    account = accounts.open(exchange, PRINCIPAL)
    account.submit(UNIT, "m", Caller(PRINCIPAL))
    account.granted(GRANT)
    accounts.prices = {}  # a reload took the deployment away
    if usage is not None:
        account.used(usage)
    account.close(outcome)
    return rows[0], budgets


def test_a_hang_up_before_the_answer_pays_for_the_prompt_as_estimated() -> None:
    row, budgets = row_of(Outcome.CANCELLED_SENT)
    counter = budgets.counter(("tenant", "web"))

    assert (row.tokens_input, row.tokens_output) == (900, 0)
    assert row.nano_dollars
    assert counter.spent_day.tokens == 900
    assert counter.reserved_tokens == 0


def test_a_hang_up_in_the_answer_pays_for_what_had_passed() -> None:
    row, _ = row_of(Outcome.CANCELLED_SENT, Usage(700, 12))

    assert (row.tokens_input, row.tokens_output) == (700, 12)


@pytest.mark.parametrize(
    "outcome",
    [Outcome.CANCELLED_WAITING, Outcome.UPSTREAM_UNAVAILABLE, Outcome.UPSTREAM_REJECTED],
)
def test_what_never_began_at_the_provider_pays_nothing(outcome: Outcome) -> None:
    row, budgets = row_of(outcome)

    assert (row.tokens_input, row.tokens_output, row.nano_dollars) == (0, 0, 0)
    assert budgets.counter(("tenant", "web")).spent_day.tokens == 0


def test_a_call_costs_what_its_deployment_did_when_it_was_sent() -> None:
    row, _ = row_of(Outcome.SUCCESS, Usage(700, 12))

    assert (row.tokens_input, row.nano_dollars) == (700, 724_000)
