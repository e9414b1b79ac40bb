"""The chains that the protocol tests call. Plain LangChain, as a user would write it.

Deliberately without ``from __future__ import annotations``: LangServe, the oracle of this
protocol, cannot serve functions whose annotations are postponed.
"""

import asyncio
import json
import os
import signal
import time
import typing
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

from langchain_core.documents import Document
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.runnables import (
    ConfigurableField,
    RunnableConfig,
    RunnableGenerator,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from pydantic import BaseModel
from typing_extensions import TypedDict


class EchoChat(BaseChatModel):
    """Answers ``echo: <last text>``; a text ``tool:<x>`` is answered by a tool call."""

    prefix: str = "echo"
    delay: float = 0.0

    @property
    def _llm_type(self) -> str:
        return "echo-chat"

    def _parts(self, messages):
        text = str(messages[-1].content) if messages else ""
        if text.startswith("tool:"):
            calls = [
                {"name": "lookup", "args": {"q": text[5:]}, "id": "call_1", "type": "tool_call"}
            ]
            return [""], calls
        first, *rest = f"{self.prefix}: {text}".split(" ")
        return [first, *(" " + word for word in rest)], []

    def _ending(self, messages, parts):
        tokens_in, tokens_out = 10 * len(messages), len(parts)
        return {
            "response_metadata": {"model_name": "echo-1", "finish_reason": "stop"},
            "usage_metadata": {
                "input_tokens": tokens_in,
                "output_tokens": tokens_out,
                "total_tokens": tokens_in + tokens_out,
            },
        }

    def _generate(self, messages, stop=None, run_manager=None, **kwargs) -> ChatResult:
        parts, calls = self._parts(messages)
        message = AIMessage(
            content="".join(parts),
            tool_calls=calls,
            id="msg-fixed-1",
            **self._ending(messages, parts),
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _chunks(self, messages):
        parts, calls = self._parts(messages)
        for index, part in enumerate(parts):
            extra: dict[str, Any] = {}
            if index == len(parts) - 1:
                extra = self._ending(messages, parts)
                extra["tool_call_chunks"] = [
                    {
                        "name": call["name"],
                        "args": json.dumps(call["args"]),
                        "id": call["id"],
                        "index": 0,
                        "type": "tool_call_chunk",
                    }
                    for call in calls
                ]
            yield ChatGenerationChunk(
                message=AIMessageChunk(content=part, id="msg-fixed-1", **extra)
            )

    def _stream(
        self, messages, stop=None, run_manager=None, **kwargs
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in self._chunks(messages):
            time.sleep(self.delay)
            yield chunk

    async def _astream(
        self, messages, stop=None, run_manager=None, **kwargs
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._chunks(messages):
            await asyncio.sleep(self.delay)
            if run_manager:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk


def _upper(text: str) -> str:
    return text.upper()


def _add_one(number: int) -> int:
    return number + 1


def _fail(text: str) -> str:
    if text.startswith("boom"):
        raise ValueError("SECRET-do-not-leak " + text)
    return text


async def _tokens(inputs: AsyncIterator[dict]) -> AsyncIterator[str]:
    async for asked in inputs:
        for index in range(int(asked["n"])):
            await asyncio.sleep(float(asked.get("delay", 0)))
            if asked.get("fail_at") == index:
                raise ValueError("SECRET-do-not-leak midstream")
            yield f"t{index} "


STATE = {"started": 0, "finished": 0, "cancelled": 0}


async def _slow(seconds: float) -> str:
    STATE["started"] += 1
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        STATE["cancelled"] += 1
        raise
    STATE["finished"] += 1
    return "done"


async def _slow_stream(inputs: AsyncIterator[float]) -> AsyncIterator[str]:
    async for seconds in inputs:
        STATE["started"] += 1
        try:
            yield "first"
            await asyncio.sleep(seconds)
            yield "second"
        except (asyncio.CancelledError, GeneratorExit):
            STATE["cancelled"] += 1
            raise
        STATE["finished"] += 1


def _slow_status(reset: bool) -> dict:
    state = dict(STATE)
    if reset:
        STATE.update(started=0, finished=0, cancelled=0)
    return state


def _config_echo(_value: Any, config: RunnableConfig) -> dict:
    return {
        "tags": sorted(config.get("tags") or []),
        "metadata": {
            key: value
            for key, value in (config.get("metadata") or {}).items()
            if not key.startswith("__")
        },
        "configurable": {
            key: value
            for key, value in (config.get("configurable") or {}).items()
            if not key.startswith("__")
        },
    }


class Conversation(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


def _graph():
    """Two models after one another, as agents have it; the first one's text is not the last."""
    graph = StateGraph(Conversation)

    async def think(state):
        return {"messages": [await EchoChat(prefix="thought").ainvoke(state["messages"])]}

    async def say(state):
        return {"messages": [AIMessage(f"said {state['messages'][0].text}", id="said-1")]}

    graph.add_node("think", think)
    graph.add_node("say", say)
    graph.add_edge(START, "think")
    graph.add_edge("think", "say")
    graph.add_edge("say", END)
    return graph


class Untold(typing.TypedDict):
    """Which pydantic makes no schema of before Python 3.12."""

    text: str


class Person(BaseModel):
    name: str
    age: int
    town: str = "Ulm"


def _greet(person: dict) -> str:
    return f"{person['name']} of {person['town']} is {person['age']}"


def _docs(query: str) -> list[Document]:
    return [Document(page_content=f"{query}-{i}", metadata={"i": i}) for i in range(2)]


def _ident_messages(messages: list[AnyMessage]) -> list[AnyMessage]:
    return messages


def _kill(_value: Any) -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return "unreachable"


def _block(seconds: float) -> str:
    time.sleep(seconds)
    return "blocked"


async def _block_loop(seconds: float) -> str:
    time.sleep(seconds)  # noqa: ASYNC251 - that is the fault
    return "blocked"


HELD = []


def _hog(megabytes: int) -> int:
    HELD.append(b"x" * (megabytes * 1024 * 1024))
    return os.getpid()


def _pid(_value: Any) -> int:
    return os.getpid()


def _unencodable(_value: Any) -> Any:
    return object()


_prompt = ChatPromptTemplate.from_messages([("system", "be brief"), ("human", "about {topic}")])

upper = RunnableLambda(_upper)
add_one = RunnableLambda(_add_one)
fail = RunnableLambda(_fail)
tokens = RunnableGenerator(_tokens).with_types(input_type=dict, output_type=str)
chat = EchoChat()
prompt_chat = _prompt | EchoChat(delay=0.005) | StrOutputParser()
prompt_only = _prompt
parallel = RunnableParallel(up=RunnableLambda(_upper), n=RunnableLambda(len)).with_types(
    input_type=str, output_type=dict
)
ident = RunnablePassthrough()
ident_messages = RunnableLambda(_ident_messages)
docs = RunnableLambda(_docs)
person = RunnableLambda(_greet).with_types(input_type=Person, output_type=str)
configurable = (
    PromptTemplate.from_template("joke about {topic}").configurable_fields(
        template=ConfigurableField(id="template", name="Template")
    )
    | EchoChat(prefix="echo").configurable_alternatives(
        ConfigurableField(id="llm", name="LLM"),
        default_key="default",
        loud=EchoChat(prefix="LOUD"),
    )
    | StrOutputParser()
)
config_echo = RunnableLambda(_config_echo)
with_events = _prompt | EchoChat() | StrOutputParser()
slow = RunnableLambda(_slow)
slow_stream = RunnableGenerator(_slow_stream).with_types(input_type=float, output_type=str)
slow_status = RunnableLambda(_slow_status)
kill = RunnableLambda(_kill)
block = RunnableLambda(_block)
block_loop = RunnableLambda(_block_loop)
hog = RunnableLambda(_hog)
pid = RunnableLambda(_pid)
unencodable = RunnableLambda(_unencodable)
unencodable_step = RunnableLambda(_unencodable) | RunnableLambda(lambda _: "well")
graph = _graph().compile()
graph_with_memory = _graph().compile(checkpointer=InMemorySaver())
state = RunnableLambda(lambda state: state).with_types(
    input_type=Conversation, output_type=Conversation
)
untold = StateGraph(Untold).add_node("shout", lambda told: {"text": told["text"].upper()})
untold = untold.add_edge(START, "shout").compile()
