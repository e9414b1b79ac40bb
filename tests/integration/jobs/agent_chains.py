"""Chains for the Agent Server protocol: graphs with and without an end, and one that is none."""

import os
from pathlib import Path
from typing import Annotated

from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import interrupt
from typing_extensions import TypedDict


class Talk(TypedDict):
    messages: Annotated[list, add_messages]


async def _answer(state: Talk) -> dict:
    get_stream_writer()({"progress": 1})
    said = sum(message.type == "human" for message in state["messages"])
    model = GenericFakeChatModel(messages=iter([AIMessage(f"answer number {said}")]))
    return {"messages": [await model.ainvoke(state["messages"])]}


talk = StateGraph(Talk).add_node("answer", _answer).add_edge(START, "answer").compile()


class Paper(TypedDict, total=False):
    text: str
    approved: str
    visits: Annotated[list, lambda before, new: before + new]


def _draft(state: Paper) -> dict:
    return {"text": state["text"].upper(), "visits": ["draft"]}


def _approve(state: Paper) -> dict:
    return {"approved": interrupt({"approve": state["text"]}), "visits": ["approve"]}


review = (
    StateGraph(Paper)
    .add_node("draft", _draft)
    .add_node("approve", _approve)
    .add_edge(START, "draft")
    .add_edge("draft", "approve")
    .compile()
)


def _die_once(state: Paper) -> dict:
    """Kills its worker the first time: the file says that it was there."""
    if not Path(state["text"]).exists():
        Path(state["text"]).touch()
        os._exit(9)
    return {"visits": ["second"]}


mortal = (
    StateGraph(Paper)
    .add_node("first", lambda _: {"visits": ["first"]})
    .add_node("second", _die_once)
    .add_edge(START, "first")
    .add_edge("first", "second")
    .compile()
)


def _fail(_text: str) -> str:
    raise ValueError("a secret of the chain")


fail = RunnableLambda(_fail)
