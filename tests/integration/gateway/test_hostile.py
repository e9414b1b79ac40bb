"""Callers who mean harm: every bad input gets its protocol's own error, and shows nothing.

What holds for each: a 4xx, JSON of the door's shape, no word of the input in it. What holds for
all together is looked at by the service's fixture when they are through: it still answers,
nothing waits, every slot is free, and neither log nor metrics hold a prompt or a key.
"""

from __future__ import annotations

import json

import httpx
import pytest

MARK = "a-prompt-that-is-nobodys-business"
MESSAGES = [{"role": "user", "content": MARK}]
CALL = {"model": "sandbox", "messages": MESSAGES, "max_tokens": 5}
EMBED = {"model": "sandbox", "input": MARK, "prompt": MARK}
CHAT, MESSAGE, EMBEDDING = "/v1/chat/completions", "/v1/messages", "/v1/embeddings"
RESPONSE, COMPLETION, COUNT = "/v1/responses", "/v1/completions", "/v1/messages/count_tokens"
DOORS = (CHAT, MESSAGE, EMBEDDING, RESPONSE, COMPLETION, COUNT)

HEAD = (
    b'{"model":"sandbox","max_tokens":5,"input":"x","prompt":"x",'
    b'"messages":[{"role":"user","content":"x"}],'
)
BODIES = {
    "nothing": b"",
    "no JSON": MARK.encode() + b"{",
    "number": b"1",
    "null": b"null",
    "text": json.dumps(MARK).encode(),
    "list": json.dumps([CALL]).encode(),
    "two": json.dumps(CALL).encode() * 2,
    "half": json.dumps(CALL).encode()[:-1],
    "byte order mark": b"\xef\xbb\xbf" + json.dumps(CALL).encode(),
    "utf-16": json.dumps(CALL).encode("utf-16"),
    "latin-1": HEAD + b'"user":"\xff"}',
    "overlong": HEAD + b'"user":"\xc0\xaf"}',
    "NaN": HEAD + b'"temperature":NaN}',
    "infinity": HEAD + b'"temperature":-Infinity}',
    "1e999": HEAD + b'"temperature":1e999}',
    "5000 digits": HEAD + b'"seed":' + b"9" * 5000 + b"}",
    "surrogate": HEAD + b'"user":"\\ud800"}',
    "surrogate as a name": HEAD + b'"\\ud800":1}',
    "deep": HEAD + b'"x":' + b"[" * 100 + b"]" * 100 + b"}",
    "very deep": HEAD + b'"x":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    "not closed": HEAD + b'"x":' + b"[" * 200_000,
    "many names": json.dumps({**CALL, **EMBED, **dict.fromkeys(map(str, range(200_000)))}).encode(),
    "many values": HEAD + b'"x":[' + b"{}," * 200_000 + b"{}]}",
    "twice": HEAD + b'"model":"other"}',
    "twice, escaped": HEAD + b'"mod\\u0065l":"other"}',
    "upper case": HEAD + b'"Model":"other"}',
}
MODELS = {
    "unknown": MARK,
    "header": "a\r\nx-injected: 1",
    "null byte": "a\0b",
    "bidi": "a\u202eb",
    "surrogate": "a\ud800",
    "empty": "",
    "space": "sandbox ",
    "line end": "sandbox\n",
    "long": MARK * 10,
    "path": "../../etc/passwd",
    "address": "http://169.254.169.254/",
    "markup": "<script>alert(1)</script>",
    "number": 1,
    "list": ["sandbox"],
    "object": {"a": MARK},
    "null": None,
}
VALUES = {
    "negative": -1,
    "huge": 10**30,
    "64 bits": 2**63,
    "fraction": 1.5,
    "text": MARK,
    "list": [MARK],
    "object": {"a": MARK},
    "true": True,
}
FIELDS = {
    CHAT: ("n", "max_tokens", "max_completion_tokens", "stream", "stream_options", "messages"),
    MESSAGE: ("max_tokens", "stream", "metadata", "messages"),
    EMBEDDING: ("input", "user"),
    RESPONSE: ("input", "stream", "background", "max_output_tokens", "previous_response_id"),
    COMPLETION: ("prompt", "n", "best_of", "max_tokens", "stream", "disable_fallbacks"),
    COUNT: ("messages", "metadata", "disable_fallbacks"),
}
PASS = {
    (CHAT, "stream", "true"),
    (CHAT, "stream_options", "object"),
    (MESSAGE, "stream", "true"),
    (MESSAGE, "metadata", "object"),
    (EMBEDDING, "input", "text"),
    (EMBEDDING, "input", "list"),
    (EMBEDDING, "user", "text"),
    (RESPONSE, "input", "text"),
    (RESPONSE, "input", "list"),
    (RESPONSE, "stream", "true"),
    (RESPONSE, "background", "true"),
    (COMPLETION, "prompt", "text"),
    (COMPLETION, "prompt", "list"),
    (COMPLETION, "stream", "true"),
    (COMPLETION, "disable_fallbacks", "true"),
    (COUNT, "metadata", "object"),
    (COUNT, "disable_fallbacks", "true"),
}
"""What is no bad input, or the provider's to judge."""


