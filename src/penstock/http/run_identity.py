"""The signed identity of a run: how the gateway knows which run a chain's LLM call belongs to.

A worker is handed the text at the start of a run and sends it back, in one header, with every
call to the gateway. The front process alone makes and reads it, so the form is private: the
struct as JSON, base64url, a dot, and the full HMAC-SHA256 over a domain prefix and that text.
The prefix keeps the secret from being usable for anything else that may one day be signed with
it. JSON Web Tokens were not taken: their header lets the sender name an algorithm, which is
where their holes come from, and one issuer that is its own audience needs none of it.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import Final

import msgspec

from penstock.units import RunIdentity

HEADER: Final = "penstock-run"
"""The request header that carries it, lower-case."""

CHARACTERS_MAX: Final = 4096
"""A longer text is refused before anything is computed from it."""

_DOMAIN: Final = b"penstock run identity v1\x00"
_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(RunIdentity)


def sign(identity: RunIdentity, secret: bytes) -> str:
    """The identity as header text: base64url characters and one dot."""
    payload = _encode(_ENCODER.encode(identity))
    return f"{payload}.{_encode(_mac(payload, secret))}"


def verify(text: str, secret: bytes) -> RunIdentity | None:
    """The identity that ``sign`` was given, or None for any other text."""
    if len(text) > CHARACTERS_MAX or not text.isascii():
        return None
    payload, dot, mac = text.partition(".")
    if not dot or not hmac.compare_digest(mac, _encode(_mac(payload, secret))):
        return None
    try:
        return _DECODER.decode(base64.b64decode(_padded(payload), altchars=b"-_", validate=True))
    except (binascii.Error, msgspec.DecodeError):
        return None


def _mac(payload: str, secret: bytes) -> bytes:
    return hmac.digest(secret, _DOMAIN + payload.encode("ascii"), "sha256")


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _padded(text: str) -> str:
    return text + "=" * (-len(text) % 4)
