"""The routes of the Agent Server protocol: those that are served, and the names of the others."""

from __future__ import annotations

from typing import Final

import msgspec
from starlette.routing import Route

from penstock import __version__
from penstock.errors import NotServed
from penstock.http.door import Access, Desk, Door, ErrorShape, Handler
from penstock.http.exchange import Exchange
from penstock.http.inside import InsideCalls
from penstock.jobs.agent.assistants import Assistants
from penstock.jobs.agent.execution import AgentExecutor
from penstock.jobs.agent.request import RunBody
from penstock.jobs.agent.runs import KIND, Chains, Runs, webhook_message
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
            method: str | list[str], path: str, handler: Handler, access: Access = Access.KEY
        ) -> Route:
            shape = ErrorShape.OPENAI
            asked = RunBody if handler in ordering else None
            door = Door(handler, access=access, shape=shape, door="agent", desk=desk, request=asked)
            return Route(path, door, methods=[method] if isinstance(method, str) else method)

        runs, threads, assistants = self._runs, self._threads, self._assistants
        ordering = (runs.create, runs.create_and_wait, runs.create_and_stream)
        thread, run = "/threads/{thread}", "/threads/{thread}/runs/{run}"
        return [
            *(route(_METHODS, path, _refusing(name)) for name, path in NOT_SERVED),
            route("GET", "/ok", _ok, Access.PUBLIC),
            route("GET", "/info", _info, Access.PUBLIC),
            route("POST", "/assistants/search", assistants.search),
            route("POST", "/assistants/count", assistants.count),
            route("GET", "/assistants/{assistant}", assistants.get),
            route("GET", "/assistants/{assistant}/schemas", assistants.schemas),
            route("POST", "/runs", runs.create),
            route("POST", "/runs/wait", runs.create_and_wait),
            route("POST", "/runs/stream", runs.create_and_stream),
            route("POST", "/runs/batch", runs.batch),
            route("POST", "/threads", threads.create),
            route("POST", "/threads/search", threads.search),
            route("POST", "/threads/count", threads.count),
            route("GET", thread, threads.get),
            route("PATCH", thread, threads.change),
            route("DELETE", thread, threads.delete),
            route("GET", thread + "/state", threads.state),
            route("POST", thread + "/state", threads.change_state),
            route("POST", thread + "/state/checkpoint", threads.state_at),
            route("GET", thread + "/state/{checkpoint}", threads.state),
            route(["GET", "POST"], thread + "/history", threads.history),
            route("GET", thread + "/runs", runs.page),
            route("POST", thread + "/runs", runs.create),
            route("POST", thread + "/runs/wait", runs.create_and_wait),
            route("POST", thread + "/runs/stream", runs.create_and_stream),
            route("GET", run, runs.get),
            route("DELETE", run, runs.delete),
            route("GET", run + "/join", runs.join),
            route("GET", run + "/stream", runs.stream),
            route("POST", run + "/cancel", runs.cancel),
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