@pytest.fixture(scope="module")
def service(fast_sandbox, serve, hostile_config, keys, poll, is_idle):
    sandbox = fast_sandbox()
    running = serve(hostile_config(sandbox.url), **keys)
    yield running
    with httpx.Client(base_url=running.url, headers={"x-api-key": keys["PERSON_KEY"]}) as http:
        assert {200} == {http.post(path, json=CALL | EMBED).status_code for path in DOORS}
    poll(lambda: is_idle(running))
    assert not [line for line in running.logged() if line["level"] != "info"]
    shown = running.log.read_text() + httpx.get(f"{running.url}/metrics").text
    for secret in (MARK, *keys.values()):
        assert secret not in shown


@pytest.fixture(scope="module")
def http(service, keys):
    headers = {"x-api-key": keys["PERSON_KEY"]}
    with httpx.Client(base_url=service.url, headers=headers, timeout=30) as client:
        yield client


def is_refused(answer, status=None):
    """Check the rules for one answer to a bad input."""
    assert 400 <= answer.status_code < 500
    assert status in (None, answer.status_code)
    document = answer.json()
    if "messages" in answer.url.path:
        assert "error" == document["type"]
        assert {"type", "message"} <= document["error"].keys()
    else:
        assert {"type", "message", "param", "code"} <= document["error"].keys()
    assert document["error"]["message"]
    assert MARK not in answer.text
    assert "<script" not in answer.text
    assert "injected" not in str(answer.headers)


@pytest.mark.parametrize("path", DOORS)
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_body_that_breaks_a_rule_is_400(http, path, body):
    is_refused(http.post(path, content=body), 400)


@pytest.mark.parametrize("path", DOORS)
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_a_model_that_is_none_is_400_or_404(http, path, model):
    is_refused(http.post(path, content=json.dumps({**CALL, **EMBED, "model": model})))


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        pytest.param(path, field, value, id=f"{path} {field} {name}")
        for path, fields in FIELDS.items()
        for field in fields
        for name, value in VALUES.items()
        if (path, field, name) not in PASS
    ],
)
def test_a_control_field_of_a_wrong_kind_or_size_is_400(http, path, field, value):
    base = CALL if path in {CHAT, MESSAGE, COUNT} else {**EMBED, "max_tokens": 5}
    is_refused(http.post(path, json={**base, field: value}), 400)


@pytest.mark.parametrize("path", DOORS)
def test_a_body_over_the_cap_is_413_whoever_sends_it_however(http, path):
    def pieces():
        for _ in range(140):
            yield b"a" * 65_536

    is_refused(http.post(path, content=b"a" * 9_000_000), 413)
    is_refused(http.post(path, content=pieces()), 413)
    is_refused(http.post(path, content=b"a" * 9_000_000, headers={"connection": "close"}), 413)


@pytest.mark.parametrize("path", DOORS)
@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "gzip, identity", "x"])
def test_a_body_in_an_encoding_is_415(http, path, encoding):
    is_refused(http.post(path, json=CALL, headers={"content-encoding": encoding}), 415)


KNOWN = "person-key-with-enough-letters"
NO_KEY = {
    "none": {},
    "empty": {"authorization": "Bearer"},
    "scheme": {"authorization": f"Basic {KNOWN}"},
    "wrong": {"authorization": "Bearer wrong"},
    "shorter": {"authorization": f"Bearer {KNOWN[:-1]}"},
    "longer": {"authorization": f"Bearer {KNOWN}s"},
    "another case": {"authorization": f"Bearer {KNOWN.title()}"},
    "very long": {"authorization": "Bearer " + "a" * 50_000},
    "not ASCII": {"authorization": b"Bearer \xff\xfe"},
    "statement": {"authorization": "Bearer ' OR 1=1 --"},
    "wrong before right": {
        "authorization": "Bearer x",
        "x-api-key": KNOWN,
    },
    "cookie": {"cookie": f"authorization={KNOWN}"},
    "other header": {"proxy-authorization": f"Bearer {KNOWN}"},
    "key id": {"x-api-key": "person"},
    "our workers' id": {"x-api-key": "penstock-workers"},
    "run": {"penstock-run": "e30.e30"},
}


