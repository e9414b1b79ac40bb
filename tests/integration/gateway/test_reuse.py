"""Answers that are given again, and calls that several callers share: counted at the provider."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3

import anthropic
import httpx
import openai
import pytest

CONFIG = """
[workers]
count = 0
[store]
path = "{store}"
[cache]
models = ["kept"]
keys = ["saver"]
storage = "{storage}"
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
serves = ["kept", "sandbox"]
[deployments.two]
provider = "messages"
model = "sandbox"
serves = ["kept", "sandbox"]
[keys.person]
tenant = "web"
class = "interactive"
key_env = "PERSON_KEY"
[keys.saver]
tenant = "web"
key_env = "SAVER_KEY"
[keys.other]
tenant = "other"
key_env = "OTHER_KEY"
"""
KEYS = {
    "UPSTREAM_KEY": "upstream-key",
    "PERSON_KEY": "person-key-with-enough-letters",
    "SAVER_KEY": "saver-key-with-enough-letters",
    "OTHER_KEY": "other-key-with-enough-letters",
}
PERSON = KEYS["PERSON_KEY"]
CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
_numbers = itertools.count()


def question(words=8, **changes):
    """A call that nobody has made before."""
    words = f"Say it in {words} words, number {next(_numbers)}."
    return {
        "model": "kept",
        "messages": [{"role": "user", "content": words}],
        "max_tokens": 40,
        **changes,
    }


def configured(sandbox, tmp_path, storage):
    """The configuration, with a store of its own."""
    config = CONFIG.replace("{url}", sandbox.url).replace("{storage}", storage)
    return config.replace("{store}", str(tmp_path))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Where the service keeps its ledger."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def pair(running, serve, store):
    """A service that keeps answers, and a provider that takes a moment."""
    speed = ["--latency-ms", "50", "--tokens-per-second", "100"]
    sandbox = running("sandbox", "--port", "0", *speed, "--rpm", "60000")
    return serve(configured(sandbox, store, "memory"), **KEYS), sandbox


def post(service, body, key=PERSON, path=CHAT, **headers):
    named = {"x-api-key": key, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return httpx.post(f"{service.url}{path}", json=body, headers=named, timeout=30)


def calls(sandbox):
    return sandbox.get("/stats")[1]["calls"]


def in_flight(sandbox):
    return sandbox.get("/stats")[1]["in_flight"]


def ledger(store, poll, request_ids):
    """The rows of these requests, once all are written."""

    def rows():
        with contextlib.closing(sqlite3.connect(store / "penstock.db")) as connection:
            connection.row_factory = sqlite3.Row
            found = connection.execute("SELECT * FROM calls").fetchall()
        return {row["request_id"]: row for row in found}

    poll(lambda: set(request_ids) <= rows().keys())
    return [rows()[request_id] for request_id in request_ids]


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize("stream", [False, True])
def test_the_same_call_is_made_once(pair, path, stream):
    service, sandbox = pair
    body, before = question(stream=stream), calls(sandbox)

    first = post(service, body, path=path)
    again = post(service, dict(reversed(body.items())), path=path)

    assert ["miss", "hit"] == [answer.headers["penstock-cache"] for answer in (first, again)]
    assert first.content == again.content
    assert first.headers["content-type"] == again.headers["content-type"]
    assert 1 == calls(sandbox) - before


def test_nothing_is_shared_between_tenants_nor_without_having_been_asked_for(pair):
    service, sandbox = pair
    body, before = question(), calls(sandbox)

    answers = [post(service, body), post(service, body, KEYS["OTHER_KEY"])]
    plain = question(model="sandbox")
    answers += [post(service, plain), post(service, plain)]

    assert ["miss", "miss", None, None] == [a.headers.get("penstock-cache") for a in answers]
    assert 4 == calls(sandbox) - before


def test_a_key_may_opt_in_for_whatever_it_asks(pair):
    service, _ = pair
    body = question(model="sandbox")
    answers = [post(service, body, KEYS["SAVER_KEY"]) for _ in range(2)]
    assert ["miss", "hit"] == [answer.headers["penstock-cache"] for answer in answers]


def test_a_caller_may_want_a_new_answer_or_none_kept(pair):
    service, sandbox = pair
    body, before = question(), calls(sandbox)

    unkept = post(service, body, cache_control="no-store")
    first = post(service, body)
    fresh = post(service, body, cache_control="no-cache")
    again = post(service, body)

    found = [answer.headers.get("penstock-cache") for answer in (unkept, first, fresh, again)]
    assert [None, "miss", "miss", "hit"] == found
    assert 3 == calls(sandbox) - before


def test_a_failure_is_not_kept(pair):
    service, sandbox = pair
    body = question()
    sandbox.post("/faults", {"faults": ["401"], "calls": 1})

    refused, answered = post(service, body), post(service, body)

    assert (502, "upstream_auth") == (refused.status_code, refused.json()["error"]["code"])
    assert (200, "miss") == (answered.status_code, answered.headers["penstock-cache"])


def test_identical_calls_under_way_are_one_whoever_hangs_up(pair, store, poll):
    service, sandbox = pair
    body, before = question(150, stream=True, max_tokens=300), calls(sandbox)
    headers = {"x-api-key": PERSON}

    async def go():
        async with (
            httpx.AsyncClient(base_url=service.url, headers=headers, timeout=30) as http,
            contextlib.AsyncExitStack() as stack,
        ):
            first = asyncio.create_task(http.post(CHAT, json=body))
            await asyncio.to_thread(poll, lambda: in_flight(sandbox) == 1)
            others = [
                await stack.enter_async_context(http.stream("POST", CHAT, json=body))
                for _ in range(3)
            ]
            first.cancel()
            return [(answer.headers, await answer.aread()) for answer in others]

    answers = asyncio.run(go())

    assert ["joined"] * 3 == [headers["penstock-cache"] for headers, _ in answers]
    assert 1 == len({content for _, content in answers})
    assert answers[0][1].endswith(b"data: [DONE]\n\n")
    assert 1 == calls(sandbox) - before
    rows = ledger(store, poll, [headers["x-request-id"] for headers, _ in answers])
    assert [("joined", 0, 0)] * 3 == [
        (row["outcome"], row["tokens_output"], row["nano_dollars"]) for row in rows
    ]


def test_the_last_to_hang_up_ends_the_call(pair, poll):
    service, sandbox = pair
    cancelled = sandbox.get("/stats")[1]["cancelled"]
    headers = {"x-api-key": PERSON}

    async def go():
        async with httpx.AsyncClient(base_url=service.url, headers=headers, timeout=30) as http:
            only = asyncio.create_task(http.post(CHAT, json=question(400, max_tokens=600)))
            await asyncio.to_thread(poll, lambda: in_flight(sandbox) == 1)
            only.cancel()
            await asyncio.gather(only, return_exceptions=True)

    asyncio.run(go())

    poll(lambda: sandbox.get("/stats")[1]["cancelled"] == cancelled + 1, 2.0)


def test_an_idempotency_key_names_a_call_and_its_answer(pair):
    service, sandbox = pair
    body, before = question(model="sandbox"), calls(sandbox)

    first = post(service, body, idempotency_key="a-1")
    again = post(service, body, idempotency_key="a-1")
    other_body = post(service, question(model="sandbox"), idempotency_key="a-1")
    other_key = post(service, body, KEYS["OTHER_KEY"], idempotency_key="a-1")
    malformed = post(service, body, idempotency_key="a b")

    assert ["miss", "hit"] == [answer.headers["penstock-cache"] for answer in (first, again)]
    assert first.content == again.content
    assert (422, "idempotency_key_reused") == (
        other_body.status_code,
        other_body.json()["error"]["code"],
    )
    assert "miss" == other_key.headers["penstock-cache"]
    assert 400 == malformed.status_code
    assert 2 == calls(sandbox) - before


def test_stock_clients_read_what_was_kept(pair):
    service, _ = pair
    body = question()
    with (
        openai.OpenAI(base_url=f"{service.url}/v1", api_key=PERSON, max_retries=0) as one,
        anthropic.Anthropic(base_url=service.url, api_key=PERSON, max_retries=0) as two,
    ):
        said = []
        for _ in range(2):
            stream = one.chat.completions.create(**body, stream=True)
            chat = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
            with two.messages.stream(**body) as messages:
                said.append((chat, messages.get_final_text()))

    assert said[0] == said[1]
    assert all(said[0])


def test_saved_units_stand_in_metrics_and_ledger_without_cost(pair, store, poll):
    service, _ = pair
    body = question()
    first, again = post(service, body), post(service, body)

    text = httpx.get(f"{service.url}/metrics").text
    counted = [line for line in text.splitlines() if 'outcome="cached"' in line]
    assert any('class="interactive"' in line and 'tenant="web"' in line for line in counted)
    made, saved = ledger(store, poll, [a.headers["x-request-id"] for a in (first, again)])
    assert ("success", "cached") == (made["outcome"], saved["outcome"])
    assert made["tokens_output"] > 0
    assert (0, 0, "kept") == (saved["tokens_output"], saved["nano_dollars"], saved["model"])


def test_what_is_kept_in_the_store_survives_the_service(fast_sandbox, serve, tmp_path):
    sandbox = fast_sandbox("--rpm", "60000")
    config, body = configured(sandbox, tmp_path, "store"), question()
    service = serve(config, **KEYS)
    first = post(service, body)
    service.stop()

    again = post(serve(config, **KEYS), body)

    assert ["miss", "hit"] == [answer.headers["penstock-cache"] for answer in (first, again)]
    assert first.content == again.content
    assert 0 <= int(again.headers["age"]) < 60
