"""Which of a run's two time limits its caller is told of."""

from __future__ import annotations

import pytest

from penstock.chains.door import OVERTIME_SECONDS, _Limit


class Clock:
    """Monotonic seconds, set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("early_seconds", [-0.5, 0.0, 0.0015])
def test_the_deadline_is_what_was_reached_however_early_its_timer_rings(
    early_seconds: float,
) -> None:
    clock = Clock()
    limit = _Limit(101.0, 60.0, clock)

    assert limit.seconds_left() == 1.0

    clock.now = 101.0 - early_seconds
    assert limit.reached().code == "deadline_exceeded"


def test_the_chains_own_limit_is_what_was_reached_where_it_comes_first() -> None:
    clock = Clock()
    limit = _Limit(1000.0, 60.0, clock)

    assert limit.seconds_left() == 60.0 + OVERTIME_SECONDS
    assert limit.reached().code == "chain_timeout"


def test_each_run_of_a_call_has_what_is_left_then() -> None:
    clock = Clock()
    limit = _Limit(100.0 + 60.0 + OVERTIME_SECONDS, 60.0, clock)
    clock.now = 130.0

    assert limit.seconds_left() == 30.0 + OVERTIME_SECONDS
    assert limit.reached().code == "deadline_exceeded"


def test_without_bounds_a_run_has_all_the_time() -> None:
    assert _Limit(None, None, Clock()).seconds_left() is None
