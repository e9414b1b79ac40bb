"""A LangGraph agent with one tool: the model may ask for a word count before it answers."""

from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI


@tool
def count_words(text: str) -> int:
    """Count the words of a text."""
    return len(text.split())


chain = create_agent(
    ChatOpenAI(model="sandbox"),
    tools=[count_words],
    system_prompt="Answer briefly. Use count_words when you are asked about lengths.",
)
