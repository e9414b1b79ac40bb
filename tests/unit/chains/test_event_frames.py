"""Whole events pass, half ones wait, and the error event is noticed."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from penstock.chains.event_frames import HELD_BYTES_MAX, EventFrames

STREAM = (
    b"event: metadata\ndata: {}\n\n"
    b'event: data\ndata: "event: error\\n"\n\n'
    b": ping\n\n"
    b'event: error\ndata: {"status_code":429,"message":"m","code":"c"}\n\n'
)


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_however_it_is_cut_whole_events_come_out(cuts):
    places = [0, *sorted(cuts), len(STREAM)]
    frames, out = EventFrames(), b""
    for begin, end in itertools.pairwise(places):
        piece = frames.feed(STREAM[begin:end])
        assert not piece or piece.endswith(b"\n\n")
        out += piece

    assert STREAM == out
    assert (429, "c") == (frames.error.status_code, frames.error.code)


def test_a_half_event_is_held_back():
    frames = EventFrames()

    assert b"a\n\n" == frames.feed(b"a\n\nevent: da")
    assert b"event: data\n\n" == frames.feed(b"ta\n\n")
    assert frames.error is None


def test_an_error_in_a_datum_is_none():
    frames = EventFrames()
    frames.feed(b'event: data\ndata: "event: error\\n"\n\n')

    assert frames.error is None


def test_an_event_over_the_bound_passes_in_parts_and_is_marked():
    frames = EventFrames()
    part = b"x" * (HELD_BYTES_MAX + 1)

    assert part == frames.feed(part)
    assert frames.torn
    assert b"\n\n" == frames.feed(b"\n\n")
    assert not frames.torn
