"""What the ledger, the prices and the budgets cost a call, in CPU of the event loop.

Run it with ``./dev run python benchmarks/ledger_cost.py``. It opens, fills in and closes accounts
as the gateway does, with a price and a budget, and lets the ledger write them to a store in a
temporary directory. CPU seconds of this thread are the event loop's share; those of the process
hold the writer's thread, too. Medians of rounds.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from penstock.dispatch.prices import Price
from penstock.gateway.accounts import Accounts
from penstock.gateway.who import Caller
from penstock.http.auth import Principal
from penstock.http.exchange import Exchange
from penstock.store.budgets import Budget, Budgets
from penstock.store.ledger import Ledger
from penstock.store.writer import Writer
from penstock.units import Estimate, Grant, Outcome, RunPlace, Unit, Usage

CALLS, ROUNDS = 5_000, 7
PRINCIPAL = Principal("key", "web", "standard", "interactive")
UNIT = Unit("u", "openai/m", "web", "standard", Estimate(900, 200, 400), RunPlace("u", 0.0), 60.0)
GRANT = Grant("u", "one", {}, 0.0, 0.1, 1)
USAGE = Usage(900, 180, 300, 20)


def one_call(accounts: Accounts) -> None:
    exchange: Any = SimpleNamespace(request_id="r", at_end=None, started=False, response_headers={})
    account = accounts.open(cast("Exchange", exchange), PRINCIPAL)
    account.submit(UNIT, "m", Caller(PRINCIPAL))
    account.granted(GRANT)
    account.used(USAGE)
    account.close(Outcome.SUCCESS)


async def measured(file: Path) -> tuple[float, float]:
    """Microseconds of the loop's thread and of the process for each call."""
    writer = Writer(file)
    lost: list[int] = []
    ledger = Ledger(writer, lost.append)
    budgets = Budgets(time.time)
    budgets.adopt({("tenant", "web"): Budget(day_usd=1e6, month_tokens=10**12)})
    accounts = Accounts(ledger, budgets, time.time, time.monotonic)
    accounts.prices = {"one": Price(2_500_000_000, 1_250_000_000, None, 10_000_000_000)}
    accounts.prices_expected = {"openai/m": accounts.prices["one"]}
    thread, process = time.thread_time(), time.process_time()
    for number in range(CALLS):
        one_call(accounts)
        if number % 20 == 0:
            await asyncio.sleep(0)
    await ledger.close()
    costs = time.thread_time() - thread, time.process_time() - process
    await asyncio.to_thread(writer.close)
    assert not lost
    return costs[0] / CALLS * 1e6, costs[1] / CALLS * 1e6


def main() -> None:
    rounds = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as directory:
            rounds.append(asyncio.run(measured(Path(directory) / "penstock.db")))
    loop, whole = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(f"event loop {loop:.1f} us a call, with the writer's thread {whole:.1f} us")


if __name__ == "__main__":
    main()
