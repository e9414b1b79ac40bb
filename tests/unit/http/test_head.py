"""What a head keeps for the next request that has the same, and what is new in each."""

from __future__ import annotations

import pytest

from penstock.http.head import BYTES_KEPT_MAX, FIELDS_KEPT_MAX, VARYING, Head


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
    ("name", "is_kept"),
    [(b"transfer-encoding", False), (b"expect", False), (b"upgrade", False), (b"accept", True)],
)
def test_a_head_that_bears_on_framing_is_read_anew_each_time(name: bytes, is_kept: bool) -> None:
    assert Head([(name, b"x")]).is_worth_keeping is is_kept


@pytest.mark.parametrize(
    "large",
    [
        Head([(b"x-long", b"x" * BYTES_KEPT_MAX)]),
        Head([(b"x" * BYTES_KEPT_MAX, b"long")]),
        Head([(b"x-short", b"x")], (b"GET", b"/" * BYTES_KEPT_MAX, "1.1")),
        Head([(b"x-short", b"x")] * (FIELDS_KEPT_MAX + 1)),
    ],
)
def test_a_large_head_is_not_kept_while_its_connection_idles(large: Head) -> None:
    assert not large.is_worth_keeping
