"""Who is calling: an API key becomes a principal, or one generic refusal.

Keys are random and long, so they are kept as HMAC-SHA256 under a pepper: fast enough for every
request, where a password hash would be a way to exhaust the service. The look-up is by the
*whole* digest, never by the key or a part of either: what an attacker can learn from the time a
dictionary takes is about the digest of his own guess, which he cannot steer without the pepper.
A request without a key takes the same path as one with a wrong key, and gets the same answer.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from typing import Final, TypeAlias

import msgspec

from penstock.config.model import EVERY_TENANT
from penstock.errors import Unauthenticated

KEY_CHARACTERS_MAX: Final = 512
"""A longer credential is no key of ours: it is not even hashed."""
KNOWN_MAX: Final = 10_000
"""So many keys that have been used are found by a faster digest."""

_MESSAGE: Final = (
    "The API key is missing or not known. "
    "Send it as 'Authorization: Bearer KEY' or as 'x-api-key: KEY'."
)


class Principal(msgspec.Struct, frozen=True):
    """What a key may do. A request can choose nothing of it but which tenant it is for, among
    those that the key may act for (``delegation``).
    """

    key_id: str
    tenant: str
    class_default: str
    ceiling: str
    models: frozenset[str] | None = None  # None: all
    chains: frozenset[str] | None = None  # None: all
    admin: bool = False
    acts_for: frozenset[str] = frozenset()  # tenants that a request may name; "*": all
    is_delegated: bool = False  # ``tenant`` is not the key's own, but the one that was named
    internal: bool = False  # the key that our own chain workers use
    expires_at: float | None = None  # Unix seconds


PrincipalOf: TypeAlias = Callable[[str, str], Principal | None]
"""Finds a principal as ``Authenticator.by_id`` does."""


def digest(key: str, pepper: bytes) -> str:
    """HMAC-SHA256 of a key under the pepper, as 64 hexadecimal characters."""
    return hmac.digest(pepper, key.encode("utf-8", "surrogatepass"), "sha256").hex()


class Authenticator:
    """The known keys: digests with the principal of each.

    Made anew on every reload of the configuration; nothing in it changes. ``wall`` gives
    Unix time: a key that has expired is known no more. Where a key has two secrets, during a
    rotation, its present one stands last. ``tenants`` are known, too, beside those that keys name.
    ``mark`` is this one's own: whoever remembers what it said keeps that, and not all keys.
    """

    def __init__(
        self,
        principals: Mapping[str, Principal],
        pepper: bytes,
        wall: Callable[[], float] = time.time,
        *,
        tenants: Collection[str] = (),
    ) -> None:
        self.mark = object()
        self._by_digest = dict(principals)
        self._by_id = {principal.key_id: principal for principal in principals.values()}
        others = [one for one in principals.values() if not one.internal]
        named = {one.tenant for one in others}.union(*(one.acts_for for one in others))
        self.tenants = frozenset(named.union(tenants) - {EVERY_TENANT})
        self._pepper = pepper
        self._wall = wall
        self._known: dict[bytes, Principal] = {}
        self._known_key = secrets.token_bytes(32)

    def principal(self, headers: Mapping[str, str]) -> Principal:
        """The principal of the request's key. ``headers`` have lower-case names.

        Raises Unauthenticated, with the same message whatever was wrong.
        """
        credential = _credential(headers)
        # HMAC is five times the cost; what is kept here is of this process alone.
        short = hashlib.blake2b(
            credential.encode("utf-8", "surrogatepass"), digest_size=32, key=self._known_key
        ).digest()
        found = self._known.get(short)
        if found is None:
            found = self._by_digest.get(digest(credential, self._pepper))
            if found is not None and len(self._known) < KNOWN_MAX:
                self._known[short] = found
        if found is None or self.has_expired(found):
            raise Unauthenticated(_MESSAGE)
        return found

    def by_id(self, key_id: str, tenant: str) -> Principal | None:
        """The principal of that key id in the name of a tenant.

        None when there is none any more, it has expired, or may not act for that tenant.
        """
        found = self._by_id.get(key_id)
        if found is None or self.has_expired(found):
            return None
        return self.acting_for(found, tenant)

    def acting_for(self, principal: Principal, tenant: str) -> Principal | None:
        """The same with that tenant in place of its key's; None where it may not act for it.

        Whoever may act for all may do so for those that there are: a name that nobody has would
        have a share of its own, and no limits and no budget.
        """
        if tenant == principal.tenant:
            return principal
        allowed = principal.acts_for
        if tenant in self.tenants and (tenant in allowed or EVERY_TENANT in allowed):
            return msgspec.structs.replace(principal, tenant=tenant, is_delegated=True)
        return None

    def pseudonym(self, name: str) -> str:
        """16 hexadecimal digits that tell one name from another, and nothing else of it.

        The same for as long as the pepper is.
        """
        return digest(name, self._pepper)[:16]

    def has_expired(self, principal: Principal) -> bool:
        """Whether its key's time is over."""
        return principal.expires_at is not None and self._wall() >= principal.expires_at


def _credential(headers: Mapping[str, str]) -> str:
    """The bearer token, else ``x-api-key``, else nothing (which is nobody's key)."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        token = headers.get("x-api-key", "")
    token = token.strip(" \t")
    return token if len(token) <= KEY_CHARACTERS_MAX else ""
