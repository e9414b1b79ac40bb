"""Four Python clients in every situation of a call; the JavaScript ones do the same in ``npm``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import anthropic
import openai
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI

CONFIG = """
[workers]
count = 0
[providers.openai]
kind = "openai"
base_url = "{url}/v1"
key_env = "SANDBOX_KEY"
[providers.anthropic]
kind = "anthropic"
base_url = "{url}"
key_env = "SANDBOX_KEY"
[providers.openai-paced]
kind = "openai"
base_url = "{paced}/v1"
key_env = "SANDBOX_KEY"
[providers.anthropic-paced]
kind = "anthropic"
base_url = "{paced}"
key_env = "SANDBOX_KEY"
[keys.person]
tenant = "web"
key_env = "PERSON_KEY"
"""
DEPLOYMENTS = """
[deployments.{kind}-free]
provider = "{kind}"
model = "sandbox"
serves = ["free"]
concurrency = 50
[deployments.{kind}-tight]
provider = "{kind}"
model = "tight"
rpm = 30
burst_seconds = 2
[deployments.{kind}-paced]
provider = "{kind}-paced"
model = "sandbox"
serves = ["paced"]
concurrency = 50
"""
KEYS = {"SANDBOX_KEY": "upstream-key", "PERSON_KEY": "person-key-with-enough-letters"}
PROMPT = "Name three rivers in 30 words."
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"name": "weather", "description": "The weather of a city."}
FUNCTION = {"type": "function", "function": {**TOOL, "parameters": PARAMETERS}}
IMPATIENT = {"prefer": "wait=1"}
OPENED: list[openai.AsyncOpenAI | anthropic.AsyncAnthropic] = []
FAILURES = {"401": 502, "400-context": 400, "html": 502, "empty": 502}


class OpenAIClient:
    """The ``openai`` package."""

    def __init__(self, url: str) -> None:
        self.sdk = openai.AsyncOpenAI(
            api_key=KEYS["PERSON_KEY"], base_url=f"{url}/v1", max_retries=0
        )
        OPENED.append(self.sdk)
        self.messages: Any = [{"role": "user", "content": PROMPT}]

    async def plain(self, model: str, headers: dict[str, str] | None = None) -> str:
        answer = await self.sdk.chat.completions.create(
            model=model, messages=self.messages, extra_headers=headers
        )
        return answer.choices[0].message.content or ""

    async def pieces(self, model: str) -> AsyncIterator[str]:
        stream = await self.sdk.chat.completions.create(
            model=model, messages=self.messages, stream=True
        )
        async with stream:
            async for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    yield chunk.choices[0].delta.content

    async def tool(self) -> str:
        answer: Any = await self.sdk.chat.completions.create(
            model="free", messages=self.messages, tools=[FUNCTION]
        )
        return str(answer.choices[0].message.tool_calls[0].function.name)


class AnthropicClient:
    """The ``anthropic`` package."""

    def __init__(self, url: str) -> None:
        self.sdk = anthropic.AsyncAnthropic(api_key=KEYS["PERSON_KEY"], base_url=url, max_retries=0)
        OPENED.append(self.sdk)
        self.asked: Any = {
            "messages": [{"role": "user", "content": PROMPT}],
            "max_tokens": 200,
        }

    async def plain(self, model: str, headers: dict[str, str] | None = None) -> str:
        answer: Any = await self.sdk.messages.create(
            model=model, **self.asked, extra_headers=headers
        )
        return str(answer.content[0].text)

    async def pieces(self, model: str) -> AsyncIterator[str]:
        async with self.sdk.messages.stream(model=model, **self.asked) as stream:
            async for text in stream.text_stream:
                yield text

    async def tool(self) -> str:
        tools = [{**TOOL, "input_schema": PARAMETERS}]
        answer: Any = await self.sdk.messages.create(model="free", **self.asked, tools=tools)
        return next(one.name for one in answer.content if one.type == "tool_use")


class LangChainClient:
    """A chat model of LangChain; ``make(model, headers)`` builds it."""

    def __init__(self, make: Callable[[str, dict[str, str]], Any]) -> None:
        self.make = make

    async def plain(self, model: str, headers: dict[str, str] | None = None) -> str:
        answer = await self.make(model, headers or {}).ainvoke(PROMPT)
        return str(answer.text)

    async def pieces(self, model: str) -> AsyncIterator[str]:
        async for chunk in self.make(model, {}).astream(PROMPT):
            if chunk.text:
                yield str(chunk.text)

    async def tool(self) -> str:
        answer = await self.make("free", {}).bind_tools([FUNCTION]).ainvoke(PROMPT)
        return str(answer.tool_calls[0]["name"])


def langchain_openai(url: str) -> LangChainClient:
    def make(model: str, headers: dict[str, str]) -> Any:
        fields: dict[str, Any] = {"api_key": KEYS["PERSON_KEY"], "base_url": f"{url}/v1"}
        made = ChatOpenAI(model=model, max_retries=0, default_headers=headers, **fields)
        OPENED.append(made.root_async_client)
        return made

    return LangChainClient(make)


def langchain_anthropic(url: str) -> LangChainClient:
    def make(model: str, headers: dict[str, str]) -> Any:
        fields: dict[str, Any] = {"api_key": KEYS["PERSON_KEY"], "base_url": url}
        made = ChatAnthropic(model=model, max_retries=0, default_headers=headers, **fields)
        OPENED.append(made._async_client)
        return made

    return LangChainClient(make)


@pytest.fixture(scope="module")
def sandboxes(running, fast_sandbox):
    """A provider that answers at once, and one that takes its time."""
    pace = ["--latency-ms", "5", "--tokens-per-second", "20"]
    return fast_sandbox("--model", "tight"), running("sandbox", "--port", "0", *pace)


@pytest.fixture(scope="module")
def service(sandboxes, serve):
    fast, paced = sandboxes
    config = CONFIG.format(url=fast.url, paced=paced.url)
    for kind in ("openai", "anthropic"):
        config += DEPLOYMENTS.format(kind=kind)
    started = serve(config, **KEYS)
    started.wait_ready()
    return started


@pytest.fixture(scope="module")
def runner():
    """One loop for all: LangChain's clients keep their connections from one call to the next."""

    async def close() -> None:
        for sdk in OPENED:
            await sdk.close()

    with asyncio.Runner() as runner:
        yield runner
        runner.run(close())


