"""Chains in a real service, and callers who mean harm.

What holds for each bad input: a 4xx with the protocol's ``detail``, and no word of the input in it.
What holds for all together is looked at by the fixture when they are through.
"""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

CONFIG = f"""
path = ["{Path(__file__).parent}"]
[workers]
count = 1
[keys.person]
tenant = "web"
key_env = "PERSON_KEY"
[keys.narrow]
tenant = "narrow"
chains = ["upper"]
key_env = "NARROW_KEY"
"""
CHAINS = ("upper", "fail", "tokens", "prompt_chat", "configurable")
KEYS = {
    "PERSON_KEY": "person-key-with-enough-letters",
    "NARROW_KEY": "narrow-key-with-enough-letters",
}
MARKER = "a-prompt-that-is-nobodys-business"


@pytest.fixture(scope="module")
def service(serve):
    tables = (f'[chains.{name}]\nimport = "contract_chains:{name}"\n' for name in CHAINS)
    running = serve(CONFIG + "".join(tables), **KEYS)
    running.wait_ready()
    yield running
    answer = httpx.post(
        f"{running.url}/chains/upper/invoke",
        json={"input": "a"},
        headers={"x-api-key": KEYS["PERSON_KEY"]},
    )
    assert (200, "A") == (answer.status_code, answer.json()["output"])
    metrics = httpx.get(f"{running.url}/metrics").text
    assert "penstock_worker_restarts_total 0.0" in metrics
    shown = running.log.read_text() + metrics
    for secret in (MARKER, *KEYS.values()):
        assert secret not in shown


@pytest.fixture(scope="module")
def http(service):
    headers = {"Authorization": f"Bearer {KEYS['PERSON_KEY']}"}
    with httpx.Client(base_url=f"{service.url}/chains", headers=headers, timeout=30) as client:
        yield client


def test_what_a_chain_was_working_on_reaches_the_log_no_more_than_the_caller(service, http, poll):
    """A chain's exceptions hold its input: their places and types are logged, not their texts."""
    for endpoint, body in (
        ("invoke", {"input": f"boom {MARKER}"}),
        ("stream", {"input": f"boom {MARKER}"}),
        ("batch", {"inputs": [f"boom {MARKER}"]}),
    ):
        assert 500 == http.post(f"/fail/{endpoint}", json=body).status_code

    poll(lambda: 3 == service.log.read_text().count("builtins.ValueError"))
    log = service.log.read_text()
    assert "contract_chains.py" in log
    assert MARKER not in log
    assert "SECRET" not in log


MARK = MARKER.encode()
DEEP = b"[" * 100 + b"]" * 100
BODIES = {
    "nothing": b"",
    "no JSON": MARK + b"{",
    "number": b"1",
    "null": b"null",
    "list": b'[{"input":"x"}]',
    "byte order mark": b'\xef\xbb\xbf{"input":"x"}',
    "utf-16": '{"input":"x"}'.encode("utf-16"),
    "not utf-8": b'{"input":"\xff","inputs":["\xff"]}',
    "two": b'{"input":"x"}{"input":"x"}',
    "NaN": b'{"input":NaN,"inputs":[NaN]}',
    "1e999": b'{"input":1e999,"inputs":[1e999]}',
    "5000 digits": b'{"input":' + b"9" * 5000 + b',"inputs":[1]}',
    "surrogate": b'{"input":"\\ud800","inputs":["\\ud800"]}',
    "deep": b'{"input":' + DEEP + b',"inputs":[' + DEEP + b"]}",
    "very deep": b'{"input":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "not closed": b'{"input":' + b"[" * 200_000,
    "many names": json.dumps({"input": dict.fromkeys(map(str, range(150_000)))}).encode(),
    "slow numbers": b'{"input":[' + b"1e300," * 90_000 + b"1]}",
    "nothing to run": b"{}",
    "secret": b'{"input":{"lc":1,"type":"secret","id":["PERSON_KEY"]},"inputs":[{"lc":1}]}',
    "kwargs": b'{"input":"x","inputs":["x"],"kwargs":{"a":"%b"}}' % MARK,
    "config": b'{"input":"x","inputs":["x"],"config":"%b"}' % MARK,
    "base_url": b'{"input":"x","inputs":["x"],"config":{"configurable":{"base_url":"%b"}}}' % MARK,
    "thread": b'{"input":"x","inputs":["x"],"config":{"configurable":{"thread_id":"%b"}}}' % MARK,
    "internal": b'{"input":"x","inputs":["x"],"config":{"configurable":{"__pregel":"%b"}}}' % MARK,
    "no inputs": b'{"inputs":null,"input":null}',
    "too many": b'{"inputs":[' + b'"x",' * 20_000 + b'"x"],"input":[1]}',
}


@pytest.mark.parametrize("endpoint", ["invoke", "batch", "stream"])
@pytest.mark.parametrize("chain", ["upper", "prompt_chat", "configurable"])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_body_that_breaks_a_rule_is_422(http, chain, endpoint, body):
    answer = http.post(f"/{chain}/{endpoint}", content=body)

    assert 422 == answer.status_code
    assert answer.json()["detail"]
    assert MARKER not in answer.text


@pytest.mark.parametrize("endpoint", ["invoke", "batch", "stream", "input_schema"])
def test_a_body_over_the_cap_is_413(http, endpoint):
    answer = http.post(f"/upper/{endpoint}", content=b"a" * 9_000_000)

    assert 413 == answer.status_code
    assert answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("nobody/invoke", 404),
        ("upper/nothing", 404),
        ("upper/INVOKE", 404),
        ("upper/playground/", 404),
        ("upper/feedback", 400),
        ("upper/public_trace_link", 405),
        ("upper/stream_log", 403),
        ("upper/stream_events", 403),
        ("upper/c/AAAA/invoke", 400),
        ("upper/c/" + "A" * 5000 + "/invoke", 404),
        ("upper%2finvoke/x", 400),
        ("upper//invoke", 400),
        ("upper;a=b/invoke", 400),
    ],
)
def test_what_is_no_chain_s_route_says_so(http, path, status):
    answer = http.post(f"/{path}", json={"input": "x"})

    assert status == answer.status_code
    assert answer.json()["detail"]


@pytest.mark.parametrize("chain", ["fail", "nobody", "UPPER", "upper%3A"])
def test_a_key_learns_nothing_of_chains_that_are_not_its_own(service, http, chain):
    headers = {"Authorization": f"Bearer {KEYS['NARROW_KEY']}"}
    answer = http.post(f"/{chain}/invoke", json={"input": "x"}, headers=headers)

    assert 403 == answer.status_code
    listed = http.get(f"{service.url}/chains", headers=headers).json()["chains"]
    assert ["upper"] == [one["name"] for one in listed]
