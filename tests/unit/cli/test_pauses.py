"""What has survived a long collection is not looked at again while the calls wait that made it."""

from __future__ import annotations

import pytest

from penstock.cli.pauses import PAUSE_SECONDS_MAX, Pauses

LONG = 2 * PAUSE_SECONDS_MAX


class Collected:
    """A collector whose collections take as long as the test says."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waiting = 0
        self.done: list[str] = []
        self.pauses = Pauses(
            lambda: self.now,
            lambda: self.waiting,
            lambda: self.done.append("freeze"),
            lambda: self.done.append("unfreeze"),
        )

    def collect(self, seconds: float, *, waiting: int, generation: int = 2) -> list[str]:
        """What came of it."""
        self.waiting = waiting
        self.done.clear()
        self.pauses("start", {"generation": generation})
        self.now += seconds
        self.pauses("stop", {"generation": generation})
        return list(self.done)


@pytest.fixture
def collected() -> Collected:
    return Collected()


def test_short_collections_change_nothing(collected) -> None:
    assert collected.collect(PAUSE_SECONDS_MAX / 2, waiting=100) == []
    assert collected.collect(PAUSE_SECONDS_MAX / 2, waiting=0) == []


def test_what_survives_a_long_one_is_frozen(collected) -> None:
    assert collected.collect(LONG, waiting=100) == ["freeze"]
    assert collected.collect(LONG, waiting=200) == ["freeze"]


def test_those_of_young_objects_do_not_count(collected) -> None:
    assert collected.collect(LONG, waiting=100, generation=1) == []


def test_it_is_looked_at_again_once_few_are_left_of_the_most_that_waited(collected) -> None:
    collected.collect(LONG, waiting=1000)
    collected.collect(LONG, waiting=200)

    assert collected.collect(0.0, waiting=101) == []
    assert collected.collect(0.0, waiting=100) == ["unfreeze"]
    assert collected.collect(0.0, waiting=100) == []


def test_what_is_large_without_any_that_wait_is_looked_at_every_other_time(collected) -> None:
    assert collected.collect(LONG, waiting=0) == ["freeze"]
    assert collected.collect(0.0, waiting=0) == ["unfreeze"]
    assert collected.collect(LONG, waiting=0) == ["freeze"]
