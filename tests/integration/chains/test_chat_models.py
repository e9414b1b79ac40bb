"""Chains as models: ``chain:NAME`` on ``/v1/chat/completions``, by the openai SDK, in a service."""

import json
from pathlib import Path

import httpx
import openai
import pytest

CONTRACT = Path(__file__).parent / "contract.toml"
KEYS = """
[keys.all]
tenant = "acme"
key_env = "ALL_KEY"

[keys.narrow]
tenant = "acme"
key_env = "NARROW_KEY"
chains = ["upper"]
"""
HI = [{"role": "user", "content": "hi there"}]


@pytest.fixture(scope="module")
def contract(serve):
    """The contract chains behind a whole service, with two keys of which one is narrow."""
    toml = CONTRACT.read_text().replace('path = ["."]', f'path = ["{CONTRACT.parent}"]')
    process = serve(toml + KEYS, ALL_KEY="all", NARROW_KEY="narrow")
    process.wait_ready()
    return process


@pytest.fixture
def sdk(contract):
    def make(key="all"):
        return openai.OpenAI(base_url=f"{contract.url}/v1", api_key=key, max_retries=0)

    return make


def texts(chunks):
    return [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]


@pytest.mark.parametrize(
    ("chain", "text"),
    [
        ("chat", "echo: hi there"),
        ("upper", "HI THERE"),
        ("prompt_chat", "echo: about hi there"),
        ("graph", "said hi there"),
        ("ident_messages", "hi there"),
        ("state", "hi there"),
    ],
)
def test_every_form_of_chain_answers_a_completion_whole_and_streamed(sdk, chain, text):
    with sdk() as client:
        asked = {"model": f"chain:{chain}", "messages": HI}
        answer = client.chat.completions.create(**asked)
        assert (text, "stop") == (
            answer.choices[0].message.content,
            answer.choices[0].finish_reason,
        )
        assert answer.model == f"chain:{chain}"
        chunks = list(client.chat.completions.create(**asked, stream=True))
        streamed = "".join(filter(None, texts(chunks)))
        # A graph shows the tokens of every step on the way to its answer.
        assert streamed.endswith(text)
        assert ("graph" != chain) == (streamed == text)
        assert "stop" == chunks[-1].choices[0].finish_reason


def test_the_usage_is_the_sum_over_the_run_and_absent_where_nobody_told_it(sdk):
    with sdk() as client:
        asked = {"model": "chain:chat", "messages": HI}
        assert 13 == client.chat.completions.create(**asked).usage.total_tokens
        counted = {"stream": True, "stream_options": {"include_usage": True}}
        *_, last = client.chat.completions.create(**asked, **counted)
        assert ([], 13) == (last.choices, last.usage.total_tokens)
        without = client.chat.completions.create(model="chain:upper", messages=HI)
        assert without.usage is None


def test_a_models_tool_calls_are_told_and_a_graphs_own_are_not_asked_of_the_caller(sdk):
    tool = [{"role": "user", "content": "tool:paris"}]
    with sdk() as client:
        [choice] = client.chat.completions.create(model="chain:chat", messages=tool).choices
        [call] = choice.message.tool_calls
        assert ("tool_calls", "lookup", '{"q": "paris"}') == (
            choice.finish_reason,
            call.function.name,
            call.function.arguments,
        )
        chunks = list(
            client.chat.completions.create(model="chain:chat", messages=tool, stream=True)
        )
        [told] = [part for chunk in chunks for part in chunk.choices[0].delta.tool_calls or []]
        assert {"q": "paris"} == json.loads(told.function.arguments)
        assert "tool_calls" == chunks[-1].choices[0].finish_reason
        chunks = list(
            client.chat.completions.create(model="chain:graph", messages=tool, stream=True)
        )
        assert not any(chunk.choices[0].delta.tool_calls for chunk in chunks)


def test_a_key_sees_and_calls_its_own_chains_only(sdk):
    with sdk() as all_of_them, sdk("narrow") as narrow:
        listed = {model.id for model in all_of_them.models.list()}
        assert {"chain:chat", "chain:upper", "chain:graph"} < listed
        assert not {"chain:add_one", "chain:person", "chain:graph_with_memory"} & listed
        chains = {model.id for model in narrow.models.list() if model.id.startswith("chain:")}
        assert {"chain:upper"} == chains
        with pytest.raises(openai.PermissionDeniedError):
            narrow.chat.completions.create(model="chain:chat", messages=HI)


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"model": "chain:nobody"}, openai.NotFoundError, "no such chain"),
        ({"model": "chain:person"}, openai.NotFoundError, "as a model"),
        ({"n": 2}, openai.UnprocessableEntityError, "n must be 1"),
        ({"messages": [{"role": "sultan", "content": "x"}]}, openai.APIStatusError, "role"),
        ({"tools": [{"type": "function"}]}, openai.UnprocessableEntityError, "tools"),
    ],
)
def test_what_a_chain_cannot_do_is_refused_in_the_sdks_own_errors(sdk, fields, error, words):
    with sdk() as client, pytest.raises(error, match=words):
        client.chat.completions.create(**{"model": "chain:upper", "messages": HI, **fields})


def test_a_failure_and_a_deadline_are_errors_before_and_within_a_stream(sdk, contract):
    boom = [{"role": "user", "content": "boom"}]
    with sdk() as client:
        with pytest.raises(openai.InternalServerError) as told:
            client.chat.completions.create(model="chain:fail", messages=boom)
        assert "SECRET" not in str(told.value)
        with pytest.raises(openai.InternalServerError):
            client.chat.completions.create(model="chain:fail", messages=boom, stream=True)


def test_a_run_ends_at_the_deadline_that_its_caller_names(contract, poll):
    headers = {"authorization": "Bearer all"}

    def post(chain, value, **more):
        url = f"{contract.url}/chains/{chain}/invoke"
        return httpx.post(url, json={"input": value}, headers={**headers, **more}, timeout=30)

    post("slow_status", True)
    answer = post("slow", 20, prefer="wait=1")
    assert (504, "urn:penstock:error:deadline_exceeded") == (
        answer.status_code,
        answer.json()["type"],
    )
    ended = {"started": 1, "finished": 0, "cancelled": 1}
    poll(lambda: post("slow_status", False).json()["output"] == ended)
