"""For which tenant a request is made, where its key may act for others than its own.

A key belongs to one tenant. One that carries the requests of several (a platform's backend, a
proxy in front, a chargeback by cost centre) has ``acts_for``, and names the tenant with each
request in ``OpenAI-Organization``. That is the one convention for it that stock clients have, as
``organization=`` or the environment's ``OPENAI_ORG_ID``: which of the organisations that a key
belongs to a request is for, and whose usage it is. ``OpenAI-Project`` was not taken: the clients
that have it have both, and LangChain's has the organisation alone. A header of our own would need
``default_headers`` in every client; the body's ``user`` names the tenant's own user.

Everything that is done per tenant is then done for that one: fairness, limits, budgets, the
ledger's rows, reuse of answers, jobs and files. What the key itself may do stays the key's:
class, ceiling, models, chains, its own budget.

Without ``acts_for`` the header can only name the key's own tenant; anything else is refused, for
to ignore it would count the request as somebody's who was not meant. It is the same refusal
whether there is such a tenant or not, so that no key can find out who else there is. One thing is
ignored: an id as OpenAI gives it out (``org-...``) that is no tenant's name. An SDK whose
environment has it sends it everywhere, and it speaks of an account elsewhere. (Where a tenant is
called by such an id, the refusal tells that there is one; nobody guesses OpenAI's ids.)
"""

from __future__ import annotations

import re
from typing import Final

from penstock.errors import Forbidden
from penstock.http.auth import Authenticator
from penstock.http.exchange import Exchange

HEADER: Final = "openai-organization"
"""Of requests, and of the answers to those that were made for another tenant; lower-case."""

_OPENAI_ID: Final = re.compile(r"org-[A-Za-z0-9_-]{1,64}\Z")


def delegate(exchange: Exchange, authenticator: Authenticator) -> None:
    """Go on in the name of the tenant that the request names. Raises Forbidden."""
    principal, named = exchange.principal, exchange.headers.get(HEADER)
    # A chain's own code speaks for nobody: its calls are those of the run's tenant.
    if not named or principal is None or principal.internal or named == principal.tenant:
        return
    delegated = authenticator.acting_for(principal, named)
    if delegated is not None:
        exchange.principal = delegated
        exchange.facts["tenant"] = exchange.response_headers[HEADER] = named
        return
    is_elsewhere = _OPENAI_ID.match(named) is not None and named not in authenticator.tenants
    if principal.acts_for or not is_elsewhere:
        raise Forbidden(
            "This API key may not act for the tenant that OpenAI-Organization names. Leave the "
            "header out (in the SDKs: organization, OPENAI_ORG_ID), or have the operator name "
            "the tenant in the key's acts_for.",
            param="OpenAI-Organization",
            code="tenant_forbidden",
        )
