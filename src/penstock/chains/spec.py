"""What the front side and a chain worker say to each other, besides HTTP.

The front writes one ``WorkerSpec`` as a JSON line to the worker's standard input, so that keys
stand neither on a command line nor in the environment of ``ps``. The worker answers with
``Problem`` lines and one ``Ready`` line on its standard output, and logs ``LogLine``s on its
standard error. The headers below are the private ones of the Unix socket between the two.
"""

from __future__ import annotations

import msgspec

from penstock.config.model import ChainTable, ClassTable

REQUEST_ID_HEADER = "x-request-id"
"""The front's request id; the worker logs and reports failures under it."""

OUTCOME_HEADER = "penstock-outcome"
"""The worker's own word for how an answer ended (``units.Outcome``); not passed on."""


CHAT_ENDPOINT = "chat.completion"
"""The worker's endpoint for a chain that is called as a model; callers' routes have no dots."""

AGENT_ENDPOINTS = frozenset(
    f"agent.{name}" for name in ("run", "state", "history", "update", "forget", "schemas")
)
"""The worker's side of the Agent Server protocol; only this process itself asks for them."""


class WorkerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """All that a worker is told; ``run_key_base64`` signs and verifies run identities."""

    socket_path: str
    chains: dict[str, ChainTable]
    gateway_url: str
    gateway_key: str
    run_key_base64: str
    path: list[str] = []
    threads_path: str = ""
    classes: dict[str, ClassTable] = {}
    runs_max: int = 100
    log_level: str = "INFO"

    def __repr__(self) -> str:
        return f"WorkerSpec(socket_path={self.socket_path!r}, chains={sorted(self.chains)})"


class Problem(msgspec.Struct, frozen=True, tag="problem"):
    """A chain that could not be loaded. It answers 503; the others work."""

    chain: str
    problem: str


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The worker answers on its socket; ``chat_chains`` can be called as models."""

    pid: int
    chains: list[str]
    start_cpu_seconds: float
    chat_chains: list[str] = []


class WorkerStatus(msgspec.Struct, frozen=True):
    """What a worker answers when it is asked how it is.

    ``threads_overdue`` counts threads that work for a run which is over.
    """

    resident_bytes: int
    threads_overdue: int


class LogLine(msgspec.Struct, frozen=True):
    """One log record of a worker; ``message`` holds its traceback, too."""

    level: int
    logger: str
    message: str


WorkerLine = Problem | Ready
