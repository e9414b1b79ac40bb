"""Messages and results survive the wire whole; nothing is revived that is not on the list."""

import json
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.prompt_values import ChatPromptValue, ChatPromptValueConcrete, StringPromptValue
from pydantic import BaseModel, RootModel

from penstock.chains.worker.codec import NotEncodable, decode, encode

text = st.text(max_size=20)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | text,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            text.filter(lambda key: key not in ("type", "messages", "role", "lc")),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
common = {"id": st.none() | text, "name": st.none() | text}
content = text | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": text}))
tool_calls = st.lists(
    st.builds(
        lambda name, args, call_id: {"name": name, "args": args, "id": call_id},
        text,
        st.dictionaries(text, st.integers(0, 9), max_size=2),
        text,
    ),
    max_size=2,
)
usage = st.none() | st.builds(
    lambda a, b: {"input_tokens": a, "output_tokens": b, "total_tokens": a + b},
    st.integers(0, 999),
    st.integers(0, 999),
)
messages = st.one_of(
    st.builds(HumanMessage, content=content, **common),
    st.builds(SystemMessage, content=content, **common),
    st.builds(ChatMessage, content=content, role=text, **common),
    st.builds(AIMessage, content=content, tool_calls=tool_calls, usage_metadata=usage, **common),
    st.builds(AIMessageChunk, content=content, usage_metadata=usage, **common),
    st.builds(
        ToolMessage,
        content=content,
        tool_call_id=text,
        artifact=plain,
        status=st.sampled_from(["success", "error"]),
        **common,
    ),
)


def round_trip(value):
    return decode(msgspec.json.decode(encode(value)))


@given(messages)
def test_a_message_survives_the_wire(message):
    came = round_trip(message)

    assert type(message) is type(came)
    assert message.model_dump() == came.model_dump()


@given(st.lists(messages, max_size=4))
def test_messages_survive_inside_of_other_objects(found):
    value = ChatPromptValueConcrete(messages=found)
    came = round_trip({"a": [value]})["a"][0]

    assert value == came
    assert [message.model_dump() for message in found] == [
        message.model_dump() for message in came.messages
    ]


@given(plain)
def test_plain_data_stays_as_it_is(value):
    assert value == round_trip(value)


@pytest.mark.parametrize(
    "value",
    [
        Document(page_content="p", metadata={"a": 1}, id="d"),
        StringPromptValue(text="t"),
        LLMResult(
            generations=[
                [
                    ChatGeneration(
                        message=AIMessage(
                            "x",
                            tool_calls=[{"name": "f", "args": {}, "id": "c"}],
                            usage_metadata={
                                "input_tokens": 1,
                                "output_tokens": 2,
                                "total_tokens": 3,
                            },
                        )
                    )
                ]
            ]
        ),
    ],
)
def test_the_other_known_types_survive_the_wire(value):
    assert value == round_trip(value)


def test_a_prompt_value_goes_by_the_name_that_clients_know():
    assert b'"type":"ChatPromptValueConcrete"' in encode(ChatPromptValue(messages=[]))


@pytest.mark.parametrize(
    "data",
    [
        {"lc": 1, "type": "human", "content": "x"},
        {"lc": 1, "type": "constructor", "id": ["langchain"], "kwargs": {"a": 1}},
        {"type": "human"},
        {"type": ["human"], "content": "x"},
        {"type": "Exploit", "content": "x"},
        {"messages": [{"role": "nobody", "content": "x"}]},
        {"role": "user", "content": "x"},
    ],
)
def test_what_is_not_a_known_object_stays_data(data):
    assert data == decode(data)


def test_a_dict_with_lc_is_not_looked_into():
    data = {"lc": 1, "kwargs": {"type": "human", "content": "x"}}

    assert {"a": data} == decode({"a": data})


def test_openai_style_messages_become_messages():
    conversation = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "content": "42", "tool_call_id": "c"},
    ]

    for came in (decode(conversation), decode({"messages": conversation})["messages"]):
        assert ["system", "human", "ai", "tool"] == [message.type for message in came]
        assert "f" == came[2].tool_calls[0]["name"]


def test_what_chains_return_besides_messages():
    class Answer(BaseModel):
        score: float
        said: AIMessage

    class Words(str):
        __slots__ = ()

    numpy = pytest.importorskip("numpy")
    value = {
        "model": Answer(score=1, said=AIMessage("x", id="i")),
        "root": RootModel[list[int]]([1]),
        "words": Words("w"),
        "array": numpy.array([[1.5, 2.0]]),
        "scalar": numpy.float32(0.5),
        "whole": numpy.int64(7),
        "flag": numpy.bool_(True),
        "nan": float("nan"),
        "tuple": (1, {2}),
        "decimal": Decimal("1.5"),
    }
    came = json.loads(encode(value))

    assert ("x", "i") == (came["model"]["said"]["content"], came["model"]["said"]["id"])
    del came["model"]
    assert {
        "root": [1],
        "words": "w",
        "array": [[1.5, 2.0]],
        "scalar": 0.5,
        "whole": 7,
        "flag": True,
        "nan": None,
        "tuple": [1, [2]],
        "decimal": "1.5",
    } == came


def test_what_has_no_json_form_is_named_by_its_type_only():
    class Secret:
        def __repr__(self):
            return "SECRET"

    loop = []
    loop.append(loop)
    for value in (Secret(), loop, "\ud800"):
        with pytest.raises(NotEncodable) as raised:
            encode(value)
        assert "SECRET" not in str(raised.value)
