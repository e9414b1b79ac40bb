"""In whose name a call of a chain is made: the run's, for as long as the run's key may be it."""

from __future__ import annotations

import msgspec
import pytest

from penstock.errors import Unauthenticated
from penstock.gateway.who import caller_of
from penstock.http.auth import Authenticator, Principal
from penstock.http.run_identity import HEADER, sign
from penstock.units import RunIdentity

RUN_KEY = b"r" * 32
WORKERS = Principal("penstock-workers", "workers", "standard", "standard", internal=True)
HUB = Principal(
    "hub", "platform", "standard", "interactive",
    models=frozenset({"m"}), acts_for=frozenset({"team"}),
)  # fmt: skip
RUN = RunIdentity("run", "chain", "hub", "team", "batch", 0.0)


def called(run: RunIdentity, *keys: Principal) -> Principal:
    headers = {HEADER: sign(run, RUN_KEY), "openai-organization": "elsewhere"}
    authenticator = Authenticator({one.key_id: one for one in keys}, b"p")
    return caller_of(WORKERS, headers, authenticator, RUN_KEY).principal


def test_a_run_for_another_tenant_calls_in_its_name_with_the_rights_of_the_key() -> None:
    principal = called(RUN, HUB)

    assert (principal.tenant, principal.key_id, principal.models) == ("team", "hub", HUB.models)
    assert (principal.class_default, principal.ceiling) == ("batch", "batch")


def test_a_run_calls_no_more_once_its_key_is_gone_or_may_not_act_for_its_tenant() -> None:
    narrowed = msgspec.structs.replace(HUB, acts_for=frozenset({"other"}))
    for keys in ((), (narrowed,)):
        with pytest.raises(Unauthenticated, match="may not act for its tenant"):
            called(RUN, *keys)
