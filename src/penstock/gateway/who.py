"""In whose name a call is made: the key's, or that of the run whose chain makes it.

Our chain workers call with a key of their own and, for every call, the signed identity of the
run. Then the call is the run's: its tenant, its class, its place in the queue, and the rights
of the key that started it. A thread that a chain started by itself carries no identity: its
calls are the workers' own. From any other key the header means nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from penstock.errors import Forbidden, Unauthenticated
from penstock.http.auth import Authenticator, Principal
from penstock.http.run_identity import HEADER, verify
from penstock.units import RunIdentity


class Caller(msgspec.Struct, frozen=True):
    """Whose call it is, and the run that it belongs to, if there is one."""

    principal: Principal
    run: RunIdentity | None = None

    @property
    def route(self) -> str:
        """Whose calls are alike: the estimates of one chain of one tenant are corrected alone."""
        return f"{self.principal.tenant}/{self.run.chain if self.run else ''}"


def caller_of(
    principal: Principal, headers: Mapping[str, str], authenticator: Authenticator, run_key: bytes
) -> Caller:
    """Resolve the caller. Raises Unauthenticated where the run's key has been revoked since."""
    text = headers.get(HEADER)
    if not principal.internal or text is None:
        return Caller(principal)
    run = verify(text, run_key)
    if run is None:
        raise Unauthenticated("The run identity of this call is not valid.")
    started_by = authenticator.by_id(run.key_id, run.tenant)
    if started_by is None:
        raise Unauthenticated(
            "The API key that started this run has been revoked, or may not act for its tenant."
        )
    # The run may lower itself call by call, but never rise above its own class.
    principal = msgspec.structs.replace(
        started_by, class_default=run.class_name, ceiling=run.class_name
    )
    return Caller(principal, run)


def check_model(principal: Principal, model: str) -> None:
    """Raise Forbidden where the key may not call this model."""
    if principal.models is not None and model not in principal.models:
        raise Forbidden(
            "This API key may not use this model. GET /v1/models lists those that it may.",
            param="model",
            code="model_forbidden",
        )
