"""Every LLM call of a chain reaches the gateway, and says which run it belongs to."""

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import aiohttp
import pytest

from penstock.http.run_identity import HEADER, verify

RUN_KEY = b"r" * 32
CHAINS = [
    "chat_openai",
    "chat_anthropic",
    "no_retries",
    "raw_async",
    "raw_sync",
    "in_threads",
    "bare_threads",
    "three_steps",
    "side_by_side",
    "elsewhere",
]

OPENAI_ANSWER = {
    "id": "x",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}
ANTHROPIC_ANSWER = {
    "id": "x",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "ho"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 1},
}


class Gateway(ThreadingHTTPServer):
    """Records what arrives; answers ``refusals`` first, each once."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.calls = []
        self.refusals = []
        self.lock = threading.Lock()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def identities(self):
        return [verify(call["headers"].get(HEADER, ""), RUN_KEY) for call in self.calls]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        call = {
            "path": self.path,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "body": body,
        }
        with self.server.lock:
            self.server.calls.append(call)
            refusal = self.server.refusals.pop(0) if self.server.refusals else None
        status, headers, answer = 200, {}, OPENAI_ANSWER
        if self.path.startswith("/anthropic"):
            answer = ANTHROPIC_ANSWER
        if refusal:
            status, headers, answer = refusal
        data = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def gateway_server():
    with Gateway() as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.05])
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def gateway(gateway_server):
    gateway_server.calls = []
    gateway_server.refusals = []
    return gateway_server


@pytest.fixture(scope="module")
def llm_front(gateway_server, front_before, tables):
    made = {name: tables(name, module="llm_chains") for name in CHAINS}
    examples = ["haiku", "brief", "agent", "keywords"]
    made.update({name: tables("chain", module=name) for name in examples})
    with front_before(made, gateway_server.url) as front:
        yield front


@pytest.fixture
def call(gateway, llm_front):
    """Sends requests all at once: ``call((chain, input), …)``; answers in their order."""

    def run(*requests, refusals=(), headers=None):
        gateway.refusals = list(refusals)
        all_headers = {"authorization": "Bearer key", **(headers or {})}

        async def go():
            async with aiohttp.ClientSession(headers=all_headers) as http:

                async def one(chain, value):
                    url = f"{llm_front.url}/{chain}/invoke"
                    async with http.post(url, json={"input": value}) as answer:
                        body = await answer.json(content_type=None)
                        return answer.status, dict(answer.headers), body

                return await asyncio.gather(*(one(*request) for request in requests))

        return asyncio.run(go())

    return run


def test_every_way_of_calling_a_model_goes_to_the_gateway_with_its_run(gateway, call):
    answers = call(
        ("chat_openai", {"topic": "t"}),
        ("chat_anthropic", {"topic": "t"}),
        ("raw_async", "t"),
        ("raw_sync", "t"),
        ("in_threads", "t"),
        ("bare_threads", "t"),
        ("side_by_side", "t"),
        headers={"priority": "u=0"},
    )

    assert [200] * 7 == [status for status, _, _ in answers]
    by_run = {}
    for identity in gateway.identities():
        assert identity is not None
        assert ("acme", "all", "interactive") == (
            identity.tenant,
            identity.key_id,
            identity.class_name,
        )
        by_run.setdefault((identity.chain, identity.run_id), []).append(identity.step)
    assert {
        "chat_openai": [0],
        "chat_anthropic": [0],
        "raw_async": [0, 1],
        "raw_sync": [0, 1],
        "in_threads": [0, 1, 2],
        "bare_threads": [0, 1],
        "side_by_side": [0, 1],
    } == {chain: sorted(steps) for (chain, _), steps in by_run.items()}
    answered = {answer["metadata"]["run_id"] for _, _, answer in answers}
    assert answered == {run_id for _, run_id in by_run}
    assert {"/openai/v1/chat/completions", "/anthropic/v1/messages"} == {
        one["path"].partition("?")[0] for one in gateway.calls
    }


def test_concurrent_runs_of_one_chain_keep_their_steps_apart(gateway, call):
    answers = call(*[("three_steps", f"topic {i}") for i in range(8)])

    topics = {answer["metadata"]["run_id"]: answer["output"] for _, _, answer in answers}
    seen = {}
    for identity, one in zip(gateway.identities(), gateway.calls, strict=True):
        assert topics[identity.run_id] in one["body"].decode()
        seen.setdefault(identity.run_id, []).append(identity.step)
    assert [[0, 1, 2]] * 8 == list(seen.values())


def test_a_retry_of_the_sdk_keeps_the_step_of_its_call(gateway, call):
    failure = (500, {"retry-after-ms": "1"}, {"error": {"message": "try again"}})
    [(status, _, _)] = call(("three_steps", "t"), refusals=[failure])

    assert 200 == status
    assert [0, 0, 1, 2] == [identity.step for identity in gateway.identities()]


def test_the_identity_goes_nowhere_but_to_the_gateway(gateway, call):
    """A header of that name that a chain sets itself is taken off, too."""
    with Gateway() as other:
        thread = threading.Thread(target=other.serve_forever, args=[0.05])
        thread.start()
        [(status, _, _)] = call(("elsewhere", other.url))
        other.shutdown()
        thread.join()

        assert 200 == status
        assert [True] == [HEADER not in one["headers"] for one in other.calls]


@pytest.mark.parametrize("status", [400, 429, 503])
def test_a_refusal_of_the_gateway_reaches_the_caller_with_its_reason(gateway, call, status):
    refusal = (
        status,
        {"retry-after": "7", "x-should-retry": "true"},
        {"error": {"message": "the reason", "code": "some_code"}},
    )
    [(seen, headers, body)] = call(("no_retries", {"topic": "t"}), refusals=[refusal])

    assert (status, "7") == (seen, headers["Retry-After"])
    assert "the reason" == body["detail"]
    assert "urn:penstock:error:some_code" == body["type"]


def test_a_refusal_of_our_own_key_is_the_operators_matter(gateway, call):
    refusal = (401, {}, {"error": {"message": "no such key: SECRET"}})
    [(status, _, body)] = call(("no_retries", {"topic": "t"}), refusals=[refusal])

    assert 500 == status
    assert "SECRET" not in json.dumps(body)


def test_the_example_chains_run_and_their_steps_are_counted(gateway, call):
    agent_input = {"messages": [{"role": "user", "content": "hello"}]}
    answers = call(
        ("haiku", {"topic": "water"}),
        ("brief", {"topic": "water"}),
        ("agent", agent_input),
        ("keywords", {}),
        ("keywords", {"count": 2}),
    )

    assert [200] * 5 == [status for status, _, _ in answers]
    haiku, brief, agent, keywords, two = [body["output"] for _, _, body in answers]
    assert ("hi", "hi") == (haiku, brief)
    assert ["human", "ai"] == [message["type"] for message in agent["messages"]]
    assert (5, keywords[:2]) == (len(keywords), two)
    steps = {}
    for identity in gateway.identities():
        steps.setdefault(identity.chain, []).append(identity.step)
    assert {"haiku": [0], "brief": [0, 1, 2], "agent": [0]} == steps
