"""Assistants: the chains of the configuration, under their names and stable ids.

There is one for each chain that the key may use. They are made by the configuration, so nothing
here changes any; clients that look for versions find the first.
"""

from __future__ import annotations

import time
from typing import Any, Final

import msgspec

from penstock.config.model import ChainTable
from penstock.http.door import while_connected
from penstock.http.exchange import Exchange
from penstock.http.inside import InsideCalls
from penstock.jobs.agent.request import Fields, assistant_id, metadata_of
from penstock.jobs.agent.runs import Chains, Runs
from penstock.jobs.agent.shapes import AssistantSearch, fields_of
from penstock.jobs.agent.threads import ask, iso
from penstock.jobs.door import principal_of
from penstock.units import Outcome

METADATA: Final = {"created_by": "system"}


class Assistants:
    """Handlers of ``/assistants``."""

    def __init__(self, chains: Chains, runs: Runs, calls: InsideCalls) -> None:
        self._chains = chains
        self._runs = runs
        self._calls = calls
        self._began_at = time.time()

    async def search(self, exchange: Exchange) -> Outcome:
        """``POST /assistants/search``: by name, ordered by it."""
        fields = Fields(await exchange.body(), fields_of(AssistantSearch))
        limit, offset = fields.limit(), fields.offset()
        select = fields.read("select", list[str], "a list of names")
        shown = self._found(exchange, fields)[offset : offset + limit]
        if select is not None:
            shown = [{name: one[name] for name in select if name in one} for one in shown]
        await exchange.respond(200, msgspec.json.encode(shown))
        return Outcome.SUCCESS

    async def count(self, exchange: Exchange) -> Outcome:
        """``POST /assistants/count``."""
        fields = Fields(await exchange.body(), fields_of(AssistantSearch))
        await exchange.respond(200, msgspec.json.encode(len(self._found(exchange, fields))))
        return Outcome.SUCCESS

    async def get(self, exchange: Exchange) -> Outcome:
        """``GET /assistants/{assistant}``."""
        chain = self._named(exchange)
        table = self._chains.visible(principal_of(exchange))[chain]
        await exchange.respond(200, msgspec.json.encode(self._document(chain, table)))
        return Outcome.SUCCESS

    async def schemas(self, exchange: Exchange) -> Outcome:
        """``GET /assistants/{assistant}/schemas``."""
        chain = self._named(exchange)
        path = f"/chains/{chain}/agent.schemas"
        told = await while_connected(exchange, ask(self._calls, exchange, path, b"{}"))
        schemas = msgspec.json.decode(told, type=dict[str, msgspec.Raw])
        await exchange.respond(200, msgspec.json.encode({"graph_id": chain, **schemas}))
        return Outcome.SUCCESS

    def _named(self, exchange: Exchange) -> str:
        return self._runs.chain_of(principal_of(exchange), exchange.path_params["assistant"])

    def _found(self, exchange: Exchange, fields: Fields) -> list[dict[str, Any]]:
        graph = fields.read("graph_id", str, "a chain's name")
        name = fields.read("name", str, "a chain's name")
        wanted = msgspec.json.decode(metadata_of(fields))
        if not wanted.items() <= METADATA.items():
            return []
        return [
            self._document(chain, table)
            for chain, table in self._chains.visible(principal_of(exchange)).items()
            if graph in (None, chain) and (name is None or name.lower() in chain.lower())
        ]

    def _document(self, chain: str, table: ChainTable) -> dict[str, Any]:
        return {
            "assistant_id": assistant_id(chain),
            "graph_id": chain,
            "name": chain,
            "description": table.description or None,
            "version": 1,
            "config": {},
            "context": {},
            "metadata": METADATA,
            "created_at": iso(self._began_at),
            "updated_at": iso(self._began_at),
        }
