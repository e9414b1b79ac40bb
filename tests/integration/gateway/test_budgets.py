"""Budgets at a real door: the right refusal in each protocol, a warning before, and a restart."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import anthropic
import httpx
import openai
import pytest

CONFIG = """
[workers]
count = 0
[store]
path = "{store}"
[providers.openai]
kind = "openai"
base_url = "{url}/v1"
key_env = "UPSTREAM_KEY"
[providers.anthropic]
kind = "anthropic"
base_url = "{url}"
key_env = "UPSTREAM_KEY"
[deployments.one]
provider = "openai"
model = "sandbox"
tpm = 1_000_000
price_input = 1000
price_output = 1000
[deployments.two]
provider = "anthropic"
model = "sandbox"
itpm = 1_000_000
[tenants.poor]
budget_day_tokens = 400
[tenants.warned]
budget_month_usd = 0.000001
budget_hard = false
[keys.poor]
tenant = "poor"
key_env = "POOR_KEY"
[keys.warned]
tenant = "warned"
key_env = "WARNED_KEY"
"""
ENVIRONMENT = {
    "UPSTREAM_KEY": "x",
    "POOR_KEY": "poor-key-with-letters",
    "WARNED_KEY": "warned-key-with-letters",
}
MESSAGES = [{"role": "user", "content": "Hello " * 40}]
BODY = {"model": "sandbox", "max_tokens": 60, "messages": MESSAGES}


def spend(client: openai.OpenAI) -> int:
    """Call until the budget refuses; how often it did not."""
    answered: list[object] = []

    def call_on() -> None:
        while len(answered) < 20:
            answered.append(client.chat.completions.create(**BODY))

    with pytest.raises(openai.APIStatusError) as caught:
        call_on()
    assert caught.value.status_code == 402
    assert caught.value.code == "insufficient_quota"
    assert "tenant for this day, in tokens" in caught.value.message
    return len(answered)


def rows_with(store: Path, outcome: str) -> int:
    """How many rows of the ledger have that outcome."""
    with closing(sqlite3.connect(store / "penstock.db")) as connection:
        counted = connection.execute("SELECT count(*) FROM calls WHERE outcome = ?", (outcome,))
        return int(counted.fetchone()[0])


def test_a_spent_budget_refuses_with_402_also_after_a_kill(
    fast_sandbox, tmp_path: Path, serve, poll
) -> None:
    store = tmp_path / "state"
    config = CONFIG.replace("{url}", fast_sandbox().url).replace("{store}", str(store))
    service = serve(config, **ENVIRONMENT)
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key=ENVIRONMENT["POOR_KEY"]) as client:
        assert 1 <= spend(client) <= 8
    with (
        anthropic.Anthropic(base_url=service.url, api_key=ENVIRONMENT["POOR_KEY"]) as messages,
        pytest.raises(anthropic.APIStatusError) as caught,
    ):
        messages.messages.create(**BODY)
    assert caught.value.status_code == 402
    assert caught.value.body["error"]["type"] == "billing_error"
    with httpx.Client(base_url=service.url) as plain:
        warned = plain.post(
            "/v1/chat/completions", json=BODY, headers={"x-api-key": ENVIRONMENT["WARNED_KEY"]}
        )
    assert warned.status_code == 200
    assert warned.headers["penstock-budget-warning"].startswith("tenant; period=month; unit=usd")
    poll(lambda: rows_with(store, "refused_budget") == 2)
    service.stop(9)

    again = serve(config, **ENVIRONMENT)
    with openai.OpenAI(base_url=f"{again.url}/v1", api_key=ENVIRONMENT["POOR_KEY"]) as client:
        assert spend(client) == 0