@pytest.fixture(
    params=[OpenAIClient, AnthropicClient, langchain_openai, langchain_anthropic],
    ids=["openai", "anthropic", "langchain-openai", "langchain-anthropic"],
)
def connect(request, service) -> Callable[[], Any]:
    return lambda: request.param(service.url)


async def ending(call: Any) -> str | Exception:
    """How a call ended: its text, or its error."""
    try:
        return str(await call)
    except Exception as error:  # noqa: BLE001 - each client has its own; what matters is which
        return error


async def joined(pieces: AsyncIterator[str]) -> str:
    return "".join([piece async for piece in pieces])


def outcomes(service) -> list[str]:
    return [line["outcome"] for line in service.logged() if line.get("door") == "gateway"]


def test_every_client_gets_what_it_asked_for(connect, runner):
    async def go():
        client = connect()
        pieces = [piece async for piece in client.pieces("free")]
        return await client.plain("free"), pieces, await client.tool()

    plain, pieces, tool = runner.run(go())

    assert "three rivers" in plain
    assert "".join(pieces) == plain
    assert len(pieces) > 3
    assert tool == "weather"


def test_pressure_is_a_wait_an_impossible_one_a_429_and_who_goes_leaves_the_queue(
    connect, runner, service, poll
):
    async def go():
        client = connect()
        await client.plain("tight")
        text = await client.plain("tight")
        refused = await ending(client.plain("tight", IMPATIENT))
        cancelled = asyncio.create_task(client.plain("tight"))
        await asyncio.wait([cancelled], timeout=0.3)
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        return text, refused, cancelled.cancelled()

    before, lines_before = outcomes(service).count("cancelled_waiting"), len(service.logged())
    text, refused, was_cancelled = runner.run(go())

    assert "three rivers" in text
    lines = service.logged()[lines_before:]
    assert max(line.get("wait_ms", 0) for line in lines) >= 1_000
    assert getattr(refused, "status_code", None) == 429, refused
    assert was_cancelled
    poll(lambda: outcomes(service).count("cancelled_waiting") == before + 1)


def test_who_goes_in_mid_stream_stops_the_provider(connect, runner, service, sandboxes, poll):
    paced = sandboxes[1]
    before = paced.get("/stats")[1]["cancelled"]

    async def go():
        seen: list[str] = []
        has_three = asyncio.Event()

        async def read() -> None:
            async for piece in connect().pieces("paced"):
                seen.append(piece)
                if len(seen) == 3:
                    has_three.set()

        reading = asyncio.create_task(read())
        await has_three.wait()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        return len(seen)

    assert runner.run(go()) < 20, "it has thirty pieces"
    poll(lambda: paced.get("/stats")[1]["cancelled"] == before + 1)
    assert "cancelled_sent" in outcomes(service)


def test_a_provider_that_fails_is_asked_again_or_told_of_never_a_good_end(
    connect, runner, sandboxes
):
    def plan(fault: str) -> None:
        sandboxes[0].post("/faults", {"faults": [fault]})

    async def go():
        client = connect()
        for fault in ("500", "529", "reset-before"):
            plan(fault)
            assert "three rivers" in await client.plain("free"), "asked again, unseen"
        for fault, status in FAILURES.items():
            plan(fault)
            error = await ending(client.plain("free"))
            assert getattr(error, "status_code", None) == status, (fault, error)
        for fault in ("reset-mid-stream", "error-mid-stream", "truncated-json"):
            plan(fault)
            error = await ending(joined(client.pieces("free")))
            assert isinstance(error, Exception), (fault, error)

    runner.run(go())
