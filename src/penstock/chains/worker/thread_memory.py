"""Where the threads of graphs keep their state: LangGraph's own SQLite saver, a file per thread.

A thread's runs may be carried out by any worker, and a worker may be killed at any moment. So the
state lies in the store's directory, in WAL mode, each checkpoint committed. Runs of one thread
come one after the other, so a file of its own has one writer at a time, whatever the number of
workers; one file for all would make each commit of any worker wait for those of the others, and
SQLite has one write lock per file. A deleted thread is a deleted file.

The name of a file is a digest of tenant and thread, so nothing from a request becomes a path, and
no tenant can name another's. A graph that its author compiled with a lasting checkpointer keeps
it; there, as everywhere below, the thread's id stands behind its tenant's name.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.pregel import Pregel

from penstock.chains.worker.chain import Chain
from penstock.errors import InvalidRequest, NotServed

SUFFIXES: Final = ("", "-wal", "-shm")


def thread_name(tenant: str, thread_id: str) -> str:
    """What the thread is called below the door; tenants' names have no slash."""
    return f"{tenant}/{thread_id}"


class ThreadMemory:
    """Gives graphs the memory of one thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @asynccontextmanager
    async def remembering(self, chain: Chain, thread: str) -> AsyncIterator[Any]:
        """The chain's graph with the state of ``thread`` (``thread_name``).

        Raises InvalidRequest for a chain that is no graph, NotServed where the saver is missing.
        """
        graph = graph_of(chain)
        if _lasts(graph.checkpointer):
            yield graph
            return
        try:
            # Imported late: it is an extra, and chains without threads do not need it.
            from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver  # noqa: PLC0415
        except ImportError:
            raise NotServed(
                "Threads need a package that is not installed: penstock[threads]."
            ) from None
        file = self._file(thread)
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        async with AsyncSqliteSaver.from_conn_string(str(file)) as saver:
            yield graph.copy(update={"checkpointer": saver})

    async def forget(self, chain: Chain, thread: str) -> None:
        """Remove the state of a thread; there may be none."""
        checkpointer: Any = getattr(chain.runnable, "checkpointer", None)
        if _lasts(checkpointer):
            await checkpointer.adelete_thread(thread)
        file = self._file(thread)
        for suffix in SUFFIXES:
            file.with_name(file.name + suffix).unlink(missing_ok=True)

    def _file(self, thread: str) -> Path:
        digest = hashlib.sha256(thread.encode()).hexdigest()
        return self._directory / digest[:2] / f"{digest}.sqlite"


def forgetting(chain: Chain) -> Any:
    """The chain's runnable without a memory, for a run that belongs to no thread."""
    if chain.is_graph and getattr(chain.runnable, "checkpointer", None):
        return graph_of(chain).copy(update={"checkpointer": None})
    return chain.runnable


def graph_of(chain: Chain) -> Pregel[Any, Any, Any, Any]:
    """The chain as a graph. Raises InvalidRequest where it is none."""
    if not isinstance(chain.runnable, Pregel):
        raise InvalidRequest(
            f"The chain {chain.name!r} is no LangGraph graph, so threads keep no state of it.",
            status=422,
            code="not_a_graph",
        )
    return chain.runnable


def _lasts(checkpointer: Any) -> bool:
    """Whether the author chose a memory that outlives a worker."""
    return isinstance(checkpointer, BaseCheckpointSaver) and not isinstance(
        checkpointer, InMemorySaver
    )
