"""What a caller says itself of the run that its call belongs to.

First match wins: ``background_options.continuation_id``; W3C ``baggage`` with ``penstock.run``
(and beside it ``penstock.chain`` and ``penstock.step``); the trace of ``traceparent``. The signed
header of our own workers stands above all of them, and where it is none of this is read.

Anybody can write these, and most who send them do not know it: instrumentation passes baggage on
from wherever it came, a browser included. So they are believed for what concerns nobody but the
tenant whose key made the call: the run, the chain and the step in its rows of the ledger, and
the deployment that the calls of one run had better share, which keeps their prompts in its cache
(a trace says nothing of that).
They move no call in the queue: a run's arrival also decides between tenants who are about even
(``scheduler.fairness``), and whoever can claim an early one would have it before everybody. They
give no right, no class and no budget, and stand in no metric and no line of the log. A chain is
noted only where the key may call one of that name, and so many names of each tenant at most,
because usage is summed by them.

Baggage is read as its specification has it (W3C Recommendation of 2024-05-23, section 3.3): values
are percent-encoded UTF-8, properties behind a semicolon say nothing here, the first of two equal
keys counts, and what is malformed or over the limits is as if it were not there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

import msgspec

from penstock.http.auth import Principal

CHARACTERS_MAX: Final = 8192
MEMBERS_MAX: Final = 180
"""Both as W3C has them: what everybody passes on, and what nobody need read beyond."""
CHAINS_MAX: Final = 100
"""Names of chains that are noted of one tenant, until the process ends."""

_TRACEPARENT: Final = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}\Z")
_RUN: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")
_CHAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}\Z")
_STEP: Final = re.compile(r"[0-9]{1,6}\Z")
_OURS: Final = "penstock."


class NamedRun(msgspec.Struct, frozen=True):
    """A run as its caller names it; ``chain`` is empty and ``step`` 0 where it does not say.

    ``is_trace``: instrumentation made it up, for one call maybe, so nothing is remembered by it.
    """

    run_id: str
    chain: str = ""
    step: int = 0
    is_trace: bool = False


class NamedRuns:
    """Reads what callers say, and bounds it."""

    def __init__(self) -> None:
        self._chains: dict[str, set[str]] = {}

    def read(
        self, headers: Mapping[str, str], continuation_id: str, principal: Principal
    ) -> NamedRun | None:
        """The run that a call names, if it names one; ``headers`` have lower-case names."""
        baggage, traceparent = headers.get("baggage"), headers.get("traceparent")
        if continuation_id:
            return NamedRun(continuation_id)
        if baggage is not None:
            said = read_baggage(baggage)
            run_id = said.get("run", "")
            if _RUN.match(run_id):
                step = said.get("step", "")
                chain = self._chain(said.get("chain", ""), principal)
                return NamedRun(run_id, chain, int(step) if _STEP.match(step) else 0)
        match = None if traceparent is None else _TRACEPARENT.match(traceparent)
        return None if match is None else NamedRun(match[1], is_trace=True)

    def _chain(self, name: str, principal: Principal) -> str:
        if not _CHAIN.match(name):
            return ""
        if principal.chains is not None and name not in principal.chains:
            return ""
        noted = self._chains.setdefault(principal.tenant, set())
        if name not in noted and len(noted) < CHAINS_MAX:
            noted.add(name)
        return name if name in noted else ""


def read_baggage(text: str) -> dict[str, str]:
    """The values of our own keys, without their prefix; empty where there is none to be read."""
    found: dict[str, str] = {}
    if _OURS not in text or len(text) > CHARACTERS_MAX:
        return found
    members = text.split(",", MEMBERS_MAX + 1)
    for member in members[:MEMBERS_MAX]:
        name, equals, value = member.partition(";")[0].partition("=")
        name = name.strip(" \t")
        if equals and name.startswith(_OURS):
            found.setdefault(name.removeprefix(_OURS), unquote(value.strip(" \t")))
    return found
