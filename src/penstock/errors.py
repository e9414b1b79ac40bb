"""Every error that a caller can meet, drawn once.

::

    PenstockError
    ├── ConfigError                    a file that cannot be served; lists every problem
    ├── StoreError                     durable state that cannot be used; nothing was changed
    ├── ImageError                     a project, lock file or index that cannot be judged
    └── CallError                      ends one call; has status, outcome, code and hint
        ├── InvalidRequest         400 the request breaks a rule
        │   ├── Unprocessable      422 well-formed, but the chain's schema refuses it
        │   ├── TooLarge           413 over a size limit
        │   └── UnsupportedMedia   415 an encoding that is not read
        ├── Unauthenticated        401 no key, or none that is known
        ├── Forbidden              403 the key may not do this
        ├── NotFound               404 no such model, chain or route
        ├── NotServed              501 part of a protocol, by name, that is not served
        ├── Refused                    not admitted to the queue, or removed from it
        │   ├── RequestTooLargeForLimit 400 can never fit the deployment's limits
        │   ├── QueueFull          429 come back in a moment
        │   ├── DeadlineUnreachable 429 would be granted too late; retrying is no use
        │   ├── BudgetExceeded     402 a hard budget of the key or its tenant
    │   └── Draining           503 the service is stopping
        ├── StoreUnavailable       503 nothing durable can be accepted
        ├── UpstreamError              the provider, seen from here
        │   ├── UpstreamRejected   4xx the provider's own refusal, passed on
        │   ├── UpstreamRateLimited 429 a rate limit that a chain's own client gave up on
        │   ├── UpstreamExhausted  429 no quota left at all: waiting does not help
        │   ├── UpstreamUnavailable 502 / 503 / 504 down, overloaded, reset or too slow
        │   ├── UpstreamInvalid    502 an answer that is none
        │   └── UpstreamAuth       502 our provider key was refused; the operator's matter
        ├── ChainFailed            500 the chain raised; the log has the rest
        │   └── WorkerLost         502 its worker process died
        └── InternalError          500 a fault of ours

``message`` is written for the caller: it names the value, the rule and the way out, never a
secret, a prompt or another tenant. How it is put into a protocol's shape: ``http/error_body``.
"""

from __future__ import annotations

from penstock.units import Outcome


class PenstockError(Exception):
    """Base of all errors that Penstock raises on purpose."""


class ConfigError(PenstockError):
    """A configuration that cannot be served; ``problems`` lists all of them at once."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class StoreError(PenstockError):
    """Durable state that cannot be used: damaged, locked, newer than this version."""


class ImageError(PenstockError):
    """A project, lock file, index or Dockerfile that ``penstock image`` cannot work with."""


class CallError(PenstockError):
    """Ends one call with a status and a code.

    ``retry_after_seconds`` says when to come back; ``should_retry`` tells SDKs that honour
    ``x-should-retry`` whether trying again can help (None leaves it to them).
    """

    status = 500
    outcome = Outcome.INTERNAL
    type = "api_error"
    code = "internal_error"
    should_retry: bool | None = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        status: int | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_seconds = retry_after_seconds
        if code is not None:
            self.code = code
        if status is not None:
            self.status = status


class InvalidRequest(CallError):
    """The request breaks a rule."""

    status = 400
    outcome = Outcome.INVALID
    type = "invalid_request_error"
    code = "invalid_request"
    should_retry = False


class Unprocessable(InvalidRequest):
    """Well-formed, but refused by the schema it is for."""

    status = 422
    code = "unprocessable"


class TooLarge(InvalidRequest):
    """Over a size limit."""

    status = 413
    code = "request_too_large"


class UnsupportedMedia(InvalidRequest):
    """An encoding or media type that is not read."""

    status = 415
    code = "unsupported_media_type"


class Unauthenticated(CallError):
    """No key, or none that is known: one generic message for all cases."""

    status = 401
    outcome = Outcome.UNAUTHENTICATED
    type = "authentication_error"
    code = "invalid_api_key"
    should_retry = False


class Forbidden(CallError):
    """The key is known, and may not do this."""

    status = 403
    outcome = Outcome.FORBIDDEN
    type = "permission_error"
    code = "forbidden"
    should_retry = False


class NotFound(CallError):
    """No such model, chain or route."""

    status = 404
    outcome = Outcome.INVALID
    type = "not_found_error"
    code = "not_found"
    should_retry = False


class NotServed(CallError):
    """A part of a protocol that is known by name and not served."""

    status = 501
    outcome = Outcome.INVALID
    type = "not_served_error"
    code = "not_served"
    should_retry = False


class Refused(CallError):
    """Not admitted to the queue, or removed from it before it was sent."""

    status = 429
    type = "rate_limit_error"


class RequestTooLargeForLimit(Refused):
    """Larger than a limit's burst capacity: it could wait for ever."""

    status = 400
    outcome = Outcome.REFUSED_TOO_LARGE
    type = "invalid_request_error"
    code = "request_exceeds_limit"
    should_retry = False


