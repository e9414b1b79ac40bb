"""What stock clients say beyond their call, and what they are told beyond its answer."""

from __future__ import annotations

import contextlib
import sqlite3

import httpx
import openai
import pytest

CONFIG = """
[workers]
count = 0
[store]
path = "{store}"
[providers.up]
kind = "openai"
base_url = "{url}/v1"
key_env = "UPSTREAM_KEY"
[providers.messages]
kind = "anthropic"
base_url = "{url}"
key_env = "UPSTREAM_KEY"
[deployments.one]
provider = "up"
model = "sandbox"
rpm = 6000
[deployments.two]
provider = "messages"
model = "sandbox"
rpm = 6000
[providers.second]
kind = "openai"
base_url = "{url}/v1"
key_env = "UPSTREAM_KEY"
[deployments.narrow]
provider = "second"
model = "sandbox"
serves = ["narrow"]
rpm = 6
burst_seconds = 10
[tenants.small]
rpm = 100
tpm = 50_000
[keys.person]
tenant = "web"
key_env = "PERSON_KEY"
[keys.limited]
tenant = "small"
key_env = "LIMITED_KEY"
[keys.spent]
tenant = "small"
key_env = "SPENT_KEY"
budget_day_tokens = 1
"""
KEYS = {
    "UPSTREAM_KEY": "upstream-key",
    "PERSON_KEY": "person-key-with-enough-letters",
    "LIMITED_KEY": "limited-key-with-enough-letters",
    "SPENT_KEY": "spent-key-with-enough-letters",
}
PERSON, LIMITED = KEYS["PERSON_KEY"], KEYS["LIMITED_KEY"]
CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
CALL = {
    "model": "sandbox",
    "messages": [{"role": "user", "content": "Say it in 8 words."}],
    "max_tokens": 40,
}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Where the service keeps its ledger."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def service(fast_sandbox, serve, store):
    """A service with a tenant that has limits of its own."""
    sandbox = fast_sandbox("--rpm", "60000")
    return serve(CONFIG.format(url=sandbox.url, store=store), **KEYS)


def post(service, path=CHAT, key=PERSON, headers=(), **fields):
    named = {"x-api-key": key, **dict(headers)}
    return httpx.post(f"{service.url}{path}", json={**CALL, **fields}, headers=named, timeout=30)


def row(store, poll, request_id):
    """The ledger's row of a request, once it is written."""

    def find():
        with contextlib.closing(sqlite3.connect(store / "penstock.db")) as connection:
            connection.row_factory = sqlite3.Row
            query = "SELECT * FROM calls WHERE request_id = ?"
            return connection.execute(query, (request_id,)).fetchone()

    poll(lambda: find() is not None)
    return find()


def test_a_tenant_is_told_its_own_limits_in_its_protocol_s_headers(service):
    chat, messages = post(service, key=LIMITED), post(service, MESSAGES, LIMITED)

    for answer in (chat, messages):
        policy = '"requests";q=100;w=60, "tokens";q=50000;w=60;qu="tokens"'
        assert policy == answer.headers["ratelimit-policy"]
        assert answer.headers["ratelimit"].startswith('"requests";r=9')
    assert "100" == chat.headers["x-ratelimit-limit-requests"]
    assert 90 < int(chat.headers["x-ratelimit-remaining-requests"]) < 100
    assert "50000" == messages.headers["anthropic-ratelimit-tokens-limit"]


def test_who_has_none_is_told_the_deployment_s(service):
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key=PERSON, max_retries=0) as client:
        raw = client.chat.completions.with_raw_response.create(**CALL)
    assert "6000" == raw.headers["x-ratelimit-limit-requests"]


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_a_caller_s_own_user_stands_in_the_ledger_under_a_pseudonym(service, store, poll, path):
    person = "ada@example.com"
    said = {"user": person} if path == CHAT else {"metadata": {"user_id": person}}
    names = [
        row(store, poll, post(service, path, key, **said).headers["x-request-id"])["sub_tenant"]
        for key in (PERSON, PERSON, LIMITED)
    ]

    assert names[0] == names[1] != names[2], "a user is another with another tenant"
    assert all(len(name) == 16 and "ada" not in name for name in names)


def test_a_trace_a_continuation_or_baggage_names_the_run_in_the_ledger(service, store, poll):
    trace = [("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01")]
    traced = post(service, headers=trace)
    continued = post(service, headers=trace, background_options={"continuation_id": "run-7"})
    neither = post(service, headers=[("traceparent", "00-nonsense"), ("baggage", "=,;%")])
    said = "user=ada,penstock.run=run-9,penstock.chain=support,penstock.step=3"
    carried = post(service, headers=[*trace, ("baggage", said)])

    rows = [
        row(store, poll, answer.headers["x-request-id"])
        for answer in (traced, continued, neither, carried)
    ]
    assert [TRACE, "run-7", "", "run-9"] == [one["run_id"] for one in rows]
    assert [("", 0), ("support", 3)] == [(one["chain"], one["step"]) for one in rows[2:]]


def test_a_deadline_that_is_past_is_called_so(service):
    answer = post(service, headers=[("prefer", "wait=0")])

    assert (429, "deadline_unreachable") == (answer.status_code, answer.json()["error"]["code"])
    assert "is past" in answer.json()["detail"]


@pytest.mark.parametrize(
    "said",
    [
        {"metadata": {"deadline": "2"}},
        {"metadata": {"deadline": "2020-01-01T00:00:00Z"}},
        {"background_options": {"completion_window": "2s"}},
        {"headers": [("x-stainless-read-timeout", "2")]},
        {"headers": [("x-stainless-timeout", "2")]},
        {"headers": [("prefer", "wait=2")], "metadata": {"deadline": "500"}},
    ],
)
def test_a_deadline_that_cannot_be_met_is_refused_wherever_it_was_said(service, said):
    post(service, model="narrow", headers=[("prefer", "wait=1")])

    answer = post(service, **{"model": "narrow", **said})

    assert (429, "deadline_unreachable") == (answer.status_code, answer.json()["error"]["code"])
    assert "false" == answer.headers["x-should-retry"]
    assert "retry-after" not in answer.headers
    assert answer.json()["eta_seconds"] > 0
    assert '"requests";q=6;w=60' == answer.headers["ratelimit-policy"]
    assert answer.headers["ratelimit"].startswith('"requests";r=0;t=')
    assert "6" == answer.headers["x-ratelimit-limit-requests"]


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_who_is_refused_for_its_budget_is_told_its_limits(service, path):
    answer = post(service, path, KEYS["SPENT_KEY"])

    assert 402 == answer.status_code
    assert answer.headers["ratelimit-policy"].startswith('"requests";q=100;w=60')
    name = "x-ratelimit-limit-requests" if path == CHAT else "anthropic-ratelimit-requests-limit"
    assert "100" == answer.headers[name]


def test_a_stream_whose_head_comes_while_it_waits_has_the_limits_in_it(service):
    post(service, model="narrow", headers=[("prefer", "wait=1")])
    body = {**CALL, "model": "narrow", "stream": True}

    with httpx.stream(
        "POST", f"{service.url}{CHAT}", json=body, headers={"x-api-key": PERSON}, timeout=30
    ) as answer:
        assert next(answer.iter_lines()).startswith(": queued position=1 eta=")
        assert '"requests";q=6;w=60' == answer.headers["ratelimit-policy"]
        assert answer.headers["ratelimit"].startswith('"requests";r=0;t=')
        assert "penstock-deployment" not in answer.headers
