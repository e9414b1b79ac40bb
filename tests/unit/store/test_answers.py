"""Kept answers: the same rules in memory and in the store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.store.answers import (
    OVERHEAD_BYTES,
    Answers,
    AnswersInMemory,
    AnswersInStore,
    Bounds,
    KeptAnswer,
)
from penstock.store.database import DATABASE_FILE
from penstock.store.reader import Reader
from penstock.store.writer import Writer

BOUNDS = Bounds(age_seconds_max=60.0, bytes_max=3 * (OVERHEAD_BYTES + 100))


@pytest.fixture(params=["memory", "store"])
def answers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Answers]:
    """Both kinds."""
    if request.param == "memory":
        yield AnswersInMemory(BOUNDS)
        return
    file = tmp_path / DATABASE_FILE
    writer, reader = Writer(file), Reader(file)
    yield AnswersInStore(writer, reader, BOUNDS, lambda: 0.0)
    writer.close()
    reader.close()


def answer(name: bytes, kept_at: float = 0.0, size: int = 100, *, stream: bool = False):
    return KeptAnswer(name * size, stream, kept_at, name)


def found(answers: Answers, name: bytes, now: float = 1.0) -> KeptAnswer | None:
    return asyncio.run(answers.find(name, now))


def keep(answers: Answers, kept: KeptAnswer) -> None:
    asyncio.run(answers.keep(kept.asked, kept))


def test_an_answer_comes_back_as_it_was(answers: Answers) -> None:
    keep(answers, answer(b"a", stream=True))
    assert answer(b"a", stream=True) == found(answers, b"a")
    assert found(answers, b"b") is None


def test_an_answer_that_is_too_old_is_none(answers: Answers) -> None:
    keep(answers, answer(b"a", kept_at=10.0))
    assert found(answers, b"a", 69.9) is not None
    assert found(answers, b"a", 70.0) is None


def test_the_oldest_give_way_where_there_is_no_room(answers: Answers) -> None:
    for number, name in enumerate((b"a", b"b", b"c", b"d")):
        keep(answers, answer(name, kept_at=number / 10))
    assert [None, True, True, True] == [
        found(answers, name) and True for name in (b"a", b"b", b"c", b"d")
    ]


def test_one_that_is_larger_than_all_room_is_not_kept(answers: Answers) -> None:
    keep(answers, answer(b"a", size=10_000))
    assert found(answers, b"a") is None


def test_a_newer_answer_takes_the_place_of_the_one_before(answers: Answers) -> None:
    for kept_at in (0.0, 0.5):
        for name in (b"a", b"b", b"c"):
            keep(answers, answer(name, kept_at=kept_at))
    assert [0.5] * 3 == [found(answers, name).kept_at for name in (b"a", b"b", b"c")]
