"""What a head keeps for the next request that has the same, and what is new in each."""

from __future__ import annotations

import pytest

from penstock.http.head import VARYING, Head


def test_of_several_fields_with_one_name_the_first_counts() -> None:
    head = Head([(b"x-api-key", b"first"), (b"host", b"a"), (b"x-api-key", b"second")])

    assert head.named == {"x-api-key": "first", "host": "a"}
    varying = [(b"x-request-id", b"one"), (b"x-request-id", b"two")]
    assert head.headers(varying)["x-request-id"] == "one"


def test_what_varies_is_nothing_that_decides_who_enters_where_or_how_it_is_framed() -> None:
    decides = {b"authorization", b"x-api-key", b"host", b"openai-organization", b"priority"}
    framing = {b"transfer-encoding", b"connection", b"expect", b"upgrade", b"content-encoding"}

    assert VARYING.isdisjoint(decides | framing)


def test_what_varies_is_never_kept() -> None:
    head = Head([(b"host", b"a")])

    assert head.headers([(b"content-length", b"5")]) == {"host": "a", "content-length": "5"}
    assert head.headers([]) == {"host": "a"}


@pytest.mark.parametrize(
    ("name", "is_plain"),
    [(b"transfer-encoding", False), (b"expect", False), (b"upgrade", False), (b"accept", True)],
)
def test_a_head_that_bears_on_framing_is_read_anew_each_time(name: bytes, is_plain: bool) -> None:
    assert Head([(name, b"x")]).is_plain is is_plain
