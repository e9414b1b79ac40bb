"""The endpoints beyond chat and messages, by unmodified SDKs, and the kinds of providers."""

from __future__ import annotations

import base64
import struct

import anthropic
import httpx
import openai
import pytest

CONFIG = """
[workers]
count = 0
[providers.one]
kind = "openai"
base_url = "{one}/v1"
[providers.two]
kind = "openai"
base_url = "{two}/v1"
[providers.messages]
kind = "anthropic"
base_url = "{one}"
[providers.dated]
kind = "azure"
base_url = "{one}/openai"
api_version = "2024-10-21"
key_env = "UPSTREAM_KEY"
[providers.local]
kind = "openai-compatible"
base_url = "{one}/v1"
[deployments.first]
provider = "one"
model = "sandbox"
rpm = 6_000
[deployments.second]
provider = "two"
model = "sandbox"
rpm = 6_000
[deployments.claude]
provider = "messages"
model = "sandbox"
rpm = 6_000
[deployments.azure]
provider = "dated"
model = "sandbox"
serves = ["gpt-azure"]
rpm = 6_000
[deployments.local]
provider = "local"
model = "sandbox"
serves = ["llama"]
concurrency = 4
[keys.web]
tenant = "web"
class = "interactive"
key_env = "WEB_KEY"
[keys.other]
tenant = "other"
key_env = "OTHER_KEY"
"""
WEB, OTHER = "web-key-with-enough-letters", "other-key-with-enough-letters"
TOOL = {
    "type": "function",
    "name": "count_words",
    "parameters": {"type": "object", "properties": {"text": {"type": "string"}}},
}


@pytest.fixture(scope="module")
def sandboxes(fast_sandbox):
    return fast_sandbox(), fast_sandbox()


@pytest.fixture(scope="module")
def service(sandboxes, serve):
    one, two = sandboxes
    config = CONFIG.replace("{one}", one.url).replace("{two}", two.url)
    # A provider without a key still wants one: any will do for the sandbox.
    config = config.replace('/v1"\n', '/v1"\nkey_env = "UPSTREAM_KEY"\n')
    config = config.replace(f'"{one.url}"\n', f'"{one.url}"\nkey_env = "UPSTREAM_KEY"\n')
    return serve(config, WEB_KEY=WEB, OTHER_KEY=OTHER, UPSTREAM_KEY="sk-upstream")


@pytest.fixture
def client(service):
    with openai.OpenAI(api_key=WEB, base_url=f"{service.url}/openai/v1", max_retries=0) as made:
        yield made


@pytest.fixture
def claude(service):
    base_url = f"{service.url}/anthropic"
    with anthropic.Anthropic(api_key=WEB, base_url=base_url, max_retries=0) as made:
        yield made


def test_a_response_plain_and_streamed_is_the_same(client):
    asked = {"model": "sandbox", "input": "Tell me of rivers.", "instructions": "Be brief."}
    raw = client.responses.with_raw_response.create(**asked)
    plain = raw.parse()
    with client.responses.stream(**asked) as stream:
        text = "".join(
            event.delta for event in stream if event.type == "response.output_text.delta"
        )
        streamed = stream.get_final_response()

    assert plain.output_text == streamed.output_text == text != ""
    assert plain.usage.output_tokens == streamed.usage.output_tokens > 0
    assert raw.headers["penstock-model"] == "sandbox"
    assert raw.headers["penstock-deployment"] in {"first", "second"}


def test_tools_go_there_and_back(client):
    first = client.responses.create(model="sandbox", input="How many?", tools=[TOOL])
    call = first.output[0]
    assert "count_words" == call.name
    asked = {"type": "function_call", "call_id": call.call_id, "name": call.name}
    items = [
        {"role": "user", "content": "How many?"},
        {**asked, "arguments": call.arguments},
        {"type": "function_call_output", "call_id": call.call_id, "output": "7"},
    ]
    assert client.responses.create(model="sandbox", input=items, tools=[TOOL]).output_text


def test_a_response_is_continued_where_it_is_kept(client):
    """Two deployments serve the model; each knows only what it has answered itself."""
    for _ in range(6):
        first = client.responses.create(model="sandbox", input="Hello")
        second = client.responses.with_raw_response.create(
            model="sandbox", input="And now?", previous_response_id=first.id
        )
        assert first.id == second.parse().previous_response_id


