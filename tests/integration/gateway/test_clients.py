"""Unmodified SDKs against a real service and a real sandbox."""

from __future__ import annotations

import anthropic
import openai
import pytest

MESSAGES = [{"role": "user", "content": "Tell me of rivers."}]
TOOL = {
    "type": "function",
    "function": {
        "name": "count_words",
        "parameters": {"type": "object", "properties": {"text": {"type": "string"}}},
    },
}


@pytest.fixture
def openai_client(service):
    with openai.OpenAI(api_key="dev", base_url=f"{service.url}/openai/v1", max_retries=0) as client:
        yield client


@pytest.fixture
def anthropic_client(service):
    with anthropic.Anthropic(
        api_key="dev", base_url=f"{service.url}/anthropic", max_retries=0
    ) as client:
        yield client


def test_a_chat_completion_comes_back_with_what_happened_in_its_headers(openai_client):
    raw = openai_client.chat.completions.with_raw_response.create(
        model="sandbox", messages=MESSAGES
    )
    answer = raw.parse()

    assert answer.choices[0].message.content
    assert answer.usage.total_tokens > 0
    assert raw.headers["penstock-deployment"] == "sandbox"
    assert raw.headers["penstock-class"] == "interactive"
    assert int(raw.headers["penstock-wait-ms"]) >= 0
    assert answer._request_id == raw.headers["x-request-id"]


def test_a_stream_has_usage_only_for_those_who_asked(openai_client):
    def stream(**options):
        chunks = list(
            openai_client.chat.completions.create(
                model="sandbox", messages=MESSAGES, stream=True, **options
            )
        )
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        return text, [chunk.usage for chunk in chunks if chunk.usage]

    plain_text, none = stream()
    text, usages = stream(stream_options={"include_usage": True})

    assert plain_text == text != ""
    assert [] == none
    assert 1 == len(usages)


def test_tools_and_unknown_fields_pass_through(openai_client):
    answer = openai_client.chat.completions.create(
        model="sandbox", messages=MESSAGES, tools=[TOOL], extra_body={"some_new_field": {"a": 1}}
    )
    assert "count_words" == answer.choices[0].message.tool_calls[0].function.name


def test_embeddings_and_models(openai_client):
    embedded = openai_client.embeddings.create(model="sandbox", input=["a", "b"])
    assert 2 == len(embedded.data)
    listed = [model.id for model in openai_client.models.list()]
    assert ["sandbox"] == [name for name in listed if not name.startswith("chain:")]
    assert "sandbox" == openai_client.models.retrieve("sandbox").id


def test_messages_plain_and_streamed(anthropic_client):
    asked = {"model": "sandbox", "max_tokens": 50, "messages": MESSAGES}
    answer = anthropic_client.messages.create(**asked)
    with anthropic_client.messages.stream(**asked) as stream:
        streamed = stream.get_final_message()

    assert answer.content[0].text == streamed.content[0].text
    assert answer.usage.output_tokens == streamed.usage.output_tokens > 0
    assert ["sandbox"] == [model.id for model in anthropic_client.models.list()]


def test_errors_come_in_each_sdk_s_own_shape(openai_client, anthropic_client, service):
    with pytest.raises(openai.NotFoundError) as unknown:
        openai_client.chat.completions.create(model="no-such-model", messages=MESSAGES)
    assert "model_not_found" == unknown.value.code
    with pytest.raises(openai.AuthenticationError):
        openai_client.with_options(api_key="wrong").models.list()
    with pytest.raises(openai.BadRequestError):
        openai_client.chat.completions.create(model="sandbox", messages="no list")
    with pytest.raises(anthropic.NotFoundError) as not_here:
        anthropic_client.messages.create(model="nope", max_tokens=9, messages=MESSAGES)
    assert "not_found_error" == not_here.value.body["error"]["type"]
    with pytest.raises(anthropic.AuthenticationError):
        anthropic_client.with_options(api_key="wrong").messages.create(
            model="sandbox", max_tokens=9, messages=MESSAGES
        )


def test_what_is_not_served_says_so_by_name_and_is_not_asked_for_again(
    openai_client, anthropic_client
):
    for ask, name in (
        (lambda: openai_client.moderations.create(input="Hi"), "/v1/moderations"),
        (lambda: openai_client.responses.input_items.list("resp_a"), "input_items"),
        (lambda: openai_client.conversations.retrieve("conv_a"), "/v1/conversations"),
        (anthropic_client.messages.batches.list, "/v1/messages/batches"),
        (lambda: anthropic_client.messages.batches.cancel("b"), "/v1/messages/batches"),
    ):
        with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)) as not_served:
            ask()
        assert not_served.value.status_code == 501
        assert f"{name} is not served" in not_served.value.message
        assert not_served.value.response.headers["x-should-retry"] == "false"
