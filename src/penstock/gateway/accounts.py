"""What a call leaves behind: its row in the ledger, filled in while it gets on.

The door says how it ended, so every call that came with a known key makes exactly one row, the
refused and the abandoned ones too. A whole answer counts as its provider reported it. One that was
cut off counts what had passed until then; where its caller hung up before it began, its prompt, as
estimated. What a provider refused or failed to answer counts nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from penstock.dispatch.prices import Price, dollars
from penstock.gateway.who import Caller
from penstock.http.auth import Principal
from penstock.http.exchange import Exchange
from penstock.store.budgets import Budgets, Reservation
from penstock.store.ledger import CallRow, Ledger
from penstock.units import CANCELLED_SENT, Grant, Outcome, Unit, Usage

TOKENS_MAX: Final = 10**9
NANO_DOLLARS_MAX: Final = 10**15
"""A provider that reports more for one call reports nonsense, which must not spoil the sums."""


class Accounts:
    """Opens an account for each call. ``wall`` gives Unix time, ``clock`` monotonic seconds.

    ``prices`` and ``prices_expected`` are replaced on a reload: that of each deployment which
    has a known one, and for each model, as units name it, the dearest of its deployments.
    """

    def __init__(
        self,
        ledger: Ledger,
        budgets: Budgets,
        wall: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self.ledger = ledger
        self.budgets = budgets
        self.wall = wall
        self.clock = clock
        self.prices: Mapping[str, Price] = {}
        self.prices_expected: Mapping[str, Price] = {}

    def open(self, exchange: Exchange, principal: Principal) -> Account:
        """The account of a call that has just come in; closed when its exchange ends."""
        row = CallRow(
            request_id=exchange.request_id,
            arrived_at=self.wall(),
            tenant=principal.tenant,
            key_id=principal.key_id,
        )
        account = Account(self, row, exchange)
        exchange.at_end = account.close
        return account


class Account:
    """One call's."""

    __slots__ = (
        "_accounts",
        "_exchange",
        "_granted_at",
        "_price",
        "_reservation",
        "_submitted_at",
        "row",
    )

    def __init__(self, accounts: Accounts, row: CallRow, exchange: Exchange) -> None:
        self.row = row
        self._exchange = exchange
        self._accounts = accounts
        self._submitted_at: float | None = None
        self._granted_at: float | None = None
        self._price: Price | None = None
        self._reservation: Reservation | None = None

    def submit(
        self, unit: Unit, model: str, caller: Caller, service_tier: str | None = None
    ) -> None:
        """The call is a unit now, for a model that is served. Raises BudgetExceeded.

        Called again where another model is asked instead: what was set aside for the first one
        is given back.
        """
        if self._reservation is not None:
            self._accounts.budgets.release(self._reservation)
            self._reservation = None
        row, estimate = self.row, unit.estimate
        row.tenant, row.key_id = unit.tenant, caller.principal.key_id
        row.class_name, row.model = unit.class_name, model
        if caller.run is not None:
            row.chain, row.run_id, row.step = caller.run.chain, caller.run.run_id, caller.run.step
        row.tokens_input_estimated = estimate.tokens_input
        row.tokens_output_estimated = estimate.tokens_output
        row.tokens_output_max = estimate.tokens_output_max
        self._submitted_at = now = self._accounts.clock()
        if unit.deadline is not None:
            row.deadline_seconds = unit.deadline - now
        price = self._accounts.prices_expected.get(unit.model)
        self._reservation, warning = self._accounts.budgets.reserve(
            row.tenant,
            row.key_id,
            estimate.tokens_input + estimate.tokens_output,
            0 if price is None else price.expected(estimate, service_tier),
        )
        if warning is not None:
            self._exchange.response_headers["penstock-budget-warning"] = warning

    def granted(self, grant: Grant) -> None:
        """It may be sent now, at today's price: a reload may take its deployment away under way."""
        row = self.row
        row.deployment, row.attempts = grant.deployment.partition(" ")[0], grant.attempt
        self._price = self._accounts.prices.get(row.deployment)
        row.wait_seconds = grant.wait_seconds
        self._granted_at = grant.granted_at

    def used(self, usage: Usage) -> None:
        """What its answer used; a whole answer is told what it cost."""
        row = self.row
        row.tokens_input = min(usage.tokens_input, TOKENS_MAX)
        row.tokens_input_cached = min(usage.tokens_input_cached, TOKENS_MAX)
        row.tokens_output = min(usage.tokens_output, TOKENS_MAX)
        row.tokens_reasoning = min(usage.tokens_reasoning, TOKENS_MAX)
        price = self._price
        row.nano_dollars = cost = None if price is None else price.nano_dollars(usage)
        if cost is not None:
            row.nano_dollars = min(cost, NANO_DOLLARS_MAX)
            if not self._exchange.started:
                self._exchange.response_headers["penstock-cost-usd"] = dollars(cost)

    def close(self, outcome: Outcome) -> None:
        """It has ended: so its row is complete."""
        row = self.row
        row.outcome = str(outcome)
        if outcome is CANCELLED_SENT and not row.tokens_input:
            # The provider was at work on it; hanging up is no way around a budget.
            self.used(Usage(row.tokens_input_estimated))
        if self._granted_at is not None:
            row.upstream_seconds = self._accounts.clock() - self._granted_at
        elif self._submitted_at is not None:
            row.wait_seconds = self._accounts.clock() - self._submitted_at
        if self._reservation is not None:
            self._accounts.budgets.settle(self._reservation, row)
        self._accounts.ledger.add(row)
