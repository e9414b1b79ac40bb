"""A tier of service goes to the deployments that allow it, and costs what it was answered in."""

from __future__ import annotations

import contextlib
import json
import sqlite3

import httpx
import pytest

CONFIG = """
[workers]
count = 0
[store]
path = "{store}"
[providers.up]
kind = "openai"
base_url = "{url}/v1"
[providers.messages]
kind = "anthropic"
base_url = "{url}"
[deployments.tiered]
provider = "up"
rpm = 60_000
price_input = 1000.0
price_output = 0.0
service_tiers = { flex = 0.5, priority = 2.0 }
[deployments.plain]
provider = "up"
rpm = 60_000
price_input = 1000.0
price_output = 0.0
[deployments.claude]
provider = "messages"
rpm = 60_000
price_input = 1000.0
price_output = 0.0
service_tiers = { auto = 1.0, priority = 2.0 }
[keys.person]
tenant = "web"
key_env = "PERSON_KEY"
"""
KEY = "person-key-with-enough-letters"
CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
USAGE = {"prompt_tokens": 1000, "completion_tokens": 0}


def whole(path, tier):
    """An answer of a thousand tokens of input, in that tier."""
    used = {"input_tokens": 1000, "output_tokens": 0}
    if path == CHAT:
        return {"choices": [{"index": 0}], "usage": USAGE, "service_tier": tier}
    if path == RESPONSES:
        return {"id": "r", "output": [], "usage": used, "service_tier": tier}
    return {"content": [], "usage": {**used, "service_tier": tier}}


@pytest.fixture(scope="module")
def provider(raw_providers):
    return raw_providers()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def service(serve, provider, store):
    config = CONFIG.replace("{url}", provider.url).replace("{store}", str(store))
    return serve(config, PERSON_KEY=KEY)


@pytest.mark.parametrize(
    ("model", "path", "tiers", "cost"),
    [
        ("tiered", CHAT, ("flex", "flex", "flex"), "0.5"),
        ("tiered", CHAT, ("priority", "priority", "priority"), "2.0"),
        ("tiered", CHAT, ("priority", "priority", "default"), "1.0"),
        ("tiered", CHAT, ("flex", "flex", None), "0.5"),
        ("tiered", CHAT, ("scale", None, {"a": "flex"}), "1.0"),
        ("tiered", RESPONSES, ("flex", "flex", "flex"), "0.5"),
        ("plain", CHAT, ("flex", None, "default"), "1.0"),
        ("claude", MESSAGES, ("auto", "auto", "priority"), "2.0"),
        ("claude", MESSAGES, ("standard_only", None, "standard"), "1.0"),
    ],
)
def test_a_tier_is_sent_and_paid_for_where_the_deployment_allows_it(
    service, provider, said, model, path, tiers, cost
):
    asked, sent, answered = tiers
    provider.answers = lambda: said(json.dumps(whole(path, answered)).encode())
    field = "input" if path == RESPONSES else "messages"
    body = {"model": model, field: [], "max_tokens": 1, "service_tier": asked}

    answer = httpx.post(f"{service.url}{path}", json=body, headers={"x-api-key": KEY}, timeout=30)

    assert 200 == answer.status_code, answer.text
    assert sent == json.loads(provider.bodies[-1]).get("service_tier")
    assert float(cost) == float(answer.headers["penstock-cost-usd"])


def test_a_stream_that_breaks_is_paid_for_in_the_tier_that_was_sent(
    service, provider, said, poll, store
):
    chunk = {"choices": [{"index": 0, "delta": {"content": "hi"}}]}
    event = b"data: " + json.dumps(chunk).encode() + b"\n\n"
    provider.answers = lambda: said(event, b"content-type: text/event-stream")
    body = {"model": "tiered", "messages": [], "stream": True, "service_tier": "priority"}

    with httpx.stream(
        "POST", f"{service.url}{CHAT}", json=body, headers={"x-api-key": KEY}, timeout=30
    ) as answer:
        said_late = b"".join(answer.iter_raw())
        request_id = answer.headers["x-request-id"]

    def rows():
        with contextlib.closing(sqlite3.connect(store / "penstock.db")) as connection:
            query = "SELECT tokens_input, nano_dollars FROM calls WHERE request_id = ?"
            return connection.execute(query, (request_id,)).fetchall()

    assert b"upstream_disconnected" in said_late
    poll(lambda: len(rows()) == 1)
    tokens, nano_dollars = rows()[0]
    assert tokens > 0
    assert nano_dollars == tokens * 1_000_000 * 2
