"""A chain behind ``model: "chain:NAME"``: OpenAI's chat completions, answered by a run.

The front's gateway has read the request and the key; what comes here is its body. Fields that
steer a model (``temperature``, ``max_tokens``) mean nothing to a chain and are left unread;
fields whose neglect would be noticed only in the answer (``tools``, ``n``, ``response_format``)
are refused. The usage is the sum over the run's LLM calls, and absent where no model told it.

A LangGraph graph streams its models' tokens as they come, those of every step; other chains
stream what they put out.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping
from functools import partial
from typing import Any

import msgspec
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    convert_to_messages,
    convert_to_openai_messages,
)

from penstock.chains.spec import CHAT_ENDPOINT
from penstock.chains.worker.answer import Answer
from penstock.chains.worker.app import Endpoint, Request
from penstock.chains.worker.chain import Chain
from penstock.chains.worker.faults import InvalidInput
from penstock.chains.worker.request_body import parse
from penstock.chains.worker.runs import Order, Runs, closed_at_once, identity_of_item
from penstock.errors import ChainFailed, NotFound
from penstock.http.error_body import ErrorShape
from penstock.http.sse import event

DONE = event(None, b"[DONE]")
REFUSED_FIELDS = ("tools", "functions", "response_format")
FINISH_REASONS = frozenset({"stop", "length", "content_filter"})


class ChatCompletions:
    """Answers chat completions with runs."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    def endpoints(self) -> Mapping[str, Endpoint]:
        """The one endpoint. Its name has a dot, so no caller's route leads to it."""
        return {CHAT_ENDPOINT: Endpoint("POST", self._complete)}

    async def _complete(self, chain: Chain, request: Request, answer: Answer) -> None:
        answer.shape = ErrorShape.OPENAI
        if chain.chat is None:
            raise NotFound("this chain cannot be called as a model", code="model_not_found")
        body = parse(request.body)
        _check_fields(body)
        settings = chain.rules.settings(tenant=request.identity.tenant)
        order = Order(
            chain=chain,
            input=chain.input(chain.chat.input(_messages(body.get("messages"))), settings),
            settings=settings,
            identity=identity_of_item(request.identity, settings, 0),
            request_id=request.request_id,
        )
        if body.get("stream") is not True:
            await answer.json(await self._runs.run(order, _whole))
            return
        options = body.get("stream_options")
        counted = isinstance(options, dict) and options.get("include_usage") is True
        frames = self._runs.stream(order, partial(_frames, counted=counted))
        await answer.stream(frames, DONE)


def _check_fields(body: Mapping[str, Any]) -> None:
    for name in REFUSED_FIELDS:
        if body.get(name):
            raise InvalidInput(f"{name} cannot be given to a chain: it brings its own")
    if body.get("n") not in (None, 1):
        raise InvalidInput("n must be 1 for a chain: ask several times for several answers")


def _messages(value: Any) -> list[BaseMessage]:
    if not isinstance(value, list) or not value:
        raise InvalidInput("messages must be a list of at least one message")
    try:
        return convert_to_messages(value)
    except (ValueError, TypeError, KeyError, NotImplementedError) as error:
        raise InvalidInput("messages: each needs a known 'role', and 'content'") from error


async def _whole(order: Order) -> bytes:
    """The document of a run's whole answer."""
    output = await order.chain.runnable.ainvoke(order.input, order.config())
    last = _last_message(output)
    told: Any = convert_to_openai_messages(last)
    message: dict[str, Any] = {"role": "assistant", "content": str(last.text) or None}
    if told.get("tool_calls"):
        message["tool_calls"] = told["tool_calls"]
    choice = {"index": 0, "message": message, "finish_reason": _finish_reason(last)}
    document = {**_head(order, "chat.completion"), "choices": [choice]}
    return msgspec.json.encode(document | _usage_field(order))


async def _frames(order: Order, *, counted: bool) -> AsyncGenerator[bytes, None]:
    """The events of a run's answer as it comes; ``counted`` adds one with the usage."""
    head = _head(order, "chat.completion.chunk")

    def frame(delta: Mapping[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return event(None, msgspec.json.encode({**head, "choices": [choice]}))

    # The status is held back until the first frame, so there is none before the chain has begun.
    opening: dict[str, Any] = {"role": "assistant", "content": ""}
    last: BaseMessage = AIMessage("")
    called = False
    async for message in _parts(order):
        delta = _delta(message)
        called = called or "tool_calls" in delta
        if opening or delta:
            yield frame(opening | delta)
            opening = {}
        last = message
    if opening:
        yield frame(opening)
    yield frame({}, "tool_calls" if called else _finish_reason(last))
    if counted and (field := _usage_field(order)):
        yield event(None, msgspec.json.encode({**head, "choices": [], **field}))


async def _parts(order: Order) -> AsyncGenerator[BaseMessage, None]:
    """The answer's pieces, in the form of messages."""
    runnable: Any = order.chain.runnable
    config = order.config()
    if order.chain.is_graph:
        told = runnable.astream(order.input, config, stream_mode="messages")
        seen: set[str | None] = set()
        async with closed_at_once(told):
            async for message, _about in told:
                # A node that returns a message which a model has streamed tells it once more.
                whole = isinstance(message, AIMessage) and not isinstance(message, AIMessageChunk)
                if isinstance(message, AIMessageChunk) or (whole and message.id not in seen):
                    seen.add(message.id)
                    # The tools that a graph calls are its own: the caller is not to run them.
                    yield AIMessage(str(message.text))
        return
    if order.chain.gives_state:
        yield _last_message(await runnable.ainvoke(order.input, config))
        return
    told = runnable.astream(order.input, config)
    async with closed_at_once(told):
        async for chunk in told:
            yield _last_message(chunk)


def _last_message(output: Any) -> BaseMessage:
    """What a chain puts out, as the message that it says. Raises ChainFailed."""
    if isinstance(output, dict):
        output = output.get("messages")
    if isinstance(output, list) and output:
        output = output[-1]
    if isinstance(output, str):
        return AIMessage(output)
    if isinstance(output, BaseMessage):
        return output
    raise ChainFailed("the chain answered with neither a text nor a message, against its schema")


def _delta(message: BaseMessage) -> dict[str, Any]:
    delta: dict[str, Any] = {}
    text = str(message.text)
    if text:
        delta["content"] = text
    if isinstance(message, AIMessageChunk) and message.tool_call_chunks:
        delta["tool_calls"] = [
            {
                "index": chunk.get("index") or 0,
                **({"id": chunk["id"], "type": "function"} if chunk.get("id") else {}),
                "function": {
                    **({"name": chunk["name"]} if chunk.get("name") else {}),
                    "arguments": chunk.get("args") or "",
                },
            }
            for chunk in message.tool_call_chunks
        ]
    return delta


def _finish_reason(message: BaseMessage) -> str:
    if isinstance(message, AIMessage) and message.tool_calls:
        return "tool_calls"
    told = message.response_metadata.get("finish_reason")
    return told if told in FINISH_REASONS else "stop"


def _usage_field(order: Order) -> dict[str, Any]:
    """The sum over the run's LLM calls; nothing where none of them told its usage."""
    used = order.usage.totals
    if used is None:
        return {}
    fields = {
        "prompt_tokens": used.input_tokens,
        "completion_tokens": used.output_tokens,
        "total_tokens": used.total_tokens,
    }
    return {"usage": fields}


def _head(order: Order, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{order.identity.run_id}",
        "object": kind,
        "created": int(time.time()),
        "model": f"chain:{order.chain.name}",
    }
