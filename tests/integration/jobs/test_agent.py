"""The clients of the Agent Server protocol against a real service: langgraph-sdk, RemoteGraph."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from langgraph.pregel.remote import RemoteGraph
from langgraph_sdk import get_client, get_sync_client
from langgraph_sdk.errors import ConflictError, NotFoundError, UnprocessableEntityError

HUMAN = {"messages": [{"role": "user", "content": "hello"}]}


def run(service: Any, script: Callable[[Any], Awaitable[Any]], key: str = "acme") -> Any:
    """What ``script`` gives, with a client of that key."""

    async def main() -> Any:
        async with get_client(url=service.process.url, api_key=key) as client:
            return await script(client)

    return asyncio.run(main())


def test_every_chain_is_an_assistant_under_its_name_and_one_stable_id(service: Any) -> None:
    async def script(client: Any) -> Any:
        found = await client.assistants.search(limit=100)
        one = next(item for item in found if item["name"] == "talk")
        schemas = await client.assistants.get_schemas(one["assistant_id"])
        return found, await client.assistants.get(one["assistant_id"]), schemas, one

    found, again, schemas, one = run(service, script)
    visible = run(service, lambda client: client.assistants.search(), key="zeta")

    assert {"talk", "upper", "review"} <= {item["graph_id"] for item in found}
    assert again == one
    assert "messages" in schemas["input_schema"]["properties"]
    assert [item["name"] for item in visible] == ["letters"]


def test_a_run_is_waited_for_whatever_kind_of_runnable_it_is(service: Any) -> None:
    async def script(client: Any) -> Any:
        graph = await client.runs.wait(None, "talk", input=HUMAN)
        return graph, await client.runs.wait(None, "upper", input="abc")

    graph, text = run(service, script)

    assert [message["content"] for message in graph["messages"]] == ["hello", "answer number 1"]
    assert text == {"output": "ABC"}


def test_a_failed_run_is_told_in_the_answer_and_its_text_is_not(service: Any) -> None:
    with pytest.raises(Exception, match="chain_failed: the chain failed; the log has the rest"):
        run(service, lambda client: client.runs.wait(None, "fail", input="x"))


def test_each_mode_tells_the_run_in_its_own_way(service: Any) -> None:
    modes = ["values", "updates", "messages", "messages-tuple", "custom", "events", "debug"]

    async def script(client: Any) -> Any:
        return [
            part async for part in client.runs.stream(None, "talk", input=HUMAN, stream_mode=modes)
        ]

    parts = run(service, script)
    told: dict[str, list[Any]] = {}
    for part in parts:
        told.setdefault(part.event, []).append(part.data)

    assert parts[0].event == "metadata"
    assert told["metadata"][0]["attempt"] == 1
    assert told["custom"] == [{"progress": 1}]
    assert told["values"][-1]["messages"][-1]["content"] == "answer number 1"
    assert told["updates"][0]["answer"]["messages"][0]["type"] == "ai"
    assert "".join(chunk["content"] for chunk, _ in told["messages"]) == "answer number 1"
    assert told["messages"][0][1]["langgraph_node"] == "answer"
    assert told["messages/partial"][-1][0]["content"] == "answer number 1"
    assert {event["event"] for event in told["events"]} >= {"on_chain_start", "on_chat_model_end"}
    assert {event["type"] for event in told["debug"]} == {"task", "task_result"}


def test_modes_that_a_chain_does_not_have_or_does_not_show_are_named(service: Any) -> None:
    def refused(chain: str, mode: str) -> str:
        async def script(client: Any) -> Any:
            return [p async for p in client.runs.stream(None, chain, input="x", stream_mode=mode)]

        return str(run(service, script)[-1].data["message"])

    assert "no 'custom'" in refused("upper", "custom")
    assert "show_steps" in refused("review", "debug")


def test_a_remote_graph_is_called_and_streamed_as_a_local_one(service: Any) -> None:
    with get_sync_client(url=service.process.url, api_key="acme") as client:
        graph = RemoteGraph("talk", sync_client=client)
        whole = graph.invoke(HUMAN)
        streamed = list(graph.stream(HUMAN, stream_mode="updates"))

    assert whole["messages"][-1]["content"] == "answer number 1"
    assert streamed[0]["answer"]["messages"][0]["content"] == "answer number 1"


def test_a_thread_remembers_over_runs_and_shows_its_states(service: Any) -> None:
    async def script(client: Any) -> Any:
        thread = (await client.threads.create(metadata={"who": "me"}))["thread_id"]
        empty = await client.threads.get_state(thread)
        await client.runs.wait(thread, "talk", input=HUMAN)
        second = await client.runs.wait(thread, "talk", input=HUMAN)
        state = await client.threads.get_state(thread)
        first = (await client.threads.get_history(thread, limit=100))[-1]
        at_first = await client.threads.get_state(thread, first["checkpoint"])
        shown = await client.threads.get(thread)
        changed = await client.threads.update_state(
            thread, {"messages": [{"role": "user", "content": "x"}]}, as_node="answer"
        )
        found = await client.threads.search(metadata={"who": "me"}, status="idle")
        runs = await client.runs.list(thread)
        await client.threads.delete(thread)
        with pytest.raises(NotFoundError):
            await client.threads.get(thread)
        again = await client.threads.create(thread_id=thread)
        return empty, second, state, at_first, shown, changed, found, runs, again, thread

    empty, second, state, at_first, shown, changed, found, runs, again, thread = run(
        service, script
    )

    assert empty["values"] == {}
    assert [message["content"] for message in second["messages"]] == [
        "hello",
        "answer number 1",
        "hello",
        "answer number 2",
    ]
    assert state["values"] == second == shown["values"]
    assert state["checkpoint"]["thread_id"] == thread
    assert at_first["values"] == {"messages": []}
    assert (shown["status"], shown["metadata"]["graph_id"]) == ("idle", "talk")
    assert changed["checkpoint"]["checkpoint_id"] != state["checkpoint"]["checkpoint_id"]
    assert thread in [item["thread_id"] for item in found]
    assert [item["status"] for item in runs] == ["success", "success"]
    assert again["values"] is None


def test_an_update_that_the_graph_does_not_take_is_the_callers_mistake(service: Any) -> None:
    _, _, thread = service.ask("POST", "/threads", {})
    place = f"/threads/{thread['thread_id']}"
    service.ask("POST", f"{place}/runs/wait", {"assistant_id": "talk", "input": HUMAN})

    for wrong in ({"values": {}, "as_node": "nobody"}, {"values": 7, "as_node": "answer"}):
        status, _, refused = service.ask("POST", f"{place}/state", wrong)
        assert status == 422, refused
        assert "'as_node' must be" in refused["error"]["message"]


def test_a_graph_that_asks_is_resumed_with_the_answer(service: Any) -> None:
    async def script(client: Any) -> Any:
        thread = (await client.threads.create())["thread_id"]
        asked = await client.runs.wait(thread, "review", input={"text": "a"})
        paused = await client.threads.get(thread)
        done = await client.runs.wait(thread, "review", command={"resume": "yes"})
        return asked, paused, done, await client.threads.get(thread)

    asked, paused, done, after = run(service, script)

    assert asked["__interrupt__"][0]["value"] == {"approve": "A"}
    assert paused["status"] == "interrupted"
    assert [one["value"] for ones in paused["interrupts"].values() for one in ones] == [
        {"approve": "A"}
    ]
    assert done == {"text": "A", "approved": "yes", "visits": ["draft", "approve"]}
    assert (after["status"], after["interrupts"]) == ("idle", {})


def test_a_run_whose_worker_is_killed_goes_on_at_its_last_checkpoint(service: Any) -> None:
    marker = str(service.folder / "was-here")

    async def script(client: Any) -> Any:
        thread = (await client.threads.create())["thread_id"]
        values = await client.runs.wait(
            thread, "mortal", input={"text": marker, "visits": ["input"]}, durability="sync"
        )
        stream = client.runs.join_stream(thread, (await client.runs.list(thread))[0]["run_id"])
        return values, [part.data async for part in stream if part.event == "metadata"]

    values, begun = run(service, script)

    assert values["visits"] == ["input", "first", "second"]
    assert [one["attempt"] for one in begun] == [1, 2]


def test_a_run_goes_on_when_its_stream_is_cut_and_can_be_joined_again(
    service: Any, poll: Callable[..., None]
) -> None:
    async def script(client: Any) -> Any:
        place: dict[str, Any] = {}
        parts = client.runs.stream(
            None, "until", input=str(service.folder / "joined"), on_run_created=place.update
        )
        first = await anext(parts)
        await parts.aclose()
        where = place["thread_id"], place["run_id"]
        status = (await client.runs.get(*where))["status"]
        (service.folder / "joined").touch()
        value = await client.runs.join(*where)
        whole = [part async for part in client.runs.join_stream(*where)]
        rest = [part async for part in client.runs.join_stream(*where, last_event_id=whole[0].id)]
        return first, status, value, whole, rest

    first, status, value, whole, rest = run(service, script)

    assert first.event == "metadata"
    assert status in ("pending", "running")
    assert value == {"output": "there"}
    assert [part.event for part in whole] == ["metadata", "values"]
    assert [part.event for part in rest] == ["values"]


def test_a_caller_can_have_the_run_end_with_its_connection(
    service: Any, poll: Callable[..., None]
) -> None:
    async def script(client: Any) -> Any:
        place: dict[str, Any] = {}
        parts = client.runs.stream(
            None,
            "until",
            input="/nowhere/at/all",
            on_disconnect="cancel",
            on_run_created=place.update,
        )
        await anext(parts)
        await parts.aclose()
        async with asyncio.timeout(20):
            while True:
                shown = await client.runs.get(place["thread_id"], place["run_id"])
                if shown["status"] == "interrupted":
                    return shown

    assert run(service, script)["status"] == "interrupted"


def test_background_runs_are_listed_cancelled_and_removed(service: Any) -> None:
    async def script(client: Any) -> Any:
        made = await client.runs.create(None, "until", input="/nowhere", metadata={"a": 1})
        where = made["thread_id"], made["run_id"]
        await client.runs.cancel(*where, wait=True)
        after = await client.runs.get(*where)
        await client.runs.delete(*where)
        with pytest.raises(NotFoundError):
            await client.runs.get(*where)
        several = await client.runs.create_batch(
            [{"assistant_id": "upper", "input": text} for text in ("a", "b")]
        )
        results = [await client.runs.join(one["thread_id"], one["run_id"]) for one in several]
        later = await client.runs.create(None, "upper", input="x", after_seconds=1000)
        return made, after, results, later

    made, after, results, later = run(service, script)

    assert (made["metadata"], after["status"]) == ({"a": 1}, "interrupted")
    assert results == [{"output": "A"}, {"output": "B"}]
    assert later["status"] == "pending"


def test_a_webhook_is_told_how_a_run_ended(
    service: Any, receiver: Any, poll: Callable[..., None]
) -> None:
    url = f"http://127.0.0.1:{receiver.server_port}/hook"

    async def script(client: Any) -> Any:
        return await client.runs.create(None, "upper", input="x", webhook=url)

    made = run(service, script)
    poll(lambda: receiver.messages, 30)
    told = json.loads(receiver.messages[0][1])

    assert (told["run_id"], told["status"], told["error"]) == (made["run_id"], "success", None)
    refused = service.ask(
        "POST", "/runs", {"assistant_id": "upper", "input": "x", "webhook": "file:///etc/passwd"}
    )
    assert refused[0] == 400


def test_a_busy_thread_queues_refuses_or_interrupts_as_it_is_told(service: Any) -> None:
    async def script(client: Any) -> Any:
        thread = (await client.threads.create())["thread_id"]
        first = await client.runs.create(thread, "until", input="/nowhere")
        queued = await client.runs.create(thread, "upper", input="queued")
        with pytest.raises(ConflictError):
            await client.runs.create(thread, "upper", input="x", multitask_strategy="reject")
        busy = (await client.threads.get(thread))["status"]
        value = await client.runs.wait(thread, "upper", input="now", multitask_strategy="interrupt")
        runs = {one["run_id"]: one["status"] for one in await client.runs.list(thread)}
        return busy, value, runs[first["run_id"]], runs[queued["run_id"]]

    assert run(service, script) == ("busy", {"output": "NOW"}, "interrupted", "interrupted")


def test_a_key_never_sees_another_tenants_thread(service: Any) -> None:
    thread = str(uuid.uuid4())

    async def own(client: Any) -> Any:
        await client.threads.create(thread_id=thread)
        await client.runs.wait(thread, "talk", input=HUMAN)
        made = await client.runs.create(thread, "talk", input=HUMAN)
        await client.runs.join(thread, made["run_id"])
        return made["run_id"]

    run_id = run(service, own)

    async def strange(client: Any) -> Any:
        calls = [
            client.threads.get(thread),
            client.threads.get_state(thread),
            client.threads.get_history(thread),
            client.threads.update(thread, metadata={}),
            client.threads.delete(thread),
            client.runs.list(thread),
            client.runs.get(thread, run_id),
            client.runs.join(thread, run_id),
            client.runs.cancel(thread, run_id),
            client.runs.create(thread, "letters", input="x"),
        ]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        searched = await client.threads.search()
        # The same id is a thread of its own for another tenant.
        created = await client.threads.create(thread_id=thread)
        return answers, searched, created

    answers, searched, created = run(service, strange, key="zeta")
    statuses = {
        getattr(answer, "status_code", None) or answer.response.status_code for answer in answers
    }

    assert statuses == {404}
    assert searched == []
    assert created["values"] is None


def test_a_batch_of_runs_that_is_nested_without_end_is_refused(service: Any) -> None:
    status, _, problem = service.ask("POST", "/runs/batch", raw=b"[" * 100_000)
    assert (status, problem["detail"]) == (422, "The body must be a list of runs.")


def test_what_is_not_served_is_refused_by_name(service: Any) -> None:
    def asked(method: str, path: str, body: Any = None) -> tuple[int, str]:
        status, _, told = service.ask(method, path, body)
        return status, told["detail"]

    assert asked("POST", "/runs/crons", {}) == (501, "This server does not serve crons.")
    assert asked("PUT", "/store/items", {})[0] == 501
    assert asked("POST", "/mcp/", {}) == (501, "This server does not serve MCP.")
    body = {"assistant_id": "upper", "input": "x"}
    assert asked("POST", "/runs", {**body, "feedback_keys": ["a"]})[0] == 501
    assert asked("POST", "/runs", {**body, "colour": "red"})[0] == 422
    assert asked("POST", "/runs", {**body, "assistant_id": "nothing"})[0] == 404
    assert asked("POST", "/runs", {"input": "x"})[0] == 422
    assert asked("GET", "/threads/not-a-uuid")[0] == 422
    with pytest.raises(UnprocessableEntityError):
        run(service, lambda client: client.threads.create(thread_id="x"))


def test_the_class_of_a_run_is_asked_for_as_at_every_door(service: Any) -> None:
    def answered(**headers: str) -> str:
        body = {"assistant_id": "upper", "input": "x"}
        return str(service.ask("POST", "/runs/wait", body, **headers)[1]["penstock-class"])

    assert answered() == "standard"
    assert answered(Priority="u=7") == "batch"


def test_a_run_that_outlasts_its_callers_deadline_is_cancelled(service: Any) -> None:
    body = {"assistant_id": "until", "input": "/nowhere"}
    answer = service.ask("POST", "/runs/wait", body, Prefer="wait=1")[2]

    assert answer["__error__"]["error"] == "deadline_exceeded"


def test_who_it_is_can_be_asked_without_a_key(service: Any) -> None:
    assert httpx.get(f"{service.process.url}/ok").json() == {"ok": True}
    assert "version" in httpx.get(f"{service.process.url}/info").json()
