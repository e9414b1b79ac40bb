"""Fixed windows: less urgent work is released at the end, where nothing is lost either."""

from __future__ import annotations

import pytest

from penstock.limits.window import MARGIN_SECONDS, FixedWindow, RollingWindow
from penstock.units import LimitName, LimitReading


def reading(**fields: float) -> LimitReading:
    return LimitReading(LimitName.TPM, **fields)


def test_urgent_work_may_take_the_whole_window_at_once():
    window = FixedWindow(600, 60.0, 0.0)
    assert 0.0 == window.ready_at(600, 0.0, 0.0)
    window.take(600, 0.0)
    assert 60.0 == window.ready_at(1, 0.0, 0.0)


def test_work_that_leaves_all_of_it_waits_for_the_last_tenth_and_then_takes_all_that_is_left():
    window = FixedWindow(600, 60.0, 0.0)
    window.take(200, 1.0)
    sent, now = [], 1.0
    while (now := window.ready_at(10, 1.0, now)) < 60.0:
        window.take(10, now)
        sent.append(now)

    assert 40 == len(sent), "nothing of the window is lost"
    assert 54.0 <= sent[0] <= 58.0
    assert sent[-1] <= 60.0 - MARGIN_SECONDS, "nothing arrives in the next window"


def test_within_the_release_urgent_work_still_has_ten_times_the_average_rate():
    window = FixedWindow(600, 60.0, 0.0)
    now = 1.0
    while (now := window.ready_at(10, 1.0, now)) < 57.0:
        window.take(10, now)
    left_seconds = 60.0 - MARGIN_SECONDS - 57.0
    assert window.level >= 10 * (600 / 60) * left_seconds - 10


def test_urgent_calls_that_come_together_just_before_the_end_find_room():
    """A tenth of a second before the release ends, ten times as many as come in it on average."""
    window = FixedWindow(600, 60.0, 0.0)
    now = 1.0
    while (now := window.ready_at(1, 1.0, now)) < 59.8:
        window.take(1, now)
    for _ in range(10):
        assert 59.8 == window.ready_at(1, 0.0, 59.8)
        window.take(1, 59.8)


def test_half_a_reserve_lets_half_of_the_window_go_at_any_time():
    window = FixedWindow(600, 60.0, 0.0)
    assert 0.0 == window.ready_at(300, 0.5, 0.0)
    assert window.ready_at(310, 0.5, 0.0) > 50.0


def test_the_boundary_is_learnt_from_the_reset_header():
    window = FixedWindow(600, 60.0, 0.0)
    window.take(600, 10.0)
    window.observe(reading(remaining=0, reset_seconds=5.0), 60.0, sent_at=10.0, now=10.5)

    assert window.ready_at(1, 0.0, 10.5) == pytest.approx(15.05)


def test_somebody_else_s_share_is_seen_and_our_later_sends_are_not_counted_twice():
    window = FixedWindow(600, 60.0, 0.0)
    window.take(100, 10.0)
    window.take(50, 11.0)
    window.observe(reading(remaining=300), 60.0, sent_at=10.0, now=12.0)

    assert window.level == pytest.approx(250, abs=1)


def test_what_was_given_back_is_not_counted_among_later_sends():
    window = FixedWindow(600, 60.0, 0.0)
    window.take(100, 10.0)
    window.take(50, 11.0)
    window.take(70, 12.0)
    window.untake(50, 11.0, 13.0)
    window.take(30, 14.0)
    window.observe(reading(remaining=300), 60.0, sent_at=10.0, now=15.0)

    assert window.level == pytest.approx(200, abs=1)


def test_a_window_that_was_paused_begins_anew_at_its_boundary():
    window = FixedWindow(600, 60.0, 0.0)
    window.pause(20.0, 10.0)
    assert 60.0 == window.ready_at(1, 0.0, 10.0)


def test_a_rolling_window_holds_whatever_its_boundaries_are():
    window = RollingWindow(10, 1.0)
    sent, now = [], 0.0
    for _ in range(95):
        now = window.ready_at(now)
        window.take(now)
        sent.append(now)
    for first in range(len(sent) - 10):
        assert sent[first + 10] - sent[first] >= 1.0
    assert sent[-1] == pytest.approx(9.0)
