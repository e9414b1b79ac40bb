"""A run's identity is believed only as it was signed."""

from __future__ import annotations

import base64

from hypothesis import given
from hypothesis import strategies as st

from penstock.http.run_identity import CHARACTERS_MAX, sign, verify
from penstock.units import RunIdentity

SECRET = b"secret of this start"
IDENTITY = RunIdentity("run-1", "haiku", "alice", "acme", "standard", 12.5, 2, 99.0)

identities = st.builds(
    RunIdentity,
    run_id=st.text(max_size=40),
    chain=st.text(max_size=40),
    key_id=st.text(max_size=40),
    tenant=st.text(max_size=40),
    class_name=st.text(max_size=20),
    arrival=st.floats(0, 1e9),
    step=st.integers(0, 1000),
    deadline=st.none() | st.floats(0, 1e9),
)


@given(identities)
def test_what_was_signed_is_read_back_and_fits_a_header(identity: RunIdentity) -> None:
    text = sign(identity, SECRET)
    assert text.isascii()
    assert text.replace(".", "").replace("-", "").replace("_", "").isalnum()
    assert verify(text, SECRET) == identity


@given(st.integers(0), st.characters(codec="ascii"))
def test_one_changed_character_is_no_identity(position: int, character: str) -> None:
    text = sign(IDENTITY, SECRET)
    position %= len(text)
    changed = text[:position] + character + text[position + 1 :]
    if changed != text:
        assert verify(changed, SECRET) is None


@given(st.text(max_size=200))
def test_any_other_text_is_no_identity_and_no_error(text: str) -> None:
    assert verify(text, SECRET) is None


def test_another_secret_or_another_purpose_is_no_identity() -> None:
    """A MAC over the same text without the domain prefix does not count."""
    import hmac  # noqa: PLC0415 - what an attacker would compute

    assert verify(sign(IDENTITY, b"other"), SECRET) is None
    payload = sign(IDENTITY, SECRET).partition(".")[0]
    plain = hmac.digest(SECRET, payload.encode(), "sha256")
    forged = base64.urlsafe_b64encode(plain).rstrip(b"=").decode()
    assert verify(f"{payload}.{forged}", SECRET) is None


def test_a_text_over_the_bound_is_refused_even_when_signed() -> None:
    long = RunIdentity("r" * CHARACTERS_MAX, "c", "k", "t", "standard", 0.0)
    assert verify(sign(long, SECRET), SECRET) is None
