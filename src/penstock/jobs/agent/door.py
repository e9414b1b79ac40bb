"""The routes of the Agent Server protocol: those that are served, and the names of the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
from starlette.routing import Route

from penstock import __version__
from penstock.errors import NotServed
from penstock.http.door import Access, Desk, Door, DoorBodies, ErrorShape, Handler
from penstock.http.exchange import Exchange
from penstock.http.inside import InsideCalls
from penstock.http.sse import MEDIA_TYPE
from penstock.jobs.agent.assistants import Assistants
from penstock.jobs.agent.execution import AgentExecutor
from penstock.jobs.agent.runs import KIND, Chains, Runs, webhook_message
from penstock.jobs.agent.shapes import (
    AssistantSearch,
    AssistantShown,
    HistoryWanted,
    RunBatch,
    RunBody,
    RunShown,
    StateChange,
    StateShown,
    StateWanted,
    ThreadBody,
    ThreadChange,
    ThreadSearch,
    ThreadShown,
)
from penstock.jobs.agent.threads import Threads
from penstock.jobs.engine import Jobs
from penstock.jobs.webhooks import Webhooks
from penstock.store.threads import ThreadStore
from penstock.units import Outcome

NOT_SERVED: Final = (
    ("crons", "/runs/crons{rest:path}"),
    ("crons", "/threads/{thread}/runs/crons{rest:path}"),
    ("cancelling many runs at once", "/runs/cancel"),
    ("the store", "/store/{rest:path}"),
    ("MCP", "/mcp{rest:path}"),
    ("A2A", "/a2a/{rest:path}"),
    ("pruning threads", "/threads/prune"),
    ("copying threads", "/threads/{thread}/copy"),
    ("the stream of a whole thread", "/threads/{thread}/stream{rest:path}"),
    ("the second protocol of events", "/threads/{thread}/commands"),
    ("creating assistants, which the configuration does", "/assistants"),
    ("drawing graphs", "/assistants/{assistant}/graph"),
    ("subgraphs", "/assistants/{assistant}/subgraphs{rest:path}"),
    ("versions of assistants", "/assistants/{assistant}/versions"),
    ("versions of assistants", "/assistants/{assistant}/latest"),
)
"""Parts of the protocol that are known by name. They answer 501 with it."""

_Part = dict[str, Any]
"""An object whose fields are chosen by who asks (``select``), or a chain's own."""
_METHODS: Final = ["GET", "POST", "PUT", "PATCH", "DELETE"]


class AgentDoor:
    """Every route of the protocol."""

    def __init__(
        self,
        jobs: Jobs,
        store: ThreadStore,
        chains: Chains,
        calls: InsideCalls,
        webhooks: Webhooks,
    ) -> None:
        self._threads = Threads(store, jobs, calls)
        self._runs = Runs(jobs, self._threads, chains, webhooks.check)
        webhooks.bodies[KIND] = webhook_message
        self._assistants = Assistants(chains, self._runs, calls)
        jobs.executors[KIND] = AgentExecutor(
            calls, jobs.table.result_bytes_max, self._threads.settle
        )

    def routes(self, desk: Desk) -> list[Route]:
        """Those that are not served stand before those that they would be taken for."""

        def route(
            method: str | list[str],
            path: str,
            handler: Handler,
            access: Access = Access.KEY,
            *,
            asked: Any = None,
            shown: Any = None,
            other: tuple[str, ...] = (),
        ) -> Route:
            door = Door(
                handler,
                access=access,
                shape=ErrorShape.OPENAI,
                door="agent",
                desk=desk,
                bodies=DoorBodies.showing(shown, asked, other),
            )
            return Route(path, door, methods=[method] if isinstance(method, str) else method)

        return [
            *(route(_METHODS, path, _refusing(name)) for name, path in NOT_SERVED),
            route("GET", "/ok", _ok, Access.PUBLIC),
            route("GET", "/info", _info, Access.PUBLIC),
            *self._assistant_routes(route),
            *self._run_routes(route),
            *self._thread_routes(route),
        ]

    def _assistant_routes(self, route: Callable[..., Route]) -> list[Route]:
        assistants, asked = self._assistants, AssistantSearch
        one = "/assistants/{assistant}"
        return [
            route("POST", "/assistants/search", assistants.search, asked=asked, shown=list[_Part]),
            route("POST", "/assistants/count", assistants.count, asked=asked, shown=int),
            route("GET", one, assistants.get, shown=AssistantShown),
            route("GET", one + "/schemas", assistants.schemas, shown=_Part),
        ]

    def _run_routes(self, route: Callable[..., Route]) -> list[Route]:
        """Those that create runs, without a thread and on one, and those of one run."""
        runs = self._runs
        created = [
            one
            for of in ("", "/threads/{thread}")
            for one in (
                route("POST", of + "/runs", runs.create, asked=RunBody, shown=RunShown),
                route("POST", of + "/runs/wait", runs.create_and_wait, asked=RunBody, shown=Any),
                route(
                    "POST",
                    of + "/runs/stream",
                    runs.create_and_stream,
                    asked=RunBody,
                    other=(MEDIA_TYPE,),
                ),
            )
        ]
        run = "/threads/{thread}/runs/{run}"
        return [
            *created,
            route("POST", "/runs/batch", runs.batch, asked=RunBatch, shown=list[RunShown]),
            route("GET", "/threads/{thread}/runs", runs.page, shown=list[RunShown]),
            route("GET", run, runs.get, shown=RunShown),
            route("DELETE", run, runs.delete, shown=_Part),
            route("GET", run + "/join", runs.join, shown=Any),
            route("GET", run + "/stream", runs.stream, other=(MEDIA_TYPE,)),
            route("POST", run + "/cancel", runs.cancel, shown=_Part),
        ]

    def _thread_routes(self, route: Callable[..., Route]) -> list[Route]:
        threads, one = self._threads, "/threads/{thread}"
        search, found = ThreadSearch, list[_Part]
        history = list[StateShown]
        return [
            route("POST", "/threads", threads.create, asked=ThreadBody, shown=ThreadShown),
            route("POST", "/threads/search", threads.search, asked=search, shown=found),
            route("POST", "/threads/count", threads.count, asked=search, shown=int),
            route("GET", one, threads.get, shown=ThreadShown),
            route("PATCH", one, threads.change, asked=ThreadChange, shown=ThreadShown),
            route("DELETE", one, threads.delete, shown=_Part),
            route("GET", one + "/state", threads.state, shown=StateShown),
            route("POST", one + "/state", threads.change_state, asked=StateChange, shown=_Part),
            route(
                "POST",
                one + "/state/checkpoint",
                threads.state_at,
                asked=StateWanted,
                shown=StateShown,
            ),
            route("GET", one + "/state/{checkpoint}", threads.state, shown=StateShown),
            route("GET", one + "/history", threads.history, shown=history),
            route(
                "POST",
                one + "/history",
                threads.search_history,
                asked=HistoryWanted,
                shown=history,
            ),
        ]


def _refusing(name: str) -> Handler:
    async def refuse(_exchange: Exchange) -> Outcome:
        raise NotServed(f"This server does not serve {name}.")

    return refuse


async def _ok(exchange: Exchange) -> Outcome:
    await exchange.respond(200, b'{"ok":true}')
    return Outcome.SUCCESS


async def _info(exchange: Exchange) -> Outcome:
    flags = {"assistants": True, "crons": False, "langsmith": False}
    await exchange.respond(200, msgspec.json.encode({"version": __version__, "flags": flags}))
    return Outcome.SUCCESS
