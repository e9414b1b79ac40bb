"""The data that all rooms speak of: limits by name, estimates, usage, units, runs, outcomes.

Everything here is plain data without behaviour beyond arithmetic on itself, so that a
scheduler in another process or language can be handed the same values as JSON. Times are
seconds of one monotonic clock whose zero nobody knows; durations end in ``_seconds``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, TypeAlias

import msgspec


class LimitName(StrEnum):
    """One limit of one dimension over one period, under the name the providers use."""

    RPM = "rpm"
    TPM = "tpm"
    ITPM = "itpm"
    OTPM = "otpm"
    RPD = "rpd"
    TPD = "tpd"
    CONCURRENCY = "concurrency"


RPM, TPM, ITPM, OTPM, RPD, TPD, CONCURRENCY = LimitName
"""Its members, for the paths of every call: to find one in its class takes fifteen times as long
(0.2 us in CPython 3.11)."""

PERIOD_SECONDS: dict[LimitName, float] = {
    LimitName.RPM: 60.0,
    LimitName.TPM: 60.0,
    LimitName.ITPM: 60.0,
    LimitName.OTPM: 60.0,
    LimitName.RPD: 86_400.0,
    LimitName.TPD: 86_400.0,
}
"""The period each rate limit is stated over; concurrency has none."""

Amounts: TypeAlias = dict[LimitName, float]
"""How much of each limit something takes: requests, tokens, or slots."""


class Estimate(msgspec.Struct, frozen=True, gc=False):
    """What a unit is expected to use, before it is sent.

    ``tokens_output_max`` is the caller's ``max_tokens``: some providers charge it on
    admission, whatever is produced. None means that the caller set none.
    """

    tokens_input: int
    tokens_output: int
    tokens_output_max: int | None = None


class Usage(msgspec.Struct, frozen=True, gc=False):
    """What a call used, as its provider reported it (or as counted where it reported nothing).

    ``tokens_input`` holds every prompt token, the cached ones too;
    ``tokens_input_cached`` is the part of them read from the provider's prompt cache,
    ``tokens_input_written`` the part written into it. ``tokens_reasoning`` is part of the output.
    ``service_tier`` is the one that it was answered in; empty: that was not said.
    """

    tokens_input: int = 0
    tokens_output: int = 0
    tokens_input_cached: int = 0
    tokens_reasoning: int = 0
    tokens_input_written: int = 0
    service_tier: str = ""


class ChargeModel(msgspec.Struct, frozen=True):
    """How a provider counts a call against its token limits. Sources: each provider module.

    - ``output_at_admission``: "maximum" charges the larger of the prompt and the caller's
      ``max_tokens`` up front (OpenAI), "sum" both together (Azure); "none" charges output only
      as it is produced (Anthropic).
    - ``settles_input``: the input charge is corrected to the reported count.
    - ``cached_input_is_free``: prompt-cache reads do not count.
    - ``failed_requests_count``: a call that was refused or failed still counts as a request.
    """

    output_at_admission: Literal["maximum", "sum", "none"] = "maximum"
    settles_input: bool = False
    cached_input_is_free: bool = False
    failed_requests_count: bool = True


class RunPlace(msgspec.Struct, frozen=True, gc=False):
    """Where a unit stands in its run; it decides the order within a tenant.

    ``arrival`` is when the *run* arrived: later steps keep it, so that a run already begun
    goes before one that has not. A call outside any run is a run of its own. ``steps_total``
    is how many steps it has, where that is known; ``chain`` whose run it is.
    """

    run_id: str
    arrival: float
    step: int = 0
    chain: str = ""
    steps_total: int | None = None


class Unit(msgspec.Struct, frozen=True, gc=False):
    """One provider call which waits for its turn.

    ``deadline`` is the moment after which a grant is useless to the caller; None waits for
    as long as the caller stays. Units with the same ``affinity`` are sent to the same
    deployment where that costs nothing: their prompt is cached there. ``sub_tenant`` is one of the
    tenant's own users, by a pseudonym; empty: it named none.
    """

    unit_id: str
    model: str
    tenant: str
    class_name: str
    estimate: Estimate
    place: RunPlace
    deadline: float | None = None
    affinity: str | None = None
    sub_tenant: str = ""


class Grant(msgspec.Struct, frozen=True, gc=False):
    """Permission to send one unit now, to one deployment; carries its reservation.

    ``causes`` says what it waited for, in seconds that add up to ``wait_seconds``.
    """

    unit_id: str
    deployment: str
    reservation: Amounts
    granted_at: float
    wait_seconds: float
    attempt: int
    causes: dict[str, float] = {}


class LimitReading(msgspec.Struct, frozen=True):
    """What one answer's headers said of one limit; None where they were silent.

    ``rounding`` is the unit to which the provider rounds ``remaining``.
    """

    limit: LimitName
    capacity: float | None = None
    remaining: float | None = None
    reset_seconds: float | None = None
    rounding: float = 1.0


class RunIdentity(msgspec.Struct, frozen=True):
    """Who a chain's LLM call belongs to; travels signed from worker to gateway.

    ``arrival`` and ``deadline`` are on the front process's monotonic clock: it alone makes
    and reads them. ``job_id`` names the durable run that this is an attempt of; empty: none.
    """

    run_id: str
    chain: str
    key_id: str
    tenant: str
    class_name: str
    arrival: float
    step: int = 0
    deadline: float | None = None
    job_id: str = ""
    attempt: int = 0


class Outcome(StrEnum):
    """The closed list of endings; one metric label each. Details belong to the error."""

    SUCCESS = "success"
    REPLAYED = "replayed"
    CACHED = "cached"
    JOINED = "joined"
    INVALID = "invalid"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    REFUSED_TOO_LARGE = "refused_too_large"
    REFUSED_QUEUE_FULL = "refused_queue_full"
    REFUSED_DEADLINE = "refused_deadline"
    REFUSED_BUDGET = "refused_budget"
    REFUSED_DRAINING = "refused_draining"
    EVICTED_DEADLINE = "evicted_deadline"
    CANCELLED_WAITING = "cancelled_waiting"
    CANCELLED_SENT = "cancelled_sent"
    UPSTREAM_REJECTED = "upstream_rejected"
    UPSTREAM_RATE_LIMITED = "upstream_rate_limited"
    UPSTREAM_UNAVAILABLE = "upstream_unavailable"
    UPSTREAM_INVALID = "upstream_invalid"
    CHAIN_FAILED = "chain_failed"
    INTERNAL = "internal"


SUCCESS, CANCELLED_WAITING, CANCELLED_SENT = (
    Outcome.SUCCESS,
    Outcome.CANCELLED_WAITING,
    Outcome.CANCELLED_SENT,
)
"""Those that most calls come by, as above."""
