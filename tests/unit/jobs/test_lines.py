"""What a batch's files say: what is wrong with an input, and which lines are answered."""

import io
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.jobs import lines
from penstock.jobs.window import LINES_FIRST, LINES_MIN, next_window

GOOD = b'{"custom_id":"a","method":"POST","url":"/v1/embeddings","body":{"model":"m"}}'


def written(path: Path, *texts: bytes) -> Path:
    path.write_bytes(b"\n".join(texts))
    return path


@pytest.mark.parametrize(
    ("raw", "code", "custom_id"),
    [
        (b"no json", "invalid_line", None),
        (b'{"custom_id":"a"}', "invalid_line", "a"),
        (GOOD.replace(b'"a"', b'""'), "invalid_custom_id", None),
        (GOOD.replace(b"POST", b"GET"), "invalid_method", "a"),
        (GOOD.replace(b"embeddings", b"files"), "mismatched_url", "a"),
        (GOOD.replace(b'{"model":"m"}', b"[]"), "invalid_body", "a"),
        (b"\xff", "invalid_line", None),
        (b"[" * 5000, "invalid_line", None),
    ],
)
def test_a_bad_line_is_told_with_its_custom_id(raw: bytes, code: str, custom_id) -> None:
    with pytest.raises(lines.Bad) as bad:
        lines.read(raw, "/v1/embeddings")

    assert (bad.value.code, bad.value.custom_id) == (code, custom_id)


def test_a_custom_id_that_comes_twice_forbids_the_batch(tmp_path: Path) -> None:
    scan = lines.scan(written(tmp_path / "in", GOOD, b"", b"x", GOOD), 1000, 10)

    assert scan.total == 3
    assert [(one.code, one.line) for one in scan.problems] == [("duplicate_custom_id", 4)]


def test_an_empty_or_too_long_file_forbids_the_batch(tmp_path: Path) -> None:
    empty = lines.scan(written(tmp_path / "empty", b"", b" "), 1000, 10)
    long = lines.scan(written(tmp_path / "long", b"x", b"y", b"z"), 1000, 2)

    assert [one.code for one in empty.problems] == ["empty_file"]
    assert [one.code for one in long.problems] == ["too_many_lines"]


@given(st.lists(st.binary(max_size=30).filter(lambda raw: b"\n" not in raw), max_size=8))
def test_long_lines_are_passed_over_and_the_rest_keep_their_numbers(texts: list[bytes]) -> None:
    expected = [
        (number, raw if len(raw) <= 10 else None)
        for number, raw in enumerate(texts, 1)
        if raw.strip() or len(raw) > 10
    ]
    file = io.BytesIO(b"\n".join(texts))
    found = [
        (number, None if raw is None else raw.rstrip(b"\n"))
        for number, raw in lines.numbered(file, 10)
    ]

    assert [number for number, _ in found] == [number for number, _ in expected]
    for (_, raw), (_, want) in zip(found, expected, strict=True):
        assert (raw is None) == (want is None)


def test_answers_are_found_again_and_a_torn_one_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "out"
    whole = [
        lines.answer("batch_00112233", number, "c", response={"body": msgspec.Raw(b"{}")})
        for number in (3, 1)
    ]
    lines.append(path, whole)
    with path.open("ab") as file:
        file.write(whole[0][:-5])

    assert lines.answered(path) == [3, 1]
    assert path.read_bytes() == b"".join(whole)
    assert lines.answered(tmp_path / "none") == []


@given(st.lists(st.floats(0, 100), max_size=200), st.integers(1, 500))
def test_the_window_stays_within_its_bounds(waits: list[float], lines_max: int) -> None:
    window = LINES_FIRST
    for waited in waits:
        window = next_window(window, waited, lines_max)
        assert window <= max(lines_max, LINES_MIN)


def test_the_window_grows_while_nothing_waits_and_shrinks_when_lines_wait_long() -> None:
    assert next_window(16, 0.0, 100) == 17
    assert next_window(16, 1.0, 100) == 16
    assert next_window(16, 9.0, 100) == 15
    assert next_window(LINES_MIN, 9.0, 100) == LINES_MIN
