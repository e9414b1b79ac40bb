"""A stream that waits tells its caller so, and every stock client reads its answer after it."""

from __future__ import annotations

import asyncio
import re

import anthropic
import httpx
import openai
import pytest

CONFIG = """
[workers]
count = 0
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
rpm = 24
burst_seconds = 2.5
[deployments.two]
provider = "messages"
model = "sandbox"
rpm = 24
burst_seconds = 2.5
[keys.person]
tenant = "web"
class = "interactive"
key_env = "PERSON_KEY"
"""
KEYS = {"UPSTREAM_KEY": "upstream-key", "PERSON_KEY": "person-key-with-enough-letters"}
PERSON = KEYS["PERSON_KEY"]
CALL = {"model": "sandbox", "messages": [{"role": "user", "content": "Say it in 8 words."}]}
CHAT = "/v1/chat/completions"
PATHS = {
    CHAT: CALL,
    "/v1/messages": {**CALL, "max_tokens": 40},
    "/v1/responses": {"model": "sandbox", "input": "Say it in 8 words."},
}
QUEUED = re.compile(rb"\A: queued position=(\d+) eta=(\d+)\n\n")


@pytest.fixture(scope="module")
def pair(fast_sandbox, serve):
    """One call in 2.5 s, and its provider, who would take more."""
    sandbox = fast_sandbox("--rpm", "60000")
    return serve(CONFIG.format(url=sandbox.url), **KEYS), sandbox


def first_waits(service, path, **changes):
    """Use up what there is, then ask for a stream, which waits; its answer as it came."""
    headers = {"x-api-key": PERSON}
    with httpx.Client(base_url=service.url, headers=headers, timeout=30) as http:
        assert 200 == http.post(path, json=PATHS[path]).status_code
        return http.post(path, json={**PATHS[path], "stream": True, **changes})


@pytest.mark.parametrize("path", PATHS)
def test_a_stream_that_waits_is_told_its_position_and_how_long(pair, path):
    answer = first_waits(pair[0], path)

    position, eta = map(int, QUEUED.match(answer.content).groups())
    assert 1 == position
    assert 1 <= eta <= 3
    assert "interactive" == answer.headers["penstock-class"]
    assert "penstock-deployment" not in answer.headers, "it was not known when the head was sent"


@pytest.mark.parametrize(
    ("path", "ending"),
    [
        ("/v1/chat/completions", rb'\ndata: \{[^\n]*"error":\{[^\n]*\n\n\Z'),
        ("/v1/messages", rb'\nevent: error\ndata: \{"type":"error"[^\n]*\n\n\Z'),
        (
            "/v1/responses",
            rb"\nevent: response.created\ndata: [^\n]*\n\nevent: response.failed\n[^\n]*\n\n\Z",
        ),
    ],
)
@pytest.mark.parametrize("fault", ["400-context", "401"])
def test_what_fails_after_the_head_is_said_in_the_protocol_s_own_shape(pair, path, ending, fault):
    service, sandbox = pair
    headers = {"x-api-key": PERSON}
    with httpx.Client(base_url=service.url, headers=headers, timeout=30) as http:
        http.post(path, json=PATHS[path])
        sandbox.post("/faults", {"faults": [fault], "calls": 1})
        answer = http.post(path, json={**PATHS[path], "stream": True})

    assert 200 == answer.status_code
    assert QUEUED.match(answer.content)
    assert re.search(ending, answer.content), answer.content


def test_stock_clients_read_their_answer_after_the_comments(pair):
    url = pair[0].url

    async def chat(client):
        stream = await client.chat.completions.create(**CALL, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def respond(client):
        async with client.responses.stream(**PATHS["/v1/responses"]) as stream:
            return (await stream.get_final_response()).output_text

    async def message(client):
        async with client.messages.stream(**PATHS["/v1/messages"]) as stream:
            return await stream.get_final_text()

    async def go():
        async with (
            openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=PERSON, max_retries=0) as one,
            anthropic.AsyncAnthropic(base_url=url, api_key=PERSON, max_retries=0) as two,
        ):
            calls = [chat(one), chat(one), respond(one), message(two), message(two)]
            return await asyncio.gather(*calls)

    said = asyncio.run(go())

    assert all(text.strip() for text in said), said


def test_the_responses_helper_reads_an_error_that_came_after_the_comments(pair):
    service, sandbox = pair
    first_waits(service, "/v1/responses")
    sandbox.post("/faults", {"faults": ["401"], "calls": 1})
    with (
        openai.OpenAI(base_url=f"{service.url}/v1", api_key=PERSON, max_retries=0) as client,
        client.responses.stream(**PATHS["/v1/responses"]) as stream,
    ):
        kinds = [event.type for event in stream]

    assert ["response.created", "response.failed"] == kinds


def test_who_waits_less_than_a_second_has_a_status_and_headers_of_its_own(fast_sandbox, serve):
    sandbox = fast_sandbox("--rpm", "60000")
    service = serve(CONFIG.format(url=sandbox.url).replace("rpm = 24", "rpm = 120"), **KEYS)
    sandbox.post("/faults", {"faults": ["401"], "calls": 1})

    refused = first_waits_none(service)
    answered = first_waits_none(service)

    assert 502 == refused.status_code
    assert (200, "one") == (answered.status_code, answered.headers["penstock-deployment"])
    assert not answered.content.startswith(b":")


def first_waits_none(service):
    body = {**CALL, "stream": True}
    url = f"{service.url}/v1/chat/completions"
    return httpx.post(url, json=body, headers={"x-api-key": PERSON}, timeout=30)


def test_a_caller_who_hangs_up_after_the_comments_leaves_the_queue(pair, poll):
    service, sandbox = pair
    first_waits(service, CHAT)  # the limit is used up again
    calls = sandbox.get("/stats")[1]["calls"]
    body = {**CALL, "stream": True}
    headers = {"x-api-key": PERSON}

    async def go():
        async with (
            httpx.AsyncClient(base_url=service.url, headers=headers, timeout=30) as http,
            http.stream("POST", CHAT, json=body) as answer,
        ):
            return await anext(answer.aiter_bytes())

    assert asyncio.run(go()).startswith(b": queued position=1")
    gone = "cancelled_waiting"
    poll(lambda: any(line.get("outcome") == gone for line in service.logged()), 2.0)
    assert calls == sandbox.get("/stats")[1]["calls"], "it was never sent"
