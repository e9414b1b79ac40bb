"""Events and comments are framed so that any reader gets back what was put in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.http.sse import comment, event


def test_an_event_with_and_without_a_name() -> None:
    assert event(None, b"[DONE]") == b"data: [DONE]\n\n"
    assert event("error", b"{}") == b"event: error\ndata: {}\n\n"


@given(st.none() | st.from_regex(r"[a-z_.]{1,20}\Z"), st.binary(max_size=200))
def test_the_data_comes_back_line_by_line(name: str | None, data: bytes) -> None:
    """Read as the standard says: data lines joined by a line feed, one empty line ends."""
    lines = event(name, data).split(b"\n")
    assert lines[-2:] == [b"", b""]
    assert all(lines[:-2])
    got = b"\n".join(line.removeprefix(b"data: ") for line in lines[:-2] if line[:5] == b"data:")
    assert got == data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=100))
def test_a_comment_is_one_line_whatever_is_in_it(text: str) -> None:
    framed = comment(text)
    assert framed.startswith(b": ")
    assert framed.endswith(b"\n\n")
    assert not set(framed[:-2]) & set(b"\r\n")
