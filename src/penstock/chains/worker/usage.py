"""What the LLM calls of one run used, summed as they end.

LangChain's own handler for this leaves out models that give no name. This one is called in line:
a handler that is not is given a thread for every event, and the threads are for chains.
"""

# ruff: noqa: ARG002 - LangChain's signature
from __future__ import annotations

import threading
from typing import Any

import msgspec
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult


class Totals(msgspec.Struct, frozen=True):
    """Tokens, in LangChain's words."""

    input_tokens: int
    output_tokens: int
    total_tokens: int


class RunUsage(BaseCallbackHandler):
    """Counts; ``totals`` is None as long as no call has told its usage."""

    run_inline = True

    def __init__(self) -> None:
        self.totals: Totals | None = None
        self._lock = threading.Lock()

    @property
    def fields(self) -> dict[str, Totals]:
        """``usage`` for an answer's metadata; nothing where no call told it."""
        return {} if self.totals is None else {"usage": self.totals}

    def on_llm_end(self, response: LLMResult, **about: Any) -> None:
        """A call has ended; the first generation of each prompt holds what it used."""
        for generations in response.generations:
            first = generations[0] if generations else None
            message = first.message if isinstance(first, ChatGeneration) else None
            used = message.usage_metadata if isinstance(message, AIMessage) else None
            if used is None:
                continue
            with self._lock:
                before = self.totals or Totals(0, 0, 0)
                self.totals = Totals(
                    before.input_tokens + used["input_tokens"],
                    before.output_tokens + used["output_tokens"],
                    before.total_tokens + used["total_tokens"],
                )
