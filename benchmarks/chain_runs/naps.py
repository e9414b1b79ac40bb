"""The chains of ``chain_runs.py``: a thread that is held, and one LLM call."""

import time

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI


def nap(seconds: float) -> str:
    """Blocks its thread, as a chain does that computes or talks to a database."""
    time.sleep(seconds)
    return "awake"


ask = ChatPromptTemplate.from_template("{topic}") | ChatOpenAI(model="m") | StrOutputParser()
