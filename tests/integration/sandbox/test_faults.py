"""Each fault looks to the caller as it is described, and the provider counts it."""

from __future__ import annotations

import gzip
import json

import anthropic
import httpx
import openai
import pytest

from penstock.sandbox.faults import FAULTS, FaultRate
from penstock.simulate.provider_world import ProviderLimits

FAULT = "x-sandbox-fault"
PATIENCE = httpx.Timeout(5, read=0.3)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("401", openai.AuthenticationError),
        ("403", openai.PermissionDeniedError),
        ("429", openai.RateLimitError),
        ("500", openai.InternalServerError),
        ("503", openai.InternalServerError),
        ("reset-before", openai.APIConnectionError),
        ("close-mid-stream", openai.APIConnectionError),
    ],
)
def test_the_openai_sdk_raises_its_own_error(sandbox, fault, error):
    client = sandbox.openai()

    with pytest.raises(error):
        client.chat.completions.create(
            model="sandbox",
            messages=[{"role": "user", "content": "hi"}],
            extra_headers={FAULT: fault},
        )
    assert sandbox.stats()["faults_injected"] == {fault: 1}


def test_the_anthropic_sdk_raises_its_own_error_in_a_stream(sandbox):
    client = sandbox.anthropic()
    message = {"model": "sandbox", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}

    with pytest.raises(anthropic.APIStatusError, match="Overloaded") as plain:
        client.messages.create(**message, extra_headers={FAULT: "529"})
    with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
        list(
            client.messages.create(
                **message, stream=True, extra_headers={FAULT: "error-mid-stream"}
            )
        )
    assert plain.value.status_code == 529


def test_429_variants_differ_in_what_they_tell(sandbox):
    told = sandbox.chat(headers={FAULT: "429"})
    bare = sandbox.chat(headers={FAULT: "429-bare"})
    nonsense = sandbox.chat(headers={FAULT: "429-nonsense"})
    quota = sandbox.chat(headers={FAULT: "429-quota"})

    assert ("100", "1") == (told.headers["retry-after-ms"], told.headers["retry-after"])
    assert "retry-after" not in bare.headers
    assert nonsense.headers["retry-after"] == "banana"
    assert quota.json()["error"]["code"] == "insufficient_quota"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", ["reset-mid-stream", "close-mid-stream"])
def test_a_connection_that_breaks_in_the_middle_had_begun_well(sandbox, fault, stream):
    body = {"model": "sandbox", "messages": [{"role": "user", "content": "x"}], "stream": stream}
    got: list[bytes] = []
    with sandbox.http.stream(
        "POST", "/v1/chat/completions", json=body, headers={FAULT: fault}
    ) as response:
        assert response.status_code == 200
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            got.extend(response.iter_raw())

    # A reset may take with it what a slow reader has not read yet.
    if fault == "close-mid-stream":
        assert b"".join(got).startswith(b"data: " if stream else b'{"id"')
    assert b"[DONE]" not in b"".join(got)


@pytest.mark.parametrize("fault", ["stall", "stall-mid-stream"])
def test_a_stall_lasts_until_the_caller_gives_up_and_frees_its_slot(start, fault):
    sandbox = start(limits=ProviderLimits(concurrency=1))
    body = {"model": "sandbox", "messages": [{"role": "user", "content": "x"}], "stream": True}
    with pytest.raises(httpx.ReadTimeout):
        sandbox.http.post(
            "/v1/chat/completions", json=body, headers={FAULT: fault}, timeout=PATIENCE
        )

    sandbox.wait_until_ended()
    assert sandbox.stats()["in_flight"] == 0
    assert sandbox.chat().status_code == 200


def test_streams_are_broken_as_described(sandbox):
    def lines(fault: str) -> list[str]:
        return sandbox.chat(stream=True, headers={FAULT: fault}).text.splitlines()

    malformed, truncated = lines("malformed-sse"), lines("truncated-json")

    assert "this line has no field" in malformed
    assert truncated[-2] == 'data: {"id":"cut","obj'
    for last in (line for line in truncated[:-2] if line):
        json.loads(last.removeprefix("data: "))


def test_bodies_are_broken_as_described(sandbox):
    def content(fault: str) -> httpx.Response:
        return sandbox.chat(headers={FAULT: fault, "accept-encoding": "identity"})

    assert content("html").headers["content-type"].startswith("text/html")
    assert content("502").status_code == 502
    assert content("empty").content == b""
    assert content("null").json() is None
    assert "usage" not in content("no-usage").json()
    assert len(content("huge-line").content) > 16 * 1024 * 1024
    for fault, error in (
        ("truncated-json", json.JSONDecodeError),
        ("bad-utf8", UnicodeDecodeError),
    ):
        with pytest.raises(error):
            json.loads(content(fault).content.decode())
    with pytest.raises(httpx.DecodingError):
        content("bad-gzip")


def test_a_gzip_bomb_is_small_on_the_wire(sandbox):
    body = {"model": "sandbox", "messages": [{"role": "user", "content": "x"}]}
    with sandbox.http.stream(
        "POST", "/v1/chat/completions", json=body, headers={FAULT: "gzip-bomb"}
    ) as response:
        raw = b"".join(response.iter_raw())

    assert response.headers["content-encoding"] == "gzip"
    assert len(raw) < 100_000
    assert len(gzip.decompress(raw)) == 64 * 1024 * 1024


def test_an_endless_answer_ends_when_the_caller_leaves(sandbox):
    body = {"model": "sandbox", "messages": [{"role": "user", "content": "x"}], "stream": True}
    with sandbox.http.stream(
        "POST", "/v1/chat/completions", json=body, headers={FAULT: "endless"}
    ) as response:
        for index, _ in enumerate(response.iter_lines()):
            if index > 300:
                break

    sandbox.wait_until_ended()
    assert sandbox.stats()["in_flight"] == 0
    assert sandbox.stats(calls=1)["last_calls"][0]["fault"] == "endless"


def test_a_huge_header_is_sent(sandbox):
    with pytest.raises(httpx.RemoteProtocolError):
        sandbox.chat(headers={FAULT: "huge-header"})


def test_planned_faults_strike_the_next_calls_in_order(sandbox):
    planned = sandbox.http.post("/faults", json={"faults": ["500", None, "529"], "calls": 4})
    statuses = [sandbox.chat().status_code for _ in range(5)]

    assert planned.json() == {"planned": 4}
    assert statuses == [500, 200, 529, 500, 200]


def test_failed_calls_count_against_the_request_limit(start):
    sandbox = start(limits=ProviderLimits(rpm=2))
    statuses = [sandbox.chat(headers={FAULT: "500"}).status_code for _ in range(3)]

    assert statuses == [500, 500, 429]


def test_rates_strike_by_chance_and_repeat_with_the_seed(start):
    def statuses() -> list[int]:
        sandbox = start(fault_rates=(FaultRate("500", 0.3),), seed=7)
        return [sandbox.chat().status_code for _ in range(20)]

    first = statuses()

    assert first == statuses()
    assert {200, 500} == set(first)


def test_unknown_faults_are_refused_with_the_list(sandbox):
    by_header = sandbox.chat(headers={FAULT: "earthquake"})
    by_plan = sandbox.http.post("/faults", json={"faults": ["earthquake"]})

    assert by_header.status_code == by_plan.status_code == 400
    assert "known are: 400-context, 401" in by_plan.json()["error"]
    assert sorted(sandbox.http.get("/faults").json()["known"]) == sorted(FAULTS)
