"""One limit: refill, debt, capacity that is learnt, and headers that are intervals."""

from __future__ import annotations

import pytest

from penstock.limits.bucket import Bucket
from penstock.limits.replay import ONE_WAY_SECONDS_MAX
from penstock.units import LimitName, LimitReading


def bucket(per_minute: float = 60, burst_seconds: float | None = 10) -> Bucket:
    return Bucket(per_minute, 60.0, burst_seconds, 0.0)


WAY = ONE_WAY_SECONDS_MAX
"""A full bucket begins to refill when the provider must have seen the request."""


def reading(remaining: float | None = None, capacity: float | None = None) -> LimitReading:
    return LimitReading(LimitName.RPM, capacity=capacity, remaining=remaining)


def test_it_refills_continuously_up_to_its_capacity():
    one = bucket()
    one.take(10, 0.0)
    assert one.ready_at(1, 0.0, 0.0) == pytest.approx(1.0 + WAY)
    one.advance(5.0 + WAY)
    assert one.level == pytest.approx(5.0)
    one.advance(100.0)
    assert one.level == pytest.approx(10.0)


def test_a_clock_that_steps_back_changes_nothing():
    one = bucket()
    one.take(5, 10.0)
    one.advance(2.0)
    assert one.level == 5.0
    one.advance(11.0 + WAY)
    assert one.level == pytest.approx(6.0)


def test_what_exceeds_the_capacity_waits_for_a_full_bucket_and_leaves_a_debt():
    one = bucket()
    one.take(4, 0.0)
    assert one.ready_at(30, 0.0, 0.0) == pytest.approx(4.0 + WAY)
    one.take(30, 4.0 + WAY)
    assert one.ready_at(1, 0.0, 4.0 + WAY) == pytest.approx(25.0 + 2 * WAY)


def test_an_unknown_capacity_starts_small_and_grows_to_what_the_provider_shows():
    one = bucket(600, None)
    assert one.capacity == 50.0
    one.take(1, 0.0)
    one.observe(reading(remaining=599, capacity=600), 60.0, sent_at=0.0, now=0.05)

    assert one.capacity == 598.5, "what is shown is rounded"
    assert 595 < one.level <= 599


def test_a_configured_capacity_is_a_beginning_and_grows_to_what_the_provider_shows():
    one = bucket(600, 5)
    one.observe(reading(remaining=599, capacity=600), 60.0, sent_at=0.0, now=0.05)

    assert 598.5 == one.capacity, "what is shown is rounded"


@pytest.mark.parametrize("true_seconds", [5.0, 10.0])
def test_a_capacity_believed_too_large_is_found_out_within_seconds(true_seconds):
    """Batch would else wait for a level that the provider's bucket cannot reach."""
    ours, theirs = bucket(600, 60), bucket(600, true_seconds)
    now, sent = 0.0, 0
    while now < 40.0:
        now = round(now + 0.05, 9)
        if ours.ready_at(1, 1.0, now) <= now:
            theirs.advance(now)
            if theirs.level < 1:
                ours.pause(now + 1.0, now)
                continue
            ours.take(1, now)
            theirs.take(1, now)
            sent += 1
            ours.observe(reading(remaining=theirs.level), 60.0, sent_at=now, now=now + 0.001)

    assert ours.capacity == pytest.approx(theirs.capacity, rel=0.15)
    assert sent > 0.8 * 40 * 10, "little of the refill was lost while it was learnt"


def test_a_429_while_there_was_room_takes_the_capacity_down():
    one = bucket(600, 60)
    one.pause(1.0, 0.0)
    assert 420.0 == pytest.approx(one.capacity)


def test_each_429_keeps_a_little_more_in_hand_which_fades():
    one = bucket(600, 60)
    one.take(599, 0.0)
    one.pause(0.0, 1.0)
    at_once = one.ready_at(1, 0.0, 1.0)
    assert at_once == pytest.approx(1.0 + (1 + 0.02 * 600) / 10, abs=0.2)
    for _ in range(20):
        one.pause(0.0, 1.0)
    assert one.ready_at(1, 0.0, 1.0) == pytest.approx(1.0 + (1 + 0.1 * 600) / 10, abs=0.2)

    for step in range(1, 61):
        one.take(1, step * 30.0)
        one.observe(reading(remaining=599), 60.0, sent_at=step * 30.0, now=step * 30.0 + 0.1)
    one.take(one.level, 1_900.0)
    assert one.ready_at(1, 0.0, 1_900.0) < 1_900.0 + 0.6


def test_somebody_else_s_share_is_not_taken_for_a_smaller_bucket():
    ours, theirs = bucket(600, 60), bucket(600, 60)
    for step in range(400):
        now = step * 0.1
        theirs.take(0.3, now)  # three a second of ten: hidden
        if ours.ready_at(1, 0.0, now) <= now and step % 4 == 0:
            ours.take(1, now)
            theirs.take(1, now)
            ours.observe(reading(remaining=theirs.level), 60.0, sent_at=now, now=now + 0.01)

    assert 600.0 == ours.capacity


def test_a_lower_limit_in_the_headers_is_adopted_and_a_higher_one_is_not():
    one = bucket(600)
    one.observe(reading(capacity=6_000), 60.0, sent_at=0.0, now=0.1)
    assert one.rate == 10.0
    one.observe(reading(capacity=300), 60.0, sent_at=0.0, now=0.1)
    assert (one.rate, one.source) == (5.0, "header")


def test_a_hidden_consumer_is_seen_in_remaining():
    one = bucket(600, 60)
    one.take(1, 10.0)
    one.observe(reading(remaining=200, capacity=600), 60.0, sent_at=10.0, now=10.1)

    assert one.level == pytest.approx(201, abs=2)


def test_sends_after_the_observed_one_are_not_counted_twice():
    """The answer to the first of twenty calls says nothing of the nineteen after it."""
    one = bucket(600, 60)
    for index in range(20):
        one.take(1, index * 0.1)
    one.observe(reading(remaining=599), 60.0, sent_at=0.0, now=2.0)

    # 600 - 20 + 2 s of refill at 10 a second, which caps at the capacity on the way.
    assert one.level == pytest.approx(599, abs=1.5)


def test_what_was_never_charged_is_given_back_once():
    """A refused call's own headers know of no charge, so it must leave the record of sends."""
    one = bucket(600, 60)
    for index in range(5):
        one.take(100, index * 1.0)
    one.untake(100, 3.0, 5.0)
    one.observe(reading(remaining=330), 60.0, sent_at=2.0, now=5.0)

    # 330 at 2.0, three seconds of refill, the last 100 sent at 4.0; the refused 100 count nowhere.
    assert one.level == pytest.approx(330 + 30 - 100, abs=3)


def test_an_older_answer_says_nothing_after_a_newer_one():
    one = bucket(600, 60)
    one.take(1, 0.0)
    one.take(1, 5.0)
    one.observe(reading(remaining=100), 60.0, sent_at=5.0, now=5.1)
    level = one.level
    one.observe(reading(remaining=10), 60.0, sent_at=0.0, now=6.0)

    assert one.level == pytest.approx(level + 9.0, abs=0.1)


def test_a_pause_empties_the_bucket_and_holds_until_its_end():
    one = bucket()
    one.pause(3.0, 0.0)
    assert one.ready_at(1, 0.0, 0.0) == 3.0
    assert one.level == 0.0
