"""A provider that means harm: its callers get a clear error, and nobody else notices."""

from __future__ import annotations

import gzip

import httpx
import pytest

CALL = {"model": "sandbox", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}
JSON = b"content-type: application/json"


@pytest.fixture(scope="module")
def provider(raw_providers):
    return raw_providers()


@pytest.fixture(scope="module")
def service(provider, serve, hostile_config, keys, poll, is_idle):
    running = serve(hostile_config(provider.url), **keys)
    yield running
    poll(lambda: is_idle(running))
    errors = [line for line in running.logged() if line["level"] == "error"]
    assert not errors
    assert keys["UPSTREAM_KEY"] not in running.log.read_text()


@pytest.fixture(params=["/v1/chat/completions", "/v1/messages"])
def ask(request, service, provider, keys):
    """``ask(answer)``: a call at each door, and what the provider answers."""

    def call(answer, **options):
        provider.answers = answer if callable(answer) else lambda: answer
        fields = {**CALL, **options.pop("fields", {})}
        headers = {"x-api-key": keys["PERSON_KEY"], **options.pop("headers", {})}
        url = f"{service.url}{request.param}"
        return httpx.post(url, json=fields, headers=headers, timeout=60, **options)

    return call


def error_of(answer):
    """The error, which each SDK finds at the same place; its shape is the door's."""
    document = answer.json()
    assert document["error"]["message"]
    if answer.url.path == "/v1/messages":
        assert "error" == document["type"]
    return document


@pytest.mark.parametrize(
    ("body", "head"),
    [
        (b"<script>alert(1)</script>", b"content-type: text/html"),
        (b"", b"x: y"),
        (b'{"error":', JSON),
        (b'{"error":"\xff"}', JSON),
        (b'"words"', JSON),
        (b'{"you sent":"upstream-key-that-nobody-sees"}', JSON),
        (b'{"error":"' + b"a" * 300_000 + b'"}', JSON),
    ],
    ids=["html", "nothing", "half", "not utf-8", "a text", "our key", "too long"],
)
def test_a_refusal_that_cannot_be_passed_on_is_told_in_our_words(ask, said, body, head):
    answer = ask(said(body, head, 422))

    assert 422 == answer.status_code
    assert "422" in error_of(answer)["error"]["message"]
    assert "json" in answer.headers["content-type"]
    assert "script" not in answer.text
    assert "upstream-key" not in answer.text


def test_a_refusal_in_json_passes_as_it_came(ask, said):
    body = b'{"error":{"message":"Unknown parameter: \xc3\xbc","type":"invalid_request_error"}}'

    answer = ask(said(body, b"content-type: text/html", 400))

    assert (400, body) == (answer.status_code, answer.content)
    assert "application/json" == answer.headers["content-type"]


