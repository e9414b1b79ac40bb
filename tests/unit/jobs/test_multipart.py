"""Uploads are taken apart the same however they arrive, and nothing else is taken for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import InvalidRequest
from penstock.jobs.multipart import HEAD_BYTES_MAX, PARTS_MAX, Multipart, Part, boundary_of

BOUNDARY = b"b-1"


def body(parts: list[tuple[str, str | None, bytes]]) -> bytes:
    whole = b""
    for name, filename, data in parts:
        named = f'form-data; name="{name}"' + (f'; filename="{filename}"' if filename else "")
        whole += b"--" + BOUNDARY + b"\r\nContent-Disposition: " + named.encode()
        whole += b"\r\nContent-Type: text/plain\r\n\r\n" + data + b"\r\n"
    return whole + b"--" + BOUNDARY + b"--\r\n"


def taken(pieces: list[bytes]) -> tuple[list[tuple[Part, bytes]], bool]:
    reader, found = Multipart(BOUNDARY), []
    for piece in pieces:
        for told in reader.feed(piece):
            if isinstance(told, Part):
                found.append((told, b""))
            else:
                found[-1] = (found[-1][0], found[-1][1] + told)
    return found, reader.is_complete


names = st.text(alphabet="abc", min_size=1, max_size=4)
content = st.one_of(
    st.binary(max_size=40),
    st.lists(st.sampled_from([b"\r\n", b"--", b"-", b"b-1", b"\r", b"x"]), max_size=8).map(
        b"".join
    ),
).filter(lambda data: b"\r\n--b-1" not in b"\r\n" + data)
parts = st.lists(st.tuples(names, st.one_of(st.none(), names), content), max_size=5)


@given(parts, st.lists(st.integers(1, 30), max_size=40))
def test_parts_come_out_as_they_went_in_wherever_the_body_is_cut(sent, cuts: list[int]) -> None:
    whole, pieces = body(sent), []
    for cut in cuts:
        pieces.append(whole[:cut])
        whole = whole[cut:]
    found, is_complete = taken([*pieces, whole])

    assert [(part.name, part.filename, data) for part, data in found] == sent
    assert is_complete


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_found_incomplete(data: bytes) -> None:
    try:
        _, is_complete = taken([data])
    except InvalidRequest:
        return
    assert not is_complete or data.startswith(b"--b-1--")


@pytest.mark.parametrize(
    "data",
    [
        b"--b-1 \r\n",
        b"--b-1\r\nX: y\r\n\r\n",
        b"--b-1\r\nContent-Disposition: attachment; name=x\r\n\r\n",
        b"--b-1\r\n" + b"x" * (HEAD_BYTES_MAX + 1),
        body([("a", None, b"")] * (PARTS_MAX + 1)),
    ],
)
def test_what_is_malformed_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest):
        taken([data])


@pytest.mark.parametrize(
    "content_type",
    ["", "application/json", "multipart/form-data", 'multipart/form-data; boundary="a b "'],
)
def test_an_upload_names_its_boundary(content_type: str) -> None:
    with pytest.raises(InvalidRequest):
        boundary_of(content_type)


def test_a_boundary_may_be_quoted() -> None:
    assert boundary_of('multipart/form-data; boundary="b-1"') == BOUNDARY
