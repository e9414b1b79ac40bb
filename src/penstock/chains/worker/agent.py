"""The worker's side of the Agent Server protocol: runs, and what a thread of a graph remembers.

The front keeps runs and threads and speaks with the clients (``jobs/agent``); a worker carries
one out and answers with frames. No caller reaches these endpoints: their names have dots.

A run that is attempted again after a crash goes on at the last checkpoint it made: one that
carries its id. Its input is in there and is not given twice. What was under way behind that
checkpoint is asked again, and the journal at the gateway answers it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any, Final, Literal

import msgspec
from langchain_core.runnables import RunnableConfig
from langgraph.errors import InvalidUpdateError
from langgraph.types import Command, Send, StateSnapshot

from penstock.chains.worker.agent_frames import RESULT, Telling, check_modes, lenient
from penstock.chains.worker.answer import Answer
from penstock.chains.worker.app import Endpoint, Request
from penstock.chains.worker.chain import Chain
from penstock.chains.worker.codec import decode, encode
from penstock.chains.worker.faults import InvalidInput
from penstock.chains.worker.request_body import parse
from penstock.chains.worker.runs import Order, Runs
from penstock.chains.worker.thread_memory import (
    ThreadMemory,
    forgetting,
    graph_of,
    thread_name,
)
from penstock.http.sse import event

HISTORY_MAX: Final = 100
RUN_ID: Final = "run_id"
"""Under this name each checkpoint says which run made it."""
DROPPED: Final = ("thread_id", "checkpoint_id", "checkpoint_ns", "checkpoint_map")
"""What clients leave in ``configurable``; the protocol has fields of its own for it."""


class _Goto(msgspec.Struct, forbid_unknown_fields=True):
    node: str
    input: Any = None


class _Command(msgspec.Struct, forbid_unknown_fields=True):
    resume: Any = None
    update: Any = None
    goto: str | _Goto | list[str | _Goto] | None = None
    graph: None = None


class _Run(msgspec.Struct):
    """What the front hands over of a run."""

    thread_id: str | None = None
    input: Any = None
    command: _Command | None = None
    config: dict[str, Any] | None = None
    context: dict[str, Any] | None = None
    stream_mode: list[str] = []
    stream_subgraphs: bool = False
    interrupt_before: list[str] | Literal["*"] | None = None
    interrupt_after: list[str] | Literal["*"] | None = None
    checkpoint_id: str | None = None
    durability: Literal["sync", "async", "exit"] | None = None


class _Place(msgspec.Struct):
    """What the front asks of a thread."""

    thread_id: str
    checkpoint_id: str | None = None
    subgraphs: bool = False
    limit: int = 10
    values: Any = None
    as_node: str | None = None


class AgentRuns:
    """Answers the front."""

    def __init__(self, runs: Runs, memory: ThreadMemory) -> None:
        self._runs = runs
        self._memory = memory

    def endpoints(self) -> Mapping[str, Endpoint]:
        """Each endpoint under its name in the route."""
        of_threads = {
            "agent.state": self._state,
            "agent.history": self._history,
            "agent.update": self._update,
        }
        return {
            "agent.run": Endpoint("POST", self._run),
            "agent.forget": Endpoint("POST", self._forget),
            "agent.schemas": Endpoint("POST", self._schemas),
            **{
                name: Endpoint("POST", partial(self._of_thread, work=work))
                for name, work in of_threads.items()
            },
        }

    async def _run(self, chain: Chain, request: Request, answer: Answer) -> None:
        run = _read(request, _Run)
        check_modes(
            frozenset(run.stream_mode), is_graph=chain.is_graph, show_steps=chain.table.show_steps
        )
        order = _order(chain, request, run)
        frames = self._runs.stream(order, partial(self._frames, run=run))
        await answer.stream(frames, b"")

    async def _frames(self, order: Order, run: _Run) -> AsyncGenerator[bytes, None]:
        chain = order.chain
        telling = Telling(frozenset(run.stream_mode), subgraphs=run.stream_subgraphs)
        if run.thread_id is None or not chain.is_graph:
            if chain.is_graph:
                frames = telling.of_graph(
                    forgetting(chain), _graph_input(run, order), order.config(), _options(run)
                )
            else:
                config = order.config()
                frames = telling.of_runnable(chain.runnable, order.input, config, chain.name)
            async with aclosing(frames):
                async for frame in frames:
                    yield frame
            yield event(RESULT, encode({"output": telling.last}))
            return
        thread = thread_name(order.identity.tenant, run.thread_id)
        async with self._memory.remembering(chain, thread) as graph:
            value, config = await _where_to_go_on(graph, order, run, thread)
            frames = telling.of_graph(graph, value, config, _options(run))
            async with aclosing(frames):
                async for frame in frames:
                    yield _named(frame, thread, run.thread_id)
            state = await graph.aget_state(_config(thread))
        result = {"output": telling.last, "thread": _standing(state)}
        yield event(RESULT, _named(encode(result), thread, run.thread_id))

    async def _of_thread(self, chain: Chain, request: Request, answer: Answer, work: Any) -> None:
        """Answer with what ``work`` says of a thread, within the time of a run."""
        place = _read(request, _Place)
        thread = thread_name(request.identity.tenant, place.thread_id)
        graph_of(chain)

        async def ask(_: Order) -> bytes:
            async with self._memory.remembering(chain, thread) as graph:
                return lenient(await work(graph, thread, place))

        told = await self._runs.run(_order(chain, request, None), ask)
        await answer.json(_named(told, thread, place.thread_id))

    async def _state(self, graph: Any, thread: str, place: _Place) -> Any:
        config = _config(thread, place.checkpoint_id)
        return _document(await graph.aget_state(config, subgraphs=place.subgraphs))

    async def _history(self, graph: Any, thread: str, place: _Place) -> Any:
        before = None if place.checkpoint_id is None else _config(thread, place.checkpoint_id)
        limit = max(1, min(place.limit, HISTORY_MAX))
        return [
            _document(state)
            async for state in graph.aget_state_history(_config(thread), before=before, limit=limit)
        ]

    async def _update(self, graph: Any, thread: str, place: _Place) -> Any:
        try:
            config = await graph.aupdate_state(
                _config(thread, place.checkpoint_id), decode(place.values), as_node=place.as_node
            )
        except InvalidUpdateError as error:
            # Its words may hold values.
            raise InvalidInput(
                "the graph does not take this update: 'as_node' must be the name of one of its "
                "nodes, and 'values' something that this node can give"
            ) from error
        state = await graph.aget_state(_config(thread))
        return {"checkpoint": _checkpoint(config), "thread": _standing(state)}

    async def _forget(self, chain: Chain, request: Request, answer: Answer) -> None:
        place = _read(request, _Place)
        thread = thread_name(request.identity.tenant, place.thread_id)
        await self._memory.forget(chain, thread)
        await answer.json(b"{}")

    async def _schemas(self, chain: Chain, request: Request, answer: Answer) -> None:
        settings = chain.rules.settings(tenant=request.identity.tenant)
        schemas = {f"{kind}_schema": chain.json_schema(kind, settings) for kind in _SCHEMAS}
        context = graph_of(chain).get_context_jsonschema() if chain.is_graph else None
        state = schemas["output_schema"] if chain.is_graph else None
        await answer.json(
            msgspec.json.encode({**schemas, "state_schema": state, "context_schema": context})
        )


_SCHEMAS: Final = ("input", "output", "config")


def _read(request: Request, kind: Any) -> Any:
    """The body in the form ``kind``, within the bounds of every body. Raises InvalidInput."""
    try:
        return msgspec.convert(parse(request.body), kind)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"the body does not fit: {error}") from error


def _order(chain: Chain, request: Request, run: _Run | None) -> Order:
    """The run as one that the worker can carry out. Raises InvalidInput."""
    config = None if run is None or run.config is None else dict(run.config)
    if config is not None and isinstance(config.get("configurable"), dict):
        config["configurable"] = {
            key: value
            for key, value in config["configurable"].items()
            if key not in DROPPED and not key.startswith("__")
        }
    settings = chain.rules.settings(config, tenant=request.identity.tenant)
    settings.run_id = None
    value = None
    if run is not None and run.context and "configurable" not in chain.table.config_keys:
        raise InvalidInput("context is not open on this chain: `configurable` is no config_key")
    if run is not None and run.command is None:
        # A graph's state may be given in parts, which its schema does not say: it checks itself.
        value = decode(run.input) if chain.is_graph else chain.input(run.input, settings)
    return Order(
        chain=chain,
        input=value,
        settings=settings,
        identity=request.identity,
        request_id=request.request_id,
    )


def _graph_input(run: _Run, order: Order) -> Any:
    command = run.command
    if command is None:
        return order.input
    goto = command.goto if isinstance(command.goto, list) else [command.goto]
    return Command(
        resume=command.resume,
        update=decode(command.update),
        goto=[
            Send(one.node, decode(one.input)) if isinstance(one, _Goto) else one
            for one in goto
            if one is not None
        ],
    )


async def _where_to_go_on(
    graph: Any, order: Order, run: _Run, thread: str
) -> tuple[Any, RunnableConfig]:
    """Input and config of this attempt: from its own last checkpoint, where it made one."""
    run_id = order.identity.run_id
    config = order.config()
    config["metadata"] = {**config.get("metadata", {}), RUN_ID: run_id}
    own = _config(thread, run.checkpoint_id)["configurable"]
    value = _graph_input(run, order)
    if order.identity.attempt > 1:
        state = await graph.aget_state(_config(thread))
        if (state.metadata or {}).get(RUN_ID) == run_id:
            value, own = None, _config(thread)["configurable"]
    config["configurable"] = {**config.get("configurable", {}), **own}
    return value, config


def _options(run: _Run) -> dict[str, Any]:
    options: dict[str, Any] = {
        "interrupt_before": run.interrupt_before,
        "interrupt_after": run.interrupt_after,
        "context": run.context,
    }
    if run.thread_id is not None:
        options["durability"] = run.durability
    return {name: value for name, value in options.items() if value is not None}


def _config(thread: str, checkpoint_id: str | None = None) -> RunnableConfig:
    configurable = {"thread_id": thread, "checkpoint_ns": ""}
    if checkpoint_id is not None:
        configurable["checkpoint_id"] = checkpoint_id
    return RunnableConfig(configurable=configurable)


def _named(encoded: bytes, thread: str, thread_id: str) -> bytes:
    """The same with the thread's name as its owner knows it, wherever a value is that name."""
    return encoded.replace(msgspec.json.encode(thread), msgspec.json.encode(thread_id))


