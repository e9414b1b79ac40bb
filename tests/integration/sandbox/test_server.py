"""The server's own doors: time, hang-ups, statistics, errors, and both shapes' refusals."""

from __future__ import annotations

import httpx
import pytest

from penstock.simulate.provider_world import ProviderLimits

BODY = {"model": "sandbox", "messages": [{"role": "user", "content": "in 200 words"}]}


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_takes_the_time_that_is_set(start, stream):
    sandbox = start(latency_seconds=0.1, tokens_per_second=500.0)
    text = sandbox.chat("in 200 words", max_tokens=50, stream=stream).text
    (call,) = sandbox.stats(calls=1)["last_calls"]

    assert 0.2 <= call["duration_seconds"] < 1
    assert call["tokens_output"] == 50
    assert not stream or text.count('"delta":{"content":') > 20


def test_the_first_token_of_a_stream_comes_before_the_last(start):
    sandbox = start(latency_seconds=0.05, tokens_per_second=10.0)
    with sandbox.http.stream(
        "POST", "/v1/chat/completions", json={**BODY, "stream": True}
    ) as response:
        lines = response.iter_lines()
        first = next(line for line in lines if '"delta":{"content":"Y' in line)
        assert sandbox.stats()["in_flight"] == 1

    assert "You" in first


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_a_hang_up_stops_generation_and_is_counted_with_what_was_produced(start, path):
    sandbox = start(tokens_per_second=200.0, limits=ProviderLimits(concurrency=1))
    with sandbox.http.stream(
        "POST", path, json={**BODY, "stream": True, "max_tokens": 1000}
    ) as response:
        for line in response.iter_lines():
            if '"text_delta"' in line or '"delta":{"content":' in line:
                break

    sandbox.wait_until_ended()
    stats = sandbox.stats(calls=1)
    record = stats["last_calls"][0]
    assert stats["cancelled"] == 1
    assert ("cancelled", 200) == (record["answer"], record["status"])
    assert 0 < record["tokens_output"] < 100
    assert stats["by_model"]["sandbox"]["tokens_output"] == record["tokens_output"]
    assert stats["in_flight"] == 0
    assert stats["pools"][0]["counters"]["tokens_produced"] == record["tokens_output"]


def test_a_caller_that_leaves_before_the_first_byte_is_counted_too(start):
    sandbox = start(latency_seconds=30.0)
    with pytest.raises(httpx.ReadTimeout):
        sandbox.http.post("/v1/chat/completions", json=BODY, timeout=0.2)

    sandbox.wait_until_ended()
    stats = sandbox.stats(calls=1)
    assert stats["cancelled"] == 1
    assert stats["last_calls"][0]["tokens_output"] == 0


def test_statistics_tell_what_was_answered_and_can_be_reset(start):
    sandbox = start(limits=ProviderLimits(rpm=2))
    statuses = [sandbox.chat().status_code for _ in range(3)]
    sandbox.http.post(
        "/v1/chat/completions", json={"model": "none", "messages": [{"role": "user"}]}
    )
    stats = sandbox.stats(calls=2)

    assert statuses == [200, 200, 429]
    assert stats["by_status"] == {"200": 2, "429": 1, "404": 1}
    assert stats["by_answer"]["denied"] == stats["by_answer"]["rejected"] == 1
    assert stats["pools"][0]["counters"]["denied"] == {"rpm": 1}
    assert stats["pools"][0]["counters"]["requests_admitted"] == 2
    denied, rejected = stats["last_calls"]
    assert ("rpm", "…1234") == (denied["limit"], denied["key"])
    assert denied["user_agent"].startswith("python-httpx/")
    assert rejected["status"] == 404

    sandbox.http.post("/stats/reset")
    assert sandbox.stats()["calls"] == 0
    assert sandbox.chat().status_code == 429, "limits are not reset with the statistics"


def test_the_same_conversation_gets_the_same_words_and_another_gets_others(sandbox):
    def text(*arguments: str) -> str:
        return sandbox.chat(*arguments).json()["choices"][0]["message"]["content"]

    assert text("mill") == text("mill")
    assert text("mill")[20:] != text("gate")[20:]
    assert len(text("Describe it in 17 words.").split()) == 17


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/v1/chat/completions", "openai"), ("/v1/messages", "anthropic")],
)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'{"model":"sandbox"}',
        b'{"model":1,"messages":[],"max_tokens":1}',
        b'{"model":"sandbox","messages":[],"max_tokens":1}',
        b'{"model":"sandbox","messages":[{"role":"king","content":"x"}],"max_tokens":1}',
        b'{"model":"sandbox","messages":[{"role":"user","content":"x"}],"max_tokens":0}',
        b'{"model":"sandbox","messages":' + b"[" * 100_000,
        b'{"model":"sandbox","messages":[{"role":"user","content":"\xff"}],"max_tokens":1}',
    ],
)
def test_a_bad_body_is_refused_in_the_provider_s_shape(sandbox, path, kind, body):
    answer = sandbox.http.post(path, content=body)
    told = answer.json()

    assert answer.status_code == 400
    assert told["error"]["type"] == "invalid_request_error"
    assert (told.get("type") == "error") == (kind == "anthropic")


def test_a_call_without_a_key_is_refused_in_the_provider_s_shape(sandbox):
    with httpx.Client(base_url=sandbox.url) as keyless:
        openai_answer = keyless.post("/v1/chat/completions", json=BODY)
        anthropic_answer = keyless.post("/v1/messages", json=BODY)
        models = keyless.get("/v1/models")

    assert openai_answer.status_code == anthropic_answer.status_code == models.status_code == 401
    assert "You didn't provide an API key" in openai_answer.json()["error"]["message"]
    assert anthropic_answer.json()["error"]["type"] == "authentication_error"


def test_paths_that_are_not_served_are_not_found(sandbox):
    for method, path in (("GET", "/v1/chat/completions"), ("POST", "/v1/none"), ("GET", "/")):
        assert sandbox.http.request(method, path).status_code == 404
    assert sandbox.http.get("/healthz").status_code == 200
    assert sandbox.http.get("/stats", params={"calls": "many"}).status_code == 400


def test_a_body_over_the_cap_is_refused(sandbox):
    answer = sandbox.http.post("/v1/chat/completions", content=b" " * (33 * 1024 * 1024))

    assert answer.status_code == 413


def test_concurrency_is_enforced_without_a_time_to_come_back(start):
    sandbox = start(tokens_per_second=10.0, limits=ProviderLimits(concurrency=1))
    with sandbox.http.stream("POST", "/v1/chat/completions", json={**BODY, "stream": True}):
        denied = sandbox.chat()

    assert denied.status_code == 429
    assert "concurrent requests: Limit 1, Used 1" in denied.json()["error"]["message"]
    assert "retry-after" not in denied.headers
    sandbox.wait_until_ended(calls=2)
    assert sandbox.chat(max_tokens=1).status_code == 200
