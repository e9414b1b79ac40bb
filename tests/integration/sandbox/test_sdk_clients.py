"""The unmodified SDKs take the sandbox for their provider."""

from __future__ import annotations

import json

import anthropic
import openai
import pytest

from penstock.sandbox.text import tokens_of
from penstock.simulate.provider_world import ProviderLimits

MESSAGES = [{"role": "user", "content": "Which river runs past the mill?"}]
SCHEMA = {
    "type": "object",
    "properties": {"query": {"type": "string"}, "count": {"type": "integer", "minimum": 3}},
    "required": ["query", "count"],
}
OPENAI_TOOL = {"type": "function", "function": {"name": "look_up", "parameters": SCHEMA}}
ANTHROPIC_TOOL = {"name": "look_up", "description": "looks up", "input_schema": SCHEMA}
ARGUMENTS = {"query": "Which river runs past the mill?", "count": 3}


def test_an_openai_stream_says_what_the_plain_answer_says(sandbox):
    client = sandbox.openai()
    plain = client.chat.completions.create(model="sandbox", messages=MESSAGES)
    chunks = list(
        client.chat.completions.create(
            model="sandbox",
            messages=MESSAGES,
            stream=True,
            stream_options={"include_usage": True},
        )
    )

    text = plain.choices[0].message.content
    assert text.startswith('You said "Which river runs past the mill?"')
    assert text == "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert chunks[-2].choices[0].finish_reason == plain.choices[0].finish_reason == "stop"
    assert chunks[-1].usage == plain.usage
    assert plain.usage.completion_tokens == tokens_of(text)
    assert 40 <= plain.usage.completion_tokens <= 80
    assert plain._request_id.startswith("req_")


def test_an_openai_stream_holds_no_usage_that_was_not_asked_for(sandbox):
    chunks = list(
        sandbox.openai().chat.completions.create(model="sandbox", messages=MESSAGES, stream=True)
    )

    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


def test_max_tokens_cuts_the_answer(sandbox):
    openai_answer = sandbox.openai().chat.completions.create(
        model="sandbox", messages=MESSAGES, max_tokens=5
    )
    anthropic_answer = sandbox.anthropic().messages.create(
        model="sandbox", messages=MESSAGES, max_tokens=5
    )

    assert openai_answer.choices[0].finish_reason == "length"
    assert openai_answer.usage.completion_tokens == 5
    assert anthropic_answer.stop_reason == "max_tokens"
    assert anthropic_answer.usage.output_tokens == 5


def test_an_anthropic_stream_says_what_the_plain_answer_says(sandbox):
    client = sandbox.anthropic()
    plain = client.messages.create(model="sandbox", messages=MESSAGES, max_tokens=500)
    with client.messages.stream(model="sandbox", messages=MESSAGES, max_tokens=500) as stream:
        kinds = [event.type for event in stream]
        streamed = stream.get_final_message()

    assert plain.content[0].text == streamed.content[0].text
    assert plain.stop_reason == streamed.stop_reason == "end_turn"
    assert plain.usage.output_tokens == streamed.usage.output_tokens
    assert plain.usage.input_tokens == streamed.usage.input_tokens
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"


def test_the_raw_anthropic_stream_has_every_kind_of_event_in_order(sandbox):
    events = list(
        sandbox.anthropic().messages.create(
            model="sandbox", messages=MESSAGES, max_tokens=4, stream=True
        )
    )
    raw = sandbox.http.post(
        "/v1/messages",
        json={"model": "sandbox", "messages": MESSAGES, "max_tokens": 4, "stream": True},
    ).text
    names = [line[7:] for line in raw.splitlines() if line.startswith("event: ")]

    assert [
        "message_start",
        "content_block_start",
        "ping",
        *["content_block_delta"] * names.count("content_block_delta"),
        "content_block_stop",
        "message_delta",
        "message_stop",
    ] == names
    assert events[-2].usage.output_tokens == 4


@pytest.mark.parametrize("stream", [False, True])
def test_openai_tools_are_called_first_and_answered_with_text_then(sandbox, stream):
    client = sandbox.openai()
    with client.chat.completions.stream(
        model="sandbox", messages=MESSAGES, tools=[OPENAI_TOOL]
    ) as events:
        streamed = events.get_final_completion().choices[0]
    plain = client.chat.completions.create(
        model="sandbox", messages=MESSAGES, tools=[OPENAI_TOOL]
    ).choices[0]
    choice = streamed if stream else plain
    call = choice.message.tool_calls[0]

    assert choice.finish_reason == "tool_calls"
    assert ("look_up", ARGUMENTS) == (call.function.name, json.loads(call.function.arguments))

    messages = [
        *MESSAGES,
        {
            "role": "assistant",
            "tool_calls": [
                {"id": call.id, "type": "function", "function": call.function.model_dump()}
            ],
        },
        {"role": "tool", "tool_call_id": call.id, "content": "the Ouse"},
    ]
    final = client.chat.completions.create(model="sandbox", messages=messages, tools=[OPENAI_TOOL])
    assert final.choices[0].finish_reason == "stop"
    assert final.choices[0].message.content


