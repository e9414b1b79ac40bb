"""What happened inside a run, for callers whose own callback handlers want to know.

Only for chains whose table says ``include_callback_events``: the events show prompts and every
step's input and output. Two deviations from what LangServe's server sends make its client
accept them where a chain holds a chat model: the response of ``on_llm_end`` has no ``type``, and
a chat model's start is told as ``on_llm_start`` with prompts, because the client replays it into
handlers that have no ``on_chat_model_start``.
"""

# ruff: noqa: ARG002 - LangChain's signatures; what is not told is not used
from __future__ import annotations

from typing import Any

import msgspec
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.messages import get_buffer_string

from penstock.chains.worker.codec import NotEncodable, encode

EVENTS_MAX = 10_000
"""A graph that loops long is not to fill the memory; what is beyond is not told."""

FAILURE = {"status_code": 500, "message": "Internal Server Error", "type": "error"}
"""An exception's text is never told, here neither."""


class EventRecorder(AsyncCallbackHandler):
    """Collects the events of one run, each encoded at once: chains change their objects later."""

    run_inline = True  # in order, also when a synchronous part of the chain reports

    def __init__(self) -> None:
        self.events: list[msgspec.Raw] = []

    def _record(self, kind: str, about: dict[str, Any], payload: dict[str, Any]) -> None:
        if len(self.events) >= EVENTS_MAX:
            return
        event = {
            "type": kind,
            "run_id": about["run_id"],
            "parent_run_id": about.get("parent_run_id"),
            "tags": about.get("tags"),
            "metadata": about.get("metadata"),
            "kwargs": {"name": about["name"]} if about.get("name") else {},
        }
        try:
            self.events.append(msgspec.Raw(encode({**event, **payload})))
        except NotEncodable:
            empty = dict.fromkeys(payload)
            self.events.append(msgspec.Raw(encode({**event, "metadata": None, **empty})))

    async def on_chain_start(
        self, serialized: dict[str, Any], inputs: dict[str, Any], **about: Any
    ) -> None:
        """A runnable begins."""
        self._record("on_chain_start", about, {"serialized": None, "inputs": inputs})

    async def on_chain_end(self, outputs: dict[str, Any], **about: Any) -> None:
        """A runnable has ended."""
        self._record("on_chain_end", about, {"outputs": outputs})

    async def on_chain_error(self, error: BaseException, **about: Any) -> None:
        """A runnable has failed."""
        self._record("on_chain_error", about, {"error": FAILURE})

    async def on_chat_model_start(
        self, serialized: dict[str, Any], messages: list[list[Any]], **about: Any
    ) -> None:
        """A chat model is called."""
        prompts = [get_buffer_string(conversation) for conversation in messages]
        self._record("on_llm_start", about, {"serialized": None, "prompts": prompts})

    async def on_llm_start(
        self, serialized: dict[str, Any], prompts: list[str], **about: Any
    ) -> None:
        """A completion model is called."""
        self._record("on_llm_start", about, {"serialized": None, "prompts": prompts})

    async def on_llm_end(self, response: Any, **about: Any) -> None:
        """A model has answered."""
        told = {"generations": response.generations, "llm_output": response.llm_output}
        self._record("on_llm_end", about, {"response": told})

    async def on_llm_error(self, error: BaseException, **about: Any) -> None:
        """A model's call has failed. The protocol has no such event: its runnable's error tells."""

    async def on_tool_start(self, serialized: dict[str, Any], input_str: str, **about: Any) -> None:
        """A tool is called."""
        self._record("on_tool_start", about, {"serialized": None, "input_str": input_str})

    async def on_tool_end(self, output: Any, **about: Any) -> None:
        """A tool has answered."""
        self._record("on_tool_end", about, {"output": str(output)})

    async def on_tool_error(self, error: BaseException, **about: Any) -> None:
        """A tool has failed."""
        self._record("on_tool_error", about, {"error": FAILURE})

    async def on_retriever_start(
        self, serialized: dict[str, Any], query: str, **about: Any
    ) -> None:
        """A retriever is asked."""
        self._record("on_retriever_start", about, {"serialized": None, "query": query})

    async def on_retriever_end(self, documents: Any, **about: Any) -> None:
        """A retriever has answered."""
        self._record("on_retriever_end", about, {"documents": documents})

    async def on_retriever_error(self, error: BaseException, **about: Any) -> None:
        """A retriever has failed."""
        self._record("on_retriever_error", about, {"error": FAILURE})