def _standing(state: StateSnapshot) -> dict[str, Any]:
    """What a list of threads shows of one."""
    return {
        "values": state.values,
        "interrupts": {task.id: list(task.interrupts) for task in state.tasks if task.interrupts},
        "is_paused": bool(state.next),
    }


def _document(state: StateSnapshot) -> dict[str, Any]:
    """A state as the protocol shows it."""
    return {
        "values": state.values,
        "next": list(state.next),
        "tasks": [
            {
                "id": task.id,
                "name": task.name,
                "path": task.path,
                "error": None if task.error is None else type(task.error).__name__,
                "interrupts": list(task.interrupts),
                "checkpoint": None
                if task.state is None or isinstance(task.state, StateSnapshot)
                else _checkpoint(task.state),
                "state": _document(task.state) if isinstance(task.state, StateSnapshot) else None,
                "result": task.result,
            }
            for task in state.tasks
        ],
        "metadata": state.metadata or {},
        "created_at": state.created_at,
        "checkpoint": _checkpoint(state.config),
        "parent_checkpoint": _checkpoint(state.parent_config),
        "interrupts": list(state.interrupts),
    }


def _checkpoint(config: RunnableConfig | None) -> dict[str, Any] | None:
    if config is None:
        return None
    configurable = config.get("configurable", {})
    return {
        "thread_id": configurable.get("thread_id"),
        "checkpoint_ns": configurable.get("checkpoint_ns", ""),
        "checkpoint_id": configurable.get("checkpoint_id"),
        "checkpoint_map": configurable.get("checkpoint_map"),
    }
