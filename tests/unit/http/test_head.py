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
        Head.read([(b"x-request-id", b"x")] * (FIELDS_KEPT_MAX + 1), (b"", b"", ""))[0],
    ],
)
def test_a_large_head_is_not_kept_while_its_connection_idles(large: Head) -> None:
    assert not large.is_worth_keeping


SENT = [(b"Host", b"a"), (b"Content-Length", b"5"), (b"Accept", b"*/*"), (b"X-Request-Id", b"one")]


def test_what_varies_is_found_by_its_place_in_the_same_head() -> None:
    head, varying = Head.read(SENT, (b"", b"", ""))
    again = [*SENT]
    again[1], again[3] = (b"Content-Length", b"77"), (b"X-Request-Id", b"two")

    assert varying == [(b"content-length", b"5"), (b"x-request-id", b"one")]
    assert head.fields == [(b"host", b"a"), (b"accept", b"*/*")]
    assert head.varying_of(again) == [(b"content-length", b"77"), (b"x-request-id", b"two")]
    assert again[1] == (b"Content-Length", b"77")


@pytest.mark.parametrize(
    "other",
    [
        [],
        SENT[:3],
        [*SENT, (b"X-Request-Id", b"two")],
        [SENT[1], SENT[0], *SENT[2:]],
        [(b"Host", b"b"), *SENT[1:]],
        [(b"host", b"a"), *SENT[1:]],
        [SENT[0], (b"Content-Type", b"5"), *SENT[2:]],
        [SENT[0], (b"", b""), *SENT[2:]],
    ],
)
def test_another_head_is_read_anew(other: list[tuple[bytes, bytes]]) -> None:
    head, _ = Head.read(SENT, (b"", b"", ""))

    assert head.varying_of(other) is None
    assert head.varying_of(SENT) is not None
