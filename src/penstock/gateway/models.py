"""``/v1/models``: what a key may ask for, in the shape of the SDK that asks."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from penstock.config.model import Config
from penstock.dispatch.planning import public_models
from penstock.errors import InternalError, NotFound
from penstock.gateway.calls import ChainModels
from penstock.http.auth import Principal
from penstock.http.error_body import ErrorShape, shape_for
from penstock.http.exchange import Exchange
from penstock.providers.registry import ADAPTERS
from penstock.units import Outcome

OWNER = "penstock"


class ModelList:
    """The public models by protocol; ``models`` is replaced on a reload.

    ``since`` is Unix time: clients expect a creation date, and this is the service's.
    """

    def __init__(
        self,
        models: Mapping[str, frozenset[str]],
        since: float,
        chains: ChainModels | None = None,
    ) -> None:
        self.models = models
        self._chains = chains
        self._since = since

    async def list(self, exchange: Exchange) -> Outcome:
        """``GET /v1/models``."""
        names = sorted(self._allowed(exchange))
        if _is_anthropic(exchange):
            data = [self._anthropic(name) for name in names]
            page = {
                "first_id": names[0] if names else None,
                "last_id": names[-1] if names else None,
            }
            body: dict[str, Any] = {"data": data, "has_more": False, **page}
        else:
            body = {"object": "list", "data": [self._openai(name) for name in names]}
        await exchange.respond(200, msgspec.json.encode(body))
        return Outcome.SUCCESS

    async def one(self, exchange: Exchange) -> Outcome:
        """``GET /v1/models/{model}``. Raises NotFound also for one that the key may not use."""
        name = exchange.path_params["model"]
        if name not in self._allowed(exchange):
            raise NotFound("No such model, or none for this API key.", code="model_not_found")
        body = self._anthropic(name) if _is_anthropic(exchange) else self._openai(name)
        await exchange.respond(200, msgspec.json.encode(body))
        return Outcome.SUCCESS

    def _allowed(self, exchange: Exchange) -> frozenset[str]:
        if exchange.principal is None:
            raise InternalError("the model list was opened without a key")
        if _is_anthropic(exchange):
            return _scoped(self.models.get("anthropic", frozenset()), exchange.principal)
        chains = self._chains.chat_models(exchange.principal) if self._chains else frozenset()
        return _scoped(self.models.get("openai", frozenset()), exchange.principal) | chains

    def _openai(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": int(self._since), "owned_by": OWNER}

    def _anthropic(self, name: str) -> dict[str, Any]:
        created_at = datetime.fromtimestamp(int(self._since), UTC).isoformat()
        return {"type": "model", "id": name, "display_name": name, "created_at": created_at}


def models_by_wire(config: Config) -> Mapping[str, frozenset[str]]:
    """The public model names of a configuration, by the protocol that they are served in."""
    found: dict[str, set[str]] = {}
    for name, table in config.deployments.items():
        wire = ADAPTERS[config.providers[table.provider].kind].wire
        found.setdefault(wire, set()).update(public_models(name, table))
    return {wire: frozenset(names) for wire, names in found.items()}


def _scoped(served: frozenset[str], principal: Principal) -> frozenset[str]:
    return served if principal.models is None else served & principal.models


def _is_anthropic(exchange: Exchange) -> bool:
    return shape_for(exchange.headers) is ErrorShape.ANTHROPIC
