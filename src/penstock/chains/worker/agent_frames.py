"""One run of the Agent Server protocol as its clients see it: events of the modes they ask for.

A graph tells most modes itself. Two are made here: ``messages``, the older form, in which each
event holds the message as far as it has come, and ``events``, which is LangChain's stream of
steps with the graph's own stream inside it. A chain that is no graph is shown as one node, under
its own name. The last frame, ``result``, is for the front and not for the caller.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Any, Final

import msgspec
from langchain_core.messages import BaseMessageChunk, message_chunk_to_message
from langchain_core.runnables import RunnableConfig

from penstock.chains.worker.codec import NotEncodable, encode
from penstock.chains.worker.faults import InvalidInput
from penstock.chains.worker.runs import closed_at_once
from penstock.chains.worker.steps import OWN_METADATA_PREFIX
from penstock.errors import Forbidden
from penstock.http.sse import event

RESULT: Final = "result"
GRAPH_MODES: Final = frozenset(
    {"values", "updates", "messages", "messages-tuple", "custom", "events", "debug", "tasks"}
    | {"checkpoints"}
)
RUNNABLE_MODES: Final = frozenset({"values", "updates", "events"})
STEP_MODES: Final = frozenset({"events", "debug", "tasks", "checkpoints"})
"""They show prompts and inner states, so the chain's table must say ``show_steps``."""

_NATIVE: Final = {"messages-tuple": "messages"}
_DEPTH_MAX: Final = 32


def check_modes(modes: frozenset[str], *, is_graph: bool, show_steps: bool) -> None:
    """Raises InvalidInput for modes that the chain does not have, Forbidden for hidden ones."""
    known = GRAPH_MODES if is_graph else RUNNABLE_MODES
    if modes - known:
        named = ", ".join(repr(mode[:32]) for mode in sorted(modes - known)[:8])
        raise InvalidInput(f"stream_mode: this chain has no {named}; it has {sorted(known)}")
    if modes & STEP_MODES and not show_steps:
        raise Forbidden(
            "this chain does not show its steps: its table has no `show_steps = true`",
            code="steps_not_shown",
        )


class Telling:
    """Turns what a run yields into frames. ``hide`` is applied to every event's data."""

    def __init__(self, modes: frozenset[str], *, subgraphs: bool) -> None:
        self.modes = modes
        self.native = sorted({_NATIVE.get(mode, mode) for mode in modes - {"events"}} | {"values"})
        self.subgraphs = subgraphs
        self.last: Any = {}
        self._messages: dict[str, Any] = {}

    async def of_graph(
        self, graph: Any, value: Any, config: RunnableConfig, options: Mapping[str, Any]
    ) -> AsyncGenerator[bytes, None]:
        """The frames of a graph's run; ``last`` is then what it came to."""
        options = {**options, "stream_mode": self.native, "subgraphs": True}
        if "events" in self.modes:
            told = graph.astream_events(value, config, version="v2", **options)
        else:
            told = graph.astream(value, config, **options)
        async with closed_at_once(told):
            async for parts in _parts(told, config) if "events" in self.modes else told:
                if isinstance(parts, dict):
                    yield event("events", lenient(parts))
                    continue
                namespace, mode, data = parts
                for frame in self._frames(namespace, mode, data):
                    yield frame

    async def of_runnable(
        self, runnable: Any, value: Any, config: RunnableConfig, name: str
    ) -> AsyncGenerator[bytes, None]:
        """The frames of a chain that is no graph: its output, as that of one node."""
        if "events" in self.modes:
            told = runnable.astream_events(value, config, version="v2")
            async with closed_at_once(told):
                async for one in told:
                    yield event("events", lenient(_shown(one)))
                    if one["event"] == "on_chain_end" and not one.get("parent_ids"):
                        self.last = one["data"].get("output")
        else:
            self.last = await runnable.ainvoke(value, config)
        self.last = _as_object(self.last)
        if "updates" in self.modes:
            yield event("updates", encode({name: self.last}))
        if "values" in self.modes:
            yield event("values", encode(self.last))

    def _frames(self, namespace: tuple[str, ...], mode: str, data: Any) -> Iterator[bytes]:
        if mode == "values" and not namespace:
            self.last = data
        if namespace and not self.subgraphs and mode != "messages":
            return
        suffix = "".join(f"|{part}" for part in namespace) if self.subgraphs else ""
        if mode == "messages":
            yield from self._message_frames(suffix, data)
        elif mode in self.modes:
            body = encode(data) if mode == "values" else lenient(data)
            yield event(mode + suffix, body)

    def _message_frames(self, suffix: str, data: Any) -> Iterator[bytes]:
        message, metadata = data
        metadata = _without_own(metadata)
        if "messages-tuple" in self.modes:
            yield event("messages" + suffix, lenient([message, metadata]))
        if "messages" not in self.modes or message.id is None:
            return
        if message.id not in self._messages:
            self._messages[message.id] = message
            about = {message.id: {"metadata": metadata}}
            yield event("messages/metadata" + suffix, lenient(about))
        elif isinstance(message, BaseMessageChunk):
            self._messages[message.id] += message
        else:
            self._messages[message.id] = message
        is_part = isinstance(message, BaseMessageChunk)
        whole = self._messages[message.id]
        if isinstance(whole, BaseMessageChunk):
            whole = message_chunk_to_message(whole)
        name = "messages/partial" if is_part else "messages/complete"
        yield event(name + suffix, lenient([whole]))


def _as_object(output: Any) -> Any:
    """An output as the clients can take it, who look for an error among the fields of any."""
    encoded = encode(output)
    return msgspec.Raw(encoded) if encoded.startswith(b"{") else {"output": msgspec.Raw(encoded)}


def lenient(value: Any) -> bytes:
    """JSON in which what has no JSON form is null: steps hand each other what they like."""
    try:
        return encode(value)
    except NotEncodable:
        return encode(_encodable(value, 0))


def _encodable(value: Any, depth: int) -> Any:
    try:
        return msgspec.Raw(encode(value))
    except NotEncodable:
        pass
    if depth == _DEPTH_MAX:
        return None
    if isinstance(value, dict):
        return {str(key): _encodable(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(item, depth + 1) for item in value]
    return None


async def _parts(told: Any, config: RunnableConfig) -> AsyncGenerator[Any, None]:
    """LangChain's events, and between them what the graph itself streamed."""
    run_id = str(config.get("run_id"))
    async for one in told:
        yield _shown(one)
        if one["event"] == "on_chain_stream" and one["run_id"] == run_id:
            yield one["data"]["chunk"]


def _shown(one: Any) -> dict[str, Any]:
    return {**one, "metadata": _without_own(one.get("metadata", {}))}


def _without_own(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value for key, value in metadata.items() if not key.startswith(OWN_METADATA_PREFIX)
    }