def test_anthropic_tools_are_called_first_and_answered_with_text_then(sandbox):
    client = sandbox.anthropic()
    common = {"model": "sandbox", "max_tokens": 500, "tools": [ANTHROPIC_TOOL]}
    plain = client.messages.create(messages=MESSAGES, **common)
    with client.messages.stream(messages=MESSAGES, **common) as stream:
        streamed = stream.get_final_message()

    for message in (plain, streamed):
        assert message.stop_reason == "tool_use"
        assert ("look_up", ARGUMENTS) == (message.content[0].name, message.content[0].input)

    answered = [
        *MESSAGES,
        {"role": "assistant", "content": plain.content},
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": plain.content[0].id,
                    "content": "the Ouse",
                }
            ],
        },
    ]
    final = client.messages.create(messages=answered, **common)
    assert final.stop_reason == "end_turn"
    assert final.content[0].text.startswith('You said "Which river')


def test_a_json_schema_is_answered_with_json_of_it(sandbox):
    answer = sandbox.openai().chat.completions.create(
        model="sandbox",
        messages=MESSAGES,
        response_format={"type": "json_schema", "json_schema": {"name": "q", "schema": SCHEMA}},
    )

    assert json.loads(answer.choices[0].message.content) == ARGUMENTS


def test_embeddings_are_unit_vectors_of_their_text_alone(sandbox):
    client = sandbox.openai()
    both = client.embeddings.create(model="sandbox", input=["mill", "gate"], dimensions=8)
    one = client.embeddings.create(
        model="sandbox", input="gate", dimensions=8, encoding_format="float"
    )

    assert both.data[1].embedding == pytest.approx(one.data[0].embedding)
    assert both.data[0].embedding != both.data[1].embedding
    assert sum(x * x for x in one.data[0].embedding) == pytest.approx(1)
    assert both.usage.prompt_tokens == 2


def test_models_and_token_counts(sandbox):
    client = sandbox.anthropic()

    assert [m.id for m in sandbox.openai().models.list()] == ["sandbox"]
    assert sandbox.openai().models.retrieve("sandbox").id == "sandbox"
    assert [m.id for m in client.models.list()] == ["sandbox"]
    counted = client.messages.count_tokens(model="sandbox", messages=MESSAGES)
    used = client.messages.create(model="sandbox", messages=MESSAGES, max_tokens=1)
    assert counted.input_tokens == used.usage.input_tokens == tokens_of(MESSAGES[0]["content"])


def test_unknown_models_are_not_found_unless_listed(start):
    sandbox = start(models=("sandbox", "gpt-listed"))

    with pytest.raises(openai.NotFoundError) as refused:
        sandbox.openai().chat.completions.create(model="gpt-none", messages=MESSAGES)
    assert refused.value.code == "model_not_found"
    with pytest.raises(anthropic.NotFoundError) as not_found:
        sandbox.anthropic().messages.create(model="gpt-none", messages=MESSAGES, max_tokens=1)
    assert not_found.value.body["error"]["type"] == "not_found_error"
    assert sandbox.openai().chat.completions.create(model="gpt-listed", messages=MESSAGES)


def test_openai_limits_are_told_as_the_provider_tells_them(start):
    sandbox = start(limits=ProviderLimits(rpm=2, tpm=6_000))
    client = sandbox.openai()
    first = client.chat.completions.with_raw_response.create(
        model="sandbox", messages=MESSAGES, max_tokens=1_000
    )
    client.chat.completions.create(model="sandbox", messages=MESSAGES)

    with pytest.raises(openai.RateLimitError) as limited:
        client.chat.completions.create(model="sandbox", messages=MESSAGES)

    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert first.headers["x-ratelimit-reset-requests"] == "30s"
    assert first.headers["x-ratelimit-remaining-tokens"] == "5000"
    assert first.headers["x-ratelimit-reset-tokens"] == "10s"
    error = limited.value
    assert ("rate_limit_exceeded", "requests") == (error.code, error.type)
    assert (
        "Rate limit reached for sandbox in organization org-sandbox on requests per min (RPM): "
        "Limit 2, Used 2, Requested 1. Please try again in 29." in error.message
    )
    milliseconds = int(error.response.headers["retry-after-ms"])
    assert 28_000 < milliseconds <= 30_000
    assert error.response.headers["retry-after"] == str(-(-milliseconds // 1000))


def test_anthropic_limits_are_told_as_the_provider_tells_them(start):
    sandbox = start(limits=ProviderLimits(rpm=1, itpm=40_000, otpm=8_000))
    client = sandbox.anthropic()
    raw = client.messages.with_raw_response.create(
        model="sandbox", messages=MESSAGES, max_tokens=9_999
    )

    with pytest.raises(anthropic.RateLimitError) as limited:
        client.messages.create(model="sandbox", messages=MESSAGES, max_tokens=10)

    assert raw.headers["anthropic-ratelimit-requests-remaining"] == "0"
    assert raw.headers["anthropic-ratelimit-input-tokens-remaining"] == "40000"
    assert raw.headers["anthropic-ratelimit-output-tokens-limit"] == "8000"
    assert raw.headers["anthropic-ratelimit-tokens-limit"] == "48000"
    assert raw.headers["anthropic-ratelimit-requests-reset"].endswith("Z")
    error = limited.value
    assert error.body["error"]["type"] == "rate_limit_error"
    assert "rate limit of 1 requests per minute" in error.body["error"]["message"]
    assert 58 <= int(error.response.headers["retry-after"]) <= 60
    assert "retry-after-ms" not in error.response.headers
    assert error.request_id == error.body["request_id"]