@pytest.mark.parametrize("headers", NO_KEY.values(), ids=NO_KEY)
def test_without_a_known_key_every_door_is_shut_with_the_same_words(service, headers):
    """Before the body is looked at, and whatever the query says."""
    doors = [("POST", path) for path in DOORS] + [
        ("GET", "/v1/models"), ("GET", "/v1/models/sandbox"), ("GET", "/chains"),
        ("POST", "/chains/x/invoke"), ("GET", "/admin/live"),
    ]  # fmt: skip
    query = {"api_key": KNOWN}
    with httpx.Client(base_url=service.url, headers=headers) as client:
        answers = [
            client.request(method, path, params=query, content=b"{") for method, path in doors
        ]

    assert {401} == {answer.status_code for answer in answers}
    assert 1 == len({answer.json()["detail"] for answer in answers})
    assert {'Bearer realm="penstock"'} == {answer.headers["www-authenticate"] for answer in answers}


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "GET"])
@pytest.mark.parametrize("path", DOORS)
def test_a_wrong_method_is_405_and_says_the_right_one(http, path, method):
    answer = http.request(method, path)
    is_refused(answer, 405)
    assert "POST" == answer.headers["allow"]


@pytest.mark.parametrize(
    "path",
    [
        "/nowhere", "/v1/chat/completions/", "/V1/chat/completions", "/v1/models/nobody's",
        "/anthropic/v1/models/x", "/v1/models/" + "a/" * 3000, "/chains/x/invoke", "/live/x",
    ],
)  # fmt: skip
def test_a_path_that_leads_nowhere_is_404_in_the_shape_of_who_asks(http, path):
    by_openai = http.get(path)
    by_anthropic = http.get(path, headers={"anthropic-version": "2023-06-01"})

    assert (404, 404) == (by_openai.status_code, by_anthropic.status_code)
    assert by_openai.json()["error"]["code"]
    if not path.startswith("/chains"):
        assert "error" == by_anthropic.json()["type"]


CLAIMS = {
    "header": ({"priority": "u=0"}, {}),
    "patience": ({"prefer": "wait=999999999", "x-stainless-timeout": "1"}, {}),
    "number": ({}, {"priority": -(2**31)}),
    "tier": ({}, {"service_tier": "priority"}),
    "other fields": ({}, {"metadata": {"class": "interactive"}, "class": "interactive"}),
    "other headers": ({"penstock-class": "interactive", "penstock-run": "e30.e30"}, {}),
}


@pytest.mark.parametrize(("headers", "fields"), CLAIMS.values(), ids=CLAIMS)
def test_no_claim_raises_a_call_above_the_ceiling_of_its_key(http, keys, headers, fields):
    answer = http.post(
        CHAT, json={**CALL, **fields}, headers={"x-api-key": keys["NIGHTLY_KEY"], **headers}
    )

    assert (200, "batch") == (answer.status_code, answer.headers["penstock-class"])


@pytest.mark.parametrize("model", ["sandbox", "Other", "openai/other", "other/../sandbox"])
def test_a_key_reaches_no_model_but_its_own_by_any_name(http, keys, model):
    fields = {"fallbacks": ["sandbox"], "models": ["sandbox"], "user": "boss"}
    headers = {"x-api-key": keys["NARROW_KEY"]}

    is_refused(http.post(CHAT, json={**CALL, **fields, "model": model}, headers=headers), 403)
    assert 404 == http.get("/v1/models/sandbox", headers=headers).status_code


def test_a_key_without_admin_rights_sees_nobody_s_queue(http):
    assert 403 == http.get("/admin/live").status_code


@pytest.mark.parametrize("run", ["x", "e30.e30", "a" * 5000, "\xff"])
def test_a_run_s_identity_from_an_outsider_means_nothing(http, service, run):
    answer = http.post(CHAT, json=CALL, headers={"penstock-run": run.encode("latin-1")})

    assert (200, "interactive") == (answer.status_code, answer.headers["penstock-class"])
    assert not [line for line in service.logged() if "run" in line]
