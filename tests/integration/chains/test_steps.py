"""A run seen from inside: ``stream_events`` and ``stream_log``, by LangServe's client and bare."""

import asyncio
import json

import httpx
import pytest
from langchain_core.messages import AIMessageChunk
from langserve import RemoteRunnable

KEY = {"authorization": "Bearer key"}


@pytest.fixture
def remote(front):
    return lambda name: RemoteRunnable(f"{front.url}/{name}", headers=KEY)


@pytest.fixture
def post(front):
    """Posts an input; the pairs of event name and data that come back."""

    def send(path, body, status=200):
        answer = httpx.post(
            f"{front.url}/{path}", json=body, headers=KEY, timeout=30, trust_env=False
        )
        assert status == answer.status_code, answer.text
        if status != 200:
            return answer.json()
        frames = [frame.split("\n") for frame in answer.text.strip().split("\n\n")]
        return [
            (name.removeprefix("event: "), json.loads(rest[0].removeprefix("data: ")))
            if rest
            else (name.removeprefix("event: "), None)
            for name, *rest in frames
        ]

    return send


def collected(iterator):
    async def go():
        return [item async for item in iterator]

    return asyncio.run(go())


def test_events_tell_each_step_and_each_token_with_messages_as_messages(remote):
    events = collected(remote("prompt_chat").astream_events({"topic": "x"}, version="v2"))
    names = [event["event"] for event in events]
    assert ("on_chain_start", "on_chain_end") == (names[0], names[-1])
    chunks = [
        event["data"]["chunk"] for event in events if event["event"] == "on_chat_model_stream"
    ]
    assert all(isinstance(chunk, AIMessageChunk) for chunk in chunks)
    assert "echo: about x" == "".join(chunk.content for chunk in chunks)
    [end] = [event for event in events if event["event"] == "on_chat_model_end"]
    assert 23 == end["data"]["output"].usage_metadata["total_tokens"]


def test_filters_leave_only_what_was_asked_for(remote):
    prompt_chat = remote("prompt_chat")
    events = collected(
        prompt_chat.astream_events({"topic": "x"}, version="v2", include_types=["prompt"])
    )
    assert ["on_prompt_start", "on_prompt_end"] == [event["event"] for event in events]
    events = collected(
        prompt_chat.astream_events({"topic": "x"}, version="v2", exclude_types=["chat_model"])
    )
    assert not [event for event in events if "chat_model" in event["event"]]


def test_the_patches_of_a_log_make_up_the_state_of_the_run(remote):
    patches = collected(remote("prompt_chat").astream_log({"topic": "x"}))
    total = patches[0]
    for patch in patches[1:]:
        total = total + patch
    assert "echo: about x" == total.state["final_output"]
    assert {"ChatPromptTemplate", "EchoChat", "StrOutputParser"} == set(total.state["logs"])


def test_a_client_that_asks_for_the_first_version_of_events_gets_it(post):
    """JavaScript's says so in kwargs, and sends its other fields as it always does."""
    body = {"input": {"topic": "x"}, "kwargs": {"version": "v1"}, "diff": False}
    first = post("prompt_chat/stream_events", body)
    second = post("prompt_chat/stream_events", {**body, "kwargs": {"version": "v2"}})
    ends = [
        data["data"]["output"]
        for frames in (first, second)
        for name, data in frames
        if name == "data" and data["event"] == "on_chat_model_end"
    ]
    assert "generations" in ends[0], "the first version tells a model's whole result"
    assert "echo: about x" == ends[1]["content"], "the second its message"
    assert [("end", None)] * 2 == [first[-1], second[-1]]


def test_events_hold_no_metadata_of_ours_and_begin_with_no_metadata_event(post):
    frames = post("prompt_chat/stream_events", {"input": {"topic": "x"}})
    assert {"data", "end"} == {name for name, _ in frames}
    keys = {key for _, data in frames if data for key in data["metadata"]}
    assert not [key for key in keys if key.startswith("__")]


@pytest.mark.parametrize("endpoint", ["stream_events", "stream_log"])
def test_a_step_without_a_json_form_is_null_and_not_the_end(post, endpoint):
    frames = post(f"unencodable_step/{endpoint}", {"input": 1})
    assert "end" == frames[-1][0]
    assert "well" in json.dumps(frames)


@pytest.mark.parametrize("endpoint", ["stream_events", "stream_log"])
def test_a_chain_shows_its_steps_only_where_its_table_says_so(post, endpoint):
    problem = post(f"upper/{endpoint}", {"input": "a"}, status=403)
    assert "show_steps" in problem["detail"]


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"include_names": "chat"}, "include_names must be a list"),
        ({"exclude_tags": ["t"] * 65}, "at most 64"),
        ({"kwargs": {"version": "v9"}}, "'v1' or 'v2'"),
        ({"kwargs": {"other": 1}}, "kwargs"),
    ],
)
def test_filters_and_versions_that_make_no_sense_are_422(post, extra, words):
    body = {"input": {"topic": "x"}, **extra}
    assert words in str(post("prompt_chat/stream_events", body, status=422)["detail"])
