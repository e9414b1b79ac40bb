"""Which schemas make a chain one that can be called as a model, and what it then gets."""

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langgraph.graph import START, MessagesState, StateGraph

from penstock.chains.worker.chat_form import ChatForm, chat_form
from penstock.chains.worker.faults import InvalidInput


def _upper(text: str) -> str:
    return text.upper()


def _count(text: str) -> int:
    return len(text)


def _any(value):
    return value


MODEL = FakeListChatModel(responses=["a"])
GRAPH = StateGraph(MessagesState).add_node("n", lambda state: state).add_edge(START, "n").compile()
ONE = ChatPromptTemplate.from_template("on {topic}") | MODEL | StrOutputParser()
TWO = ChatPromptTemplate.from_template("on {topic} for {reader}") | MODEL
CONVERSATION = [SystemMessage("s"), HumanMessage("first"), AIMessage("a"), HumanMessage("last")]


@pytest.mark.parametrize(
    ("runnable", "form"),
    [
        (MODEL, ChatForm(takes_text=False)),
        (GRAPH, ChatForm(takes_text=False, field="messages")),
        (RunnableLambda(_upper), ChatForm(takes_text=True)),
        (ONE, ChatForm(takes_text=True, field="topic")),
        (TWO, None),
        (RunnableLambda(_count), None),
        (RunnableLambda(_any), None),
    ],
    ids=["model", "graph", "text", "one variable", "two variables", "gives a number", "untyped"],
)
def test_the_form_follows_from_the_schemas(runnable, form):
    assert form == chat_form(runnable.get_input_jsonschema(), runnable.get_output_jsonschema())


def test_a_chain_of_texts_gets_the_last_user_message_and_the_others_the_whole_conversation():
    assert "last" == ChatForm(takes_text=True).input(CONVERSATION)
    assert {"topic": "last"} == ChatForm(takes_text=True, field="topic").input(CONVERSATION)
    assert CONVERSATION == ChatForm(takes_text=False).input(CONVERSATION)
    assert {"messages": CONVERSATION} == ChatForm(False, "messages").input(CONVERSATION)


def test_a_conversation_without_a_user_message_is_refused_where_one_is_needed():
    with pytest.raises(InvalidInput, match="role 'user'"):
        ChatForm(takes_text=True).input([SystemMessage("s")])


def test_a_schema_that_holds_itself_is_no_endless_search():
    circle = {"$defs": {"A": {"anyOf": [{"$ref": "#/$defs/A"}]}}, "$ref": "#/$defs/A"}
    assert chat_form(circle, {"type": "string"}) is None
