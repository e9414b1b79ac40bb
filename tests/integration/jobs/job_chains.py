"""Chains for durable runs: some work, one kills its worker."""

import os
import threading
from pathlib import Path

from langchain_core.runnables import RunnableGenerator, RunnableLambda


async def _upper(text: str) -> str:
    return text.upper()


def _until(path: str) -> str:
    """Ends when a file is there; in a thread."""
    for _ in range(3000):
        if Path(path).exists():
            return "there"
        threading.Event().wait(0.01)
    raise TimeoutError(path)


async def _letters(texts):
    async for text in texts:
        for letter in text:
            yield letter


def _kill(_value: str) -> str:
    os._exit(9)


upper = RunnableLambda(_upper)
until = RunnableLambda(_until)
letters = RunnableGenerator(_letters)
kill = RunnableLambda(_kill)
