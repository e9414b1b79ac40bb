"""Events are the same however the network cut them, and their bytes are the provider's."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import UpstreamInvalid
from penstock.providers.sse import (
    EVENT_BYTES_MAX,
    LINE_BYTES_MAX,
    Event,
    EventBuffer,
    read_event,
    split_events,
)

PIECES = st.sampled_from(
    [b"data: x", b"data:y", b": ping", b"event: e", b"\n", b"\r", b"\r\n", b"\n\n", b"\xc3\xa9"]
)


def events_of(chunks: list[bytes]) -> tuple[list[bytes], bytes]:
    buffer = EventBuffer()
    events: list[bytes] = []
    for chunk in chunks:
        events += split_events(buffer.take(chunk))
    return events, buffer.rest()


@given(st.lists(PIECES, max_size=20).map(b"".join), st.lists(st.integers(0, 80), max_size=8))
def test_any_cut_of_the_bytes_gives_the_same_events(stream: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    chunks = [stream[a:b] for a, b in pairwise(places)]
    whole, rest = events_of([stream])

    assert events_of(chunks) == (whole, rest)
    assert b"".join(whole) + rest == stream
    assert events_of([stream[at : at + 1] for at in range(len(stream))]) == (whole, rest)


@pytest.mark.parametrize(
    ("raw", "event"),
    [
        (b"data: a\n\n", Event("", b"a")),
        (b"data:a\r\ndata:  b\r\n\r\n", Event("", b"a\n b")),
        (b"event: error\rdata: {}\r\r", Event("error", b"{}")),
        (b": comment\n\n", Event("", None)),
        (b"id: 7\nretry: 5\ndata\n\n", Event("", b"")),
        (b"\xef\xbb\xbfdata: a\n\n", Event("", b"a")),
        (b"event: \xff\ndata: a\n\n", Event("\ufffd", b"a")),
    ],
)
def test_an_event_is_read_as_the_standard_says(raw: bytes, event: Event) -> None:
    assert read_event(raw) == event


@pytest.mark.parametrize("size", [1, 1000, 64 * 1024, 8 * 1024 * 1024])
@pytest.mark.timeout(30)  # quadratic work would take minutes
def test_a_line_or_event_over_its_cap_is_an_invalid_answer(size: int) -> None:
    for stream in (
        b"data: " + b"x" * (LINE_BYTES_MAX + 1) + b"\n\n",
        b"data: " + b"x" * (2 * LINE_BYTES_MAX),
        (b"data: " + b"x" * 1000 + b"\n") * (EVENT_BYTES_MAX // 1000) + b"\n",
    ):
        chunks = [stream[at : at + size] for at in range(0, len(stream), size)] if size > 1 else []
        with pytest.raises(UpstreamInvalid, match="more than"):
            events_of(chunks or [stream])


def test_events_of_many_megabytes_in_sum_pass() -> None:
    stream = (b"data: " + b"x" * 1000 + b"\n\n") * 6000

    assert len(events_of([stream])[0]) == 6000