class QueueFull(Refused):
    """The queue is at its bound; ``retry_after_seconds`` is computed from it."""

    outcome = Outcome.REFUSED_QUEUE_FULL
    code = "queue_full"
    should_retry = True


class DeadlineUnreachable(Refused):
    """Would be, or was, granted too late for its caller; the way out is a later deadline."""

    outcome = Outcome.REFUSED_DEADLINE
    code = "deadline_unreachable"
    should_retry = False

    def __init__(self, message: str, *, eta_seconds: float | None = None) -> None:
        super().__init__(message)
        self.eta_seconds = eta_seconds


class DeadlineExceeded(DeadlineUnreachable):
    """Admitted, but its deadline passed while it waited."""

    outcome = Outcome.EVICTED_DEADLINE
    code = "deadline_exceeded"


class BudgetExceeded(Refused):
    """A hard budget is used up until ``resets_at`` (Unix seconds)."""

    status = 402
    outcome = Outcome.REFUSED_BUDGET
    type = "insufficient_quota"
    code = "insufficient_quota"
    should_retry = False

    def __init__(self, message: str, *, resets_at: float | None = None) -> None:
        super().__init__(message)
        self.resets_at = resets_at


class Draining(Refused):
    """The service is stopping and takes no new work."""

    status = 503
    outcome = Outcome.REFUSED_DRAINING
    type = "api_error"
    code = "draining"
    should_retry = True


class StoreUnavailable(CallError):
    """Durable state cannot be used at the moment, so nothing durable is accepted."""

    status = 503
    code = "store_unavailable"
    should_retry = True


class UpstreamError(CallError):
    """The provider failed or refused, as seen from here."""

    status = 502
    outcome = Outcome.UPSTREAM_UNAVAILABLE
    type = "upstream_error"
    code = "upstream_error"


class UpstreamRejected(UpstreamError):
    """The provider's own refusal; ``body`` is passed on as it came, where it is JSON.

    ``event`` is the same as it came inside a stream; ``exceeds_context`` says that the call was
    too long for this model.
    """

    outcome = Outcome.UPSTREAM_REJECTED
    should_retry = False

    def __init__(
        self,
        status: int,
        body: bytes | None,
        *,
        exceeds_context: bool = False,
        event: bytes = b"",
    ) -> None:
        super().__init__(
            f"The provider refused this call with status {status}, and said nothing that can be "
            "passed on. What it refuses is in the call: change it, or ask for another model.",
            status=status,
        )
        self.body = body
        self.exceeds_context = exceeds_context
        self.event = event


class UpstreamRateLimited(UpstreamError):
    """A provider's rate limit that reached the caller: from a chain that calls past the gateway."""

    status = 429
    outcome = Outcome.UPSTREAM_RATE_LIMITED
    type = "rate_limit_error"
    code = "upstream_rate_limited"


class UpstreamExhausted(UpstreamError):
    """The account at the provider has no quota or credit left. The operator must act."""

    status = 429
    outcome = Outcome.UPSTREAM_RATE_LIMITED
    type = "insufficient_quota"
    code = "upstream_quota_exhausted"
    should_retry = False


class UpstreamUnavailable(UpstreamError):
    """Down, overloaded, reset, or too slow; the attempts that made sense have been made."""

    code = "upstream_unavailable"
    should_retry = False


class UpstreamInvalid(UpstreamError):
    """An answer that is none: not JSON, empty, over its caps, or broken off."""

    outcome = Outcome.UPSTREAM_INVALID
    code = "upstream_invalid"


class UpstreamOversized(UpstreamInvalid):
    """An answer over its cap. The call may be the reason: nobody else is asked for it."""


class UpstreamAuth(UpstreamError):
    """Our provider key was refused. The caller's key is fine: the operator must act."""

    code = "upstream_auth"
    should_retry = False


class ChainFailed(CallError):
    """The chain raised. Its text may hold secrets, so it is logged under the request id only."""

    outcome = Outcome.CHAIN_FAILED
    code = "chain_failed"
    should_retry = False


class WorkerLost(ChainFailed):
    """The worker process that ran the chain died or stopped answering."""

    status = 502
    code = "worker_lost"


class InternalError(CallError):
    """A fault of ours; the log has it under the request id."""
