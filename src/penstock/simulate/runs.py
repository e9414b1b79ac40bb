"""What is asked of the providers: runs of one or several steps, and the call that each makes."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from penstock.simulate.provider_world import ProviderCall
from penstock.units import Usage


class Step(NamedTuple):
    """One LLM call of a run: what it really takes, and how long a tool runs before it."""

    tokens_input: int
    tokens_output: int
    tokens_output_max: int
    tool_seconds: float = 0.0


class Run(NamedTuple):
    """One execution of a chain; a single call is a run of one step.

    ``patience_seconds`` is how long each call may wait for its turn, None for ever.
    """

    name: str
    model: str
    tenant: str
    class_name: str
    arrival: float
    steps: Sequence[Step]
    patience_seconds: float | None = None


class Ending(StrEnum):
    """How a call ended."""

    SUCCESS = "success"
    REFUSED = "refused"
    EVICTED = "evicted"
    GAVE_UP = "gave_up"


class Call:
    """One step of one run, from the moment it is ready.

    ``tokens_input_estimated`` is what a caller takes it for; the provider knows better.
    ``accepted_at`` is when the attempt was sent that the provider took; ``site`` is where the
    last attempt went.
    """

    __slots__ = (
        "accepted_at",
        "ahead_seconds",
        "attempts",
        "cost_seconds",
        "deadline",
        "ended_at",
        "ending",
        "identity",
        "name",
        "provider_call",
        "ready_at",
        "run",
        "site",
        "step",
        "step_number",
        "tokens_input_estimated",
    )

    def __init__(self, run: Run, step_number: int, identity: int, now: float) -> None:
        step = run.steps[step_number]
        self.run = run
        self.step = step
        self.step_number = step_number
        self.identity = identity
        self.name = f"{run.name}.{step_number}"
        self.provider_call = ProviderCall(step.tokens_input, step.tokens_output_max)
        self.tokens_input_estimated = step.tokens_input
        self.ready_at = now
        self.deadline = None if run.patience_seconds is None else now + run.patience_seconds
        self.accepted_at: float | None = None
        self.ended_at: float | None = None
        self.ending: Ending | None = None
        self.attempts = 0
        self.site = 0
        self.cost_seconds = 0.0
        self.ahead_seconds = 0.0

    @property
    def usage(self) -> Usage:
        """What its answer reports."""
        return Usage(self.step.tokens_input, self.step.tokens_output)

    @property
    def is_last(self) -> bool:
        """Whether its run ends with it."""
        return self.step_number + 1 == len(self.run.steps)