def test_a_response_is_nobody_else_s_to_continue(client, service):
    mine = client.responses.create(model="sandbox", input="A secret")
    theirs = openai.OpenAI(api_key=OTHER, base_url=f"{service.url}/v1", max_retries=0)
    with theirs, pytest.raises(openai.BadRequestError) as refused:
        theirs.responses.create(model="sandbox", input="Go on", previous_response_id=mine.id)
    assert "previous_response_not_found" == refused.value.code
    with pytest.raises(openai.APIStatusError) as unserved:
        client.responses.create(model="sandbox", input="x", conversation="conv_1")
    assert 501 == unserved.value.status_code


@pytest.mark.parametrize("fault", ["close-mid-stream", "error-mid-stream"])
def test_a_late_error_is_the_protocol_s_own_end(client, sandboxes, fault):
    for sandbox in sandboxes:
        sandbox.post("/faults", {"faults": [fault], "calls": 1})
    events = list(client.responses.create(model="sandbox", input="Hi", stream=True))
    for sandbox in sandboxes:
        sandbox.post("/faults", {"faults": []})
    assert "response.failed" == events[-1].type
    assert events[0].response.id == events[-1].response.id
    numbers = [event.sequence_number for event in events]
    assert list(range(len(events))) == numbers


def test_text_completions_plain_and_streamed(client):
    asked = {"model": "sandbox", "prompt": "Once upon a time", "max_tokens": 40}
    plain = client.completions.create(**asked)
    chunks = list(client.completions.create(**asked, stream=True))
    assert plain.choices[0].text == "".join(chunk.choices[0].text for chunk in chunks)
    assert plain.usage.completion_tokens > 0
    assert not any(chunk.usage for chunk in chunks)


def test_embeddings_of_texts_tokens_and_base64(client):
    def embed(given, **options):
        return client.embeddings.create(model="sandbox", input=given, **options).data

    assert 1 == len(embed("a"))
    assert 2 == len(embed(["a", "b"]))
    assert 1 == len(embed([1, 2, 3]))
    assert 2 == len(embed([[1, 2], [3]]))
    [floats] = embed("a", encoding_format="float")
    [packed] = embed("a", encoding_format="base64")
    unpacked = struct.unpack(f"{len(floats.embedding)}f", base64.b64decode(packed.embedding))
    assert pytest.approx(floats.embedding, abs=1e-6) == list(unpacked)


def test_tokens_are_counted_without_a_limit_being_touched(claude, sandboxes, service):
    messages = [{"role": "user", "content": "Count me, please."}]
    raw = claude.messages.with_raw_response.count_tokens(model="sandbox", messages=messages)
    assert raw.parse().input_tokens > 0
    assert "claude" == raw.headers["penstock-deployment"]
    assert sandboxes[0].get("/stats")[1]["by_status"].keys() <= {"200", "529"}


def test_azure_is_asked_by_its_own_paths_and_key(client, sandboxes):
    answer = client.chat.completions.with_raw_response.create(
        model="gpt-azure", messages=[{"role": "user", "content": "Hi"}]
    )
    assert answer.parse().choices[0].message.content
    last = sandboxes[0].get("/stats?calls=1")[1]["last_calls"][-1]
    assert "/openai/deployments/sandbox/chat/completions" == last["path"]
    assert last["key"].endswith("ream")
    assert client.responses.create(model="gpt-azure", input="Hi").output_text


def test_a_provider_that_speaks_no_responses_says_so_by_name(client):
    with pytest.raises(openai.NotFoundError) as refused:
        client.responses.create(model="llama", input="Hi")
    assert "/v1/chat/completions" in refused.value.message
    assert client.completions.create(model="llama", prompt="Hi").choices


def test_the_same_doors_stand_under_both_prefixes(service):
    headers = {"authorization": f"Bearer {WEB}"}
    with httpx.Client(base_url=service.url, headers=headers, timeout=30) as http:
        for path in ("/v1/responses", "/openai/v1/responses", "/openai/v1/completions"):
            body = {"model": "sandbox", "input": "Hi", "prompt": "Hi"}
            assert 200 == http.post(path, json=body).status_code
        for path in ("/v1/messages/count_tokens", "/anthropic/v1/messages/count_tokens"):
            body = {"model": "sandbox", "messages": [{"role": "user", "content": "Hi"}]}
            assert 200 == http.post(path, json=body).status_code