@pytest.mark.parametrize(
    "answers",
    [
        lambda said: said(b"", b"location: http://127.0.0.1:1/", 307),
        lambda said: said(b"", status=204),
        lambda said: said(b"[]"),
        lambda said: said(b"null"),
        lambda said: said(b'{"choices":' + b"[" * 100_000),
        lambda said: said(b'{"content":' + b"[" * 100_000),
        lambda said: said(gzip.compress(b"a" * 1_000_000), JSON + b"\r\ncontent-encoding: gzip"),
        lambda said: [b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nabc"],
    ],
    ids=["redirect", "204", "list", "null", "deep", "deep content", "gzip", "upgrade"],
)
def test_an_answer_that_is_none_is_502_and_asked_for_once(ask, said, provider, answers):
    before = len(provider.seen)

    answer = ask(answers(said))

    assert 502 == answer.status_code
    assert (
        "problem_type" in error_of(answer) or "upstream_invalid" == answer.json()["error"]["code"]
    )
    assert 1 == len(provider.seen) - before


def test_an_endless_answer_is_cut_and_not_asked_for_again(ask, provider):
    before = len(provider.seen)

    def endless():
        yield b"HTTP/1.1 200 OK\r\n" + JSON + b'\r\n\r\n{"choices":["'
        while True:
            yield b"a" * 1_000_000

    answer = ask(endless)

    assert 502 == answer.status_code
    assert "bytes" in error_of(answer)["error"]["message"]
    assert 1 == len(provider.seen) - before


@pytest.mark.parametrize(
    "flood",
    [b"x-%d: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n", b"%da"],
    ids=["many headers", "one header"],
)
def test_an_endless_head_is_cut_and_not_asked_for_again(ask, provider, flood):
    before = len(provider.seen)

    def endless():
        yield b"HTTP/1.1 200 OK\r\nx: "
        for number in range(2_000_000):
            yield flood % number * 100

    answer = ask(endless)

    assert 502 == answer.status_code
    assert "head" in error_of(answer)["error"]["message"]
    assert 1 == len(provider.seen) - before


@pytest.mark.parametrize("flood", [b"data: " + b"a" * 100_000, b"data: a\n" * 10_000])
def test_an_endless_line_or_event_is_cut(ask, flood):
    def endless():
        yield b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
        while True:
            yield flood

    answer = ask(endless, fields={"stream": True})

    assert 502 == answer.status_code
    error_of(answer)


def test_what_comes_behind_an_answer_is_no_answer_to_the_next_call(ask):
    body = b'{"choices":[{"a":1}],"content":[]}'
    plain = b"HTTP/1.1 200 OK\r\n%b\r\ncontent-length: %d\r\n\r\n%b" % (JSON, len(body), body)

    first = ask([plain + plain.replace(b'"a"', b'"b"')])
    second = ask([plain])

    assert body == first.content == second.content


def test_of_an_answer_s_headers_none_reaches_the_caller_nor_the_next_call(ask, said, provider):
    body = b'{"choices":[{"a":1}],"content":[]}'
    head = JSON + b"\r\nset-cookie: a=MARK\r\nx-evil: MARK\r\naccess-control-allow-origin: MARK"

    answer = ask(said(body, head))
    ask(said(body))

    assert 200 == answer.status_code
    assert "MARK" not in str(answer.headers)
    assert b"MARK" not in provider.seen[-1]


def test_of_a_caller_s_headers_none_reaches_the_provider(ask, said, provider, keys):
    names = (
        "x-smuggled", "openai-organization", "openai-project", "x-forwarded-for", "cookie",
        "api-key", "idempotency-key", "x-sandbox-fault", "penstock-run", "x-request-id",
        "traceparent", "range", "referer", "x-http-method-override", "anthropic-beta",
        "anthropic-version", "user-agent", "accept", "accept-encoding", "authorization",
    )  # fmt: skip
    marks = dict.fromkeys(names, "MARK evil") | {"authorization": f"Bearer {keys['PERSON_KEY']}"}

    ask(said(b'{"choices":[{"a":1}],"content":[]}'), headers=marks)

    head = provider.seen[-1].decode().lower()
    assert "mark" not in head
    assert keys["PERSON_KEY"] not in head
    sent = {line.partition(":")[0] for line in head.splitlines()[1:] if line}
    assert sent - {"authorization", "x-api-key", "anthropic-version"} == {
        "host", "content-type", "content-length", "accept", "accept-encoding", "user-agent",
    }  # fmt: skip


def test_no_address_in_a_body_is_ever_called(ask, said, provider, raw_providers):
    canary = raw_providers()
    elsewhere = {
        "api_base": canary.url, "base_url": canary.url, "api_key": "sk-evil", "proxy": canary.url,
        "user_config": {"model_list": [{"litellm_params": {"api_base": canary.url}}]},
        "extra_headers": {"x-evil": "MARK"}, "callbacks": [canary.url], "timeout": 0.001,
        "fallbacks": [{"sandbox": ["other"]}], "num_retries": 99, "mock_response": "MARK",
        "messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": canary.url}},
            {"type": "image", "source": {"type": "url", "url": canary.url}},
        ]}],
    }  # fmt: skip
    before = len(provider.seen)

    answer = ask(
        said(b'{"choices":[{"a":1}],"content":[]}'),
        fields=elsewhere,
        params={"api_base": canary.url},
    )

    assert 200 == answer.status_code
    assert 1 == len(provider.seen) - before
    assert b"MARK" not in provider.seen[-1]
    assert [] == canary.seen
