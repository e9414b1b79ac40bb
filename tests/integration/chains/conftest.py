"""A front on a loopback port: the chains door over a pool of real worker processes."""

import asyncio
import base64
import threading
import tomllib
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec
import pytest
from starlette.routing import Route

from penstock.chains.door import ChainsDoor
from penstock.chains.spec import WorkerSpec
from penstock.chains.supervisor import WorkerPool
from penstock.config.model import ChainTable, ClassTable, ServerTable, WorkersTable
from penstock.http.auth import Authenticator, Principal, digest
from penstock.http.door import Access, Desk, Door, ErrorShape
from penstock.http.entrance import Entrance
from penstock.http.server import HttpServer
from penstock.telemetry.metrics import Metrics

RUN_KEY = b"r" * 32
PEPPER = b"p" * 32
HERE = str(Path(__file__).parent)
EXAMPLES = str(Path(__file__).parents[3] / "examples" / "chains")
CLASSES = {
    "interactive": ClassTable(rank=0),
    "standard": ClassTable(rank=1),
    "batch": ClassTable(rank=2),
}
NAMES = ["kill", "block", "pid", "unencodable", "untold"]


def chain_table(attribute: str, module: str = "contract_chains", **options) -> ChainTable:
    return ChainTable(import_path=f"{module}:{attribute}", **options)


def contract_tables() -> dict[str, ChainTable]:
    """The contract chains as their configuration has them, and some that misbehave."""
    contract = tomllib.loads((Path(HERE) / "contract.toml").read_text())
    tables = msgspec.convert(contract["chains"], dict[str, ChainTable])
    tables |= {name: chain_table(name) for name in NAMES}
    tables["unencodable_step"] = chain_table("unencodable_step", show_steps=True)
    tables["slow_shown"] = chain_table("slow", show_steps=True)
    tables["slow_limited"] = chain_table("slow", timeout_seconds=0.2)
    tables["broken"] = chain_table("chain", module="no_such_module_anywhere")
    return tables


def principal(name: str, **options) -> Principal:
    return Principal(
        key_id=name,
        tenant=options.pop("tenant", "acme"),
        class_default="standard",
        ceiling="interactive",
        **options,
    )


class Front:
    """What a test talks to: ``url``, and the pool for looking behind it."""

    def __init__(self, workers: WorkersTable, gateway_url: str, tables: dict) -> None:
        self.tables = tables
        self.pool = WorkerPool(workers, classes=CLASSES)
        self.door = ChainsDoor(self.pool, tables, CLASSES, RUN_KEY)
        self.spec = WorkerSpec(
            socket_path="",
            chains=tables,
            gateway_url=gateway_url,
            gateway_key="internal",
            run_key_base64=base64.b64encode(RUN_KEY).decode(),
            path=[HERE, EXAMPLES],
            classes=CLASSES,
        )
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/chains"

    @asynccontextmanager
    async def running(self):
        keys = {
            digest("key", PEPPER): principal("all"),
            digest("narrow", PEPPER): principal("narrow", chains=frozenset({"upper"})),
            digest("other", PEPPER): principal("other", tenant="other"),
        }
        server_table = ServerTable(port=0)
        desk = Desk(Authenticator(keys, PEPPER), server_table, Metrics())
        made = {"access": Access.KEY, "shape": ErrorShape.PROBLEM, "door": "chains", "desk": desk}
        routes = [
            Route("/chains", Door(self.door.list_chains, **made), methods=["GET"]),
            Route(
                "/chains/{name}/{rest:path}",
                Door(self.door.handle, **made),
                methods=["GET", "POST", "PUT"],
            ),
        ]
        server = HttpServer(Entrance(routes, desk), server_table)
        await self.pool.start(self.spec)
        await self.pool.wait_ready()
        await server.start()
        self.port = server.port
        try:
            yield self
        finally:
            await server.stop(1.0)
            await self.pool.stop(1.0)


@pytest.fixture
def make_front():
    """A front inside the test's own event loop."""

    def make(tables=None, gateway_url="http://127.0.0.1:1", **workers) -> Front:
        table = WorkersTable(**{"count": 1, **workers})
        return Front(table, gateway_url, contract_tables() if tables is None else tables)

    return make


@contextmanager
def in_a_thread(made: Front) -> Iterator[Front]:
    up, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with made.running():
            up.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=[serve()])
    thread.start()
    try:
        assert up.wait(60), "the front did not start"
        yield made
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        loop.close()


@pytest.fixture(scope="session")
def front() -> Iterator[Front]:
    """One front with one worker in a thread of its own, shared by the protocol tests."""
    made = Front(WorkersTable(count=1), "http://127.0.0.1:1", contract_tables())
    with in_a_thread(made):
        yield made


@pytest.fixture(scope="session")
def front_before():
    """A front in a thread of its own before a given gateway: a context manager."""

    def make(tables, gateway_url: str):
        return in_a_thread(Front(WorkersTable(count=1), gateway_url, tables))

    return make


@pytest.fixture(scope="session")
def tables():
    """Builds chain tables over the contract chains."""
    return chain_table
