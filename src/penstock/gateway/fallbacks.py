"""Which models may answer a call, in which order, and what leads from one to the next.

Within one public name the scheduler chooses among the deployments. Beyond it the configuration
may name other models (``[models.NAME] fallbacks``), which are asked in their order where the
name cannot answer: its provider is down or refuses our key, the call is longer than the model's
context or than its limits, or would wait beyond its deadline. Pressure on a limit is none of
these: it is a wait. Only models that the caller's key may use are asked, in the same dialect,
and never once a byte of an answer has gone out.

A caller who wants this model or none says ``disable_fallbacks: true`` in the body, which is what
LiteLLM's callers say.
"""

from __future__ import annotations

from collections.abc import Mapping

from penstock.config.model import ModelTable
from penstock.dispatch.planning import queue_name
from penstock.errors import (
    CallError,
    DeadlineExceeded,
    DeadlineUnreachable,
    QueueFull,
    RequestTooLargeForLimit,
    UpstreamAuth,
    UpstreamExhausted,
    UpstreamInvalid,
    UpstreamRejected,
    UpstreamUnavailable,
)
from penstock.http.auth import Principal
from penstock.providers.base import ParsedCall
from penstock.scheduler.scheduler import Scheduler

_LEADING_ON = (
    DeadlineUnreachable,
    QueueFull,
    RequestTooLargeForLimit,
    UpstreamAuth,
    UpstreamExhausted,
    UpstreamInvalid,
    UpstreamUnavailable,
)


class Fallbacks:
    """The models to ask instead of others; ``models`` is replaced on a reload."""

    def __init__(self, scheduler: Scheduler, models: Mapping[str, ModelTable]) -> None:
        self.models = models
        self._scheduler = scheduler

    def candidates(self, call: ParsedCall, principal: Principal, now: float) -> list[str]:
        """The models that may answer, the one that was asked for first unless it is down."""
        table = self.models.get(call.model)
        if table is None or not call.fallbacks:
            return [call.model]
        dialect = call.endpoint.dialect
        allowed = [
            model
            for model in table.fallbacks
            if (principal.models is None or model in principal.models)
            and self._scheduler.serves(queue_name(dialect, model))
        ]
        names = [call.model, *allowed]
        return sorted(
            names, key=lambda model: self._scheduler.is_out(queue_name(dialect, model), now)
        )


def leads_on(error: CallError) -> bool:
    """Whether another model might answer what this error was given for."""
    if isinstance(error, UpstreamRejected):
        return error.exceeds_context
    return isinstance(error, _LEADING_ON) and not isinstance(error, DeadlineExceeded)
