"""Chains that call LLMs in every way that a user's chain may, all without naming a gateway."""

import threading
from concurrent.futures import ThreadPoolExecutor

import anthropic
import httpx
import openai
from langchain_anthropic import ChatAnthropic
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnableParallel
from langchain_core.runnables.config import ContextThreadPoolExecutor
from langchain_openai import ChatOpenAI

_prompt = ChatPromptTemplate.from_messages([("human", "{topic}")])
_model = ChatOpenAI(model="m")

chat_openai = _prompt | _model | StrOutputParser()
chat_anthropic = _prompt | ChatAnthropic(model="m") | StrOutputParser()
no_retries = _prompt | ChatOpenAI(model="m", max_retries=0) | StrOutputParser()


async def _raw_async(topic: str) -> str:
    messages = [{"role": "user", "content": topic}]
    async with openai.AsyncOpenAI() as client:
        first = await client.chat.completions.create(model="m", messages=messages)
    async with anthropic.AsyncAnthropic() as client:
        second = await client.messages.create(model="m", messages=messages, max_tokens=5)
    return first.choices[0].message.content + second.content[0].text


def _raw_sync(topic: str) -> str:
    messages = [{"role": "user", "content": topic}]
    with openai.OpenAI() as client:
        first = client.chat.completions.create(model="m", messages=messages)
    with anthropic.Anthropic() as client:
        second = client.messages.create(model="m", messages=messages, max_tokens=5)
    return first.choices[0].message.content + second.content[0].text


def _in_threads(topic: str) -> list[str]:
    with ContextThreadPoolExecutor(3) as pool:
        return list(pool.map(lambda _: _model.invoke(topic).text, range(3)))


def _bare_threads(topic: str) -> list[str]:
    """Threads of its own, which begin without any context."""
    texts: list[str] = []
    thread = threading.Thread(target=lambda: texts.append(_model.invoke(topic).text))
    thread.start()
    thread.join()
    with ThreadPoolExecutor(1) as pool:
        texts.append(pool.submit(lambda: _model.invoke(topic).text).result())
    return texts


async def _three_steps(topic: str) -> str:
    for _ in range(3):
        await _model.ainvoke(topic)
    return topic


def _elsewhere(url: str) -> str:
    return httpx.post(url, json={}, headers={"penstock-run": "forged"}).text


raw_async = RunnableLambda(_raw_async)
raw_sync = RunnableLambda(_raw_sync)
in_threads = RunnableLambda(_in_threads)
bare_threads = RunnableLambda(_bare_threads)
three_steps = RunnableLambda(_three_steps)
side_by_side = RunnableParallel(
    a=RunnableLambda(lambda topic: _model.invoke(topic).text),
    b=RunnableLambda(lambda topic: _model.invoke(topic).text),
).with_types(input_type=str)
elsewhere = RunnableLambda(_elsewhere)
