"""``/admin/tenants``: what holds for each tenant, where each value is from, what was spent.

What is set here stands in the store, above what the file says; the service goes by it before the
answer is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from penstock.admin.answers import respond_json
from penstock.admin.stored import broken_rules, fields_of, spent_view, with_store
from penstock.config.checked import checked_tenant
from penstock.config.model import TenantTable
from penstock.errors import ConfigError, NotFound
from penstock.http.exchange import Exchange
from penstock.http.query import NoQuery, asking
from penstock.store.budgets import Budgets
from penstock.store.keys import KeyStore
from penstock.store.tenants import StoredTenant, tenant_view
from penstock.units import Outcome


class TenantsDoor:
    """Shows and sets tenants.

    ``file`` gives the tables of the configuration's file, ``known`` all tenants that there are;
    ``changed`` has the service go by what is stored now.
    """

    def __init__(
        self,
        directory: Path,
        budgets: Budgets,
        file: Callable[[], Mapping[str, TenantTable]],
        known: Callable[[], Collection[str]],
        changed: Callable[[], None],
    ) -> None:
        self._directory = directory
        self._budgets = budgets
        self._file = file
        self._known = known
        self._changed = changed

    @asking(NoQuery)
    async def list(self, exchange: Exchange, _query: NoQuery) -> Outcome:
        """Each tenant with its weight, limits and budgets, and what it has spent."""
        stored = await self._stored()
        names = self._names(stored) | {*self._budgets.names("tenant")}
        views = [self._view(name, stored) for name in sorted(names)]
        await respond_json(exchange, {"tenants": views})
        return Outcome.SUCCESS

    @asking(NoQuery)
    async def get(self, exchange: Exchange, _query: NoQuery) -> Outcome:
        """One tenant."""
        name, stored = exchange.path_params["name"], await self._stored()
        if name not in self._names(stored):
            raise NotFound(
                "There is no tenant of this name: no table, no key and nothing set names it. "
                "GET /admin/tenants lists those there are."
            )
        await respond_json(exchange, self._view(name, stored))
        return Outcome.SUCCESS

    async def put(self, exchange: Exchange) -> Outcome:
        """Set these fields; of what was set before nothing else stays."""
        return await self._set(exchange, replaces=True)

    async def patch(self, exchange: Exchange) -> Outcome:
        """Set these fields; what is not named stays as it is."""
        return await self._set(exchange, replaces=False)

    async def delete(self, exchange: Exchange) -> Outcome:
        """Forget all that was set of a tenant: the file holds again."""
        name = exchange.path_params["name"]
        await with_store(self._directory, lambda store: store.reset_tenant(name))
        return await self._taken_over(exchange, name)

    async def _set(self, exchange: Exchange, *, replaces: bool) -> Outcome:
        name = exchange.path_params["name"]
        asked = fields_of(await exchange.body(), TenantTable)
        try:
            fields = checked_tenant(name, asked)
        except ConfigError as error:
            raise broken_rules(error) from None

        def write(store: KeyStore) -> None:
            store.set_tenant(name, fields, replaces=replaces)

        await with_store(self._directory, write)
        return await self._taken_over(exchange, name)

    async def _taken_over(self, exchange: Exchange, name: str) -> Outcome:
        """Go by what is stored now, and answer with what holds."""
        self._changed()
        exchange.facts["changed"] = f"tenant {name}"
        await respond_json(exchange, self._view(name, await self._stored()))
        return Outcome.SUCCESS

    async def _stored(self) -> dict[str, StoredTenant]:
        rows = await with_store(self._directory, lambda store: store.tenants())
        return {tenant.name: tenant for tenant in rows}

    def _names(self, stored: Mapping[str, StoredTenant]) -> set[str]:
        return {*self._file(), *stored, *self._known()}

    def _view(self, name: str, stored: Mapping[str, StoredTenant]) -> dict[str, Any]:
        view = tenant_view(name, self._file(), stored.get(name))
        return {**view, "spent": spent_view(self._budgets, ("tenant", name))}
