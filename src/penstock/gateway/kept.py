"""Whose responses the providers keep, and where: what ``previous_response_id`` may name.

A provider keeps a response for the account that asked for it, and all tenants ask with the same
account: whoever knows an id could have the conversation continued for them. So an id means
something only to the tenant that was given it, and a call that continues a response goes to the
deployment that keeps it, whatever has more room.

The memory is bounded, the oldest are forgotten, and it ends with the process: an id that is not
known any more is answered as the provider answers one that has expired.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from penstock.dispatch.planning import queue_name
from penstock.errors import InvalidRequest
from penstock.providers.base import Endpoint
from penstock.scheduler.scheduler import Scheduler

RESPONSES_MAX = 50_000


class Kept(msgspec.Struct, frozen=True):
    """One response: its id at the provider, and the deployment that keeps it."""

    upstream_id: str
    deployment: str


class KeptResponses:
    """The responses of all tenants, by tenant and id."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], Kept] = OrderedDict()

    def keep(
        self, tenant: str, response_id: str, deployment: str, upstream_id: str | None = None
    ) -> None:
        """Remember one; ``upstream_id`` where the provider knows it by another name."""
        self._kept[tenant, response_id] = Kept(upstream_id or response_id, deployment)
        if len(self._kept) > RESPONSES_MAX:
            self._kept.popitem(last=False)

    def find(self, tenant: str, response_id: str | None) -> Kept | None:
        """The response that a call continues; None where it continues none.

        Raises InvalidRequest for one that is not this tenant's, or not known (any more).
        """
        if response_id is None:
            return None
        kept = self._kept.get((tenant, response_id))
        if kept is None:
            raise InvalidRequest(
                "'previous_response_id' names no response that is kept. Send the whole "
                "conversation as 'input'.",
                param="previous_response_id",
                code="previous_response_not_found",
            )
        return kept


def pinned_model(scheduler: Scheduler, model: str, deployment: str) -> str:
    """The queue of a model at one deployment. Raises InvalidRequest where it is not there."""
    queue = queue_name(Endpoint.RESPONSES.dialect, model, deployment)
    if not scheduler.serves(queue):
        raise InvalidRequest(
            "The response that 'previous_response_id' names is not kept where this model is "
            "served. Ask for the model that gave it.",
            param="previous_response_id",
            code="previous_response_not_found",
        )
    return queue
