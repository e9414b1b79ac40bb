"""Output that is charged while it is produced: a drain for as long as a call answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.limits.pool import LimitsPlan, Pool
from penstock.limits.production import PACE_PRIOR, Pace, Production
from penstock.units import Amounts, LimitName, LimitReading

OTPM = LimitName.OTPM
DELAY, SPEED = 0.5, 80.0


def pool_of(otpm: float, burst_seconds: float, algorithm: str = "bucket") -> Pool:
    """A pool whose pace is known: half a second, then eighty a second."""
    plan = LimitsPlan({OTPM: otpm}, burst_seconds=burst_seconds, algorithm=algorithm)
    pool = Pool(plan, 0.0, output_is_charged_as_produced=True)
    assert pool.production is not None
    pool.production.pace.delay_seconds = DELAY
    pool.production.pace.tokens_per_second = SPEED
    return pool


def output(tokens: float) -> Amounts:
    return {OTPM: tokens}


def test_the_pace_is_learnt_from_what_answers_take():
    pace = Pace()
    for number in range(500):
        tokens = 20 + 37 * (number % 40)
        pace.learn(tokens, 0.4 + tokens / 50)
    assert 50 == pytest.approx(pace.tokens_per_second, rel=0.02)
    assert 0.3 == pytest.approx(pace.delay_seconds, abs=0.05), "less the way back"


def test_answers_of_one_length_say_how_fast_but_not_how_late():
    pace = Pace()
    for _ in range(1_000):
        pace.learn(100, 4.0)
    assert 25 == pytest.approx(pace.tokens_per_second, rel=0.05)
    assert 0 == pytest.approx(pace.delay_seconds, abs=0.3)
    assert len(PACE_PRIOR) > 1, "and something is believed from the start"


def test_answers_larger_than_the_bucket_go_as_fast_as_refill_makes_up_for_them():
    """Four answers of eighty a second under a refill of 338 drain nothing."""
    pool = pool_of(otpm=338 * 60, burst_seconds=2)
    for number in range(4):
        assert pool.fit(output(1_500), 1.0, 0.01 * number).ready_at == 0.01 * number
        pool.reserve(output(1_500), 0.01 * number)
    assert 676 == pytest.approx(pool.buckets[OTPM].level_at(15.0, 0.03), rel=0.01)


def test_a_class_that_leaves_a_reserve_begins_only_what_the_level_bears():
    pool = pool_of(otpm=100 * 60, burst_seconds=2)
    answers = 0
    while pool.fit(output(1_500), 1.0, 0.0).ready_at <= 0.0 and answers < 10:
        pool.reserve(output(1_500), 0.0)
        answers += 1
    assert 2 == answers, "the second one drains what no level bears; no third one does"
    assert pool.fit(output(1_500), 0.0, 0.0).ready_at == 0.0, (
        "urgent work begins, as it would alone"
    )


def test_a_full_bucket_is_not_believed_to_keep_what_is_produced_and_not_counted_yet():
    """The provider counts by the second: until then its bucket is full and loses its refill."""
    pool = pool_of(otpm=338 * 60, burst_seconds=2)
    for _ in range(4):
        pool.reserve(output(1_500), 0.0)
    bucket = pool.buckets[OTPM]
    bucket.advance(DELAY + 5.0)
    assert bucket.level == pytest.approx(676 - 0.5 * 4 * SPEED)


def test_what_a_call_was_charged_replaces_what_was_drained_for_it():
    pool = pool_of(otpm=3_000, burst_seconds=60)
    answer = pool.reserve(output(400), 0.0)
    bucket = pool.buckets[OTPM]
    bucket.advance(3.0)
    assert bucket.level == pytest.approx(3_000 + (50 - SPEED) * 2.5), "it was full until it began"
    pool.settle(output(400), output(150), 0.0, 3.0, answer)
    assert bucket.level == pytest.approx(3_000 + 50 * 2.5 - 150)
    assert 0 == bucket.production.drain == bucket.production.committed


def test_a_call_that_hangs_does_not_drain_for_ever():
    pool = pool_of(otpm=600, burst_seconds=60)
    pool.reserve(output(10), 0.0)
    bucket = pool.buckets[OTPM]
    bucket.advance(100.0)
    assert bucket.level < -3_000
    assert bucket.level_at(101.0, 100.0) - bucket.level == pytest.approx(10), "it only refills now"


def test_a_reading_that_is_older_than_what_was_produced_since_is_no_lower_bound():
    """Seen: 600 left of a bucket when the call was sent. Since then 640 a second were drained."""
    pool = pool_of(otpm=338 * 60, burst_seconds=2)
    for _ in range(8):
        pool.reserve(output(300), 0.0)
    bucket = pool.buckets[OTPM]
    bucket.advance(2.0)
    true = bucket.level
    for at in (2.0, 2.5):
        pool.observe(LimitReading(OTPM, remaining=600, rounding=100), sent_at=0.5, now=at)
    bucket.advance(2.0)
    assert bucket.level < true + 0.5 * 338, "the reading did not raise it to what it was"


def test_a_window_counts_what_is_produced_in_it():
    pool = pool_of(otpm=6_000, burst_seconds=60, algorithm="window")
    window = pool.buckets[OTPM]
    answer = pool.reserve(output(4_000), 50.0)
    window.advance(59.9)
    assert window.level == pytest.approx(6_000 - SPEED * 9.4)
    window.advance(70.0)
    assert window.level == pytest.approx(6_000 - SPEED * 10.0), "the next one began whole"
    pool.settle(output(4_000), output(SPEED * 19.5), 50.0, 70.0, answer)
    assert window.level == pytest.approx(6_000 - SPEED * 10.0)


@given(
    st.lists(
        st.tuples(
            st.floats(0.0, 5.0),  # seconds until the next thing happens
            st.integers(0, 3_000),  # what is expected, and which answer ends
            st.integers(0, 3_000),  # what is charged
            st.booleans(),  # begins, or ends one
        ),
        max_size=60,
    )
)
def test_whatever_happens_the_books_say_what_was_charged(things):
    """Each answer is settled once: without clipping the level is refill less what was charged."""
    pool = pool_of(otpm=60 * 50, burst_seconds=60)
    bucket = pool.buckets[OTPM]
    bucket.capacity, bucket.level = 1e9, 0.0
    now, charged, answers = 0.0, 0.0, []
    for seconds, expected, due, begins in things:
        now += seconds
        if begins or not answers:
            answers.append((expected, pool.reserve(output(expected), now)))
        else:
            reserved, answer = answers.pop(expected % len(answers))
            pool.settle(output(reserved), output(due), 0.0, now, answer)
            charged += due
    for reserved, answer in answers:
        pool.settle(output(reserved), output(0), 0.0, now, answer)
    bucket.advance(now)
    assert bucket.level == pytest.approx(50 * now - charged, abs=1e-3)
    assert 0 == bucket.production.drain == bucket.production.committed


def test_changes_of_streams_that_are_over_are_swept_out():
    production = Production()
    for number in range(10_000):
        production.end(production.begin(10.0, float(number)), float(number))
        keeps = production.begin(10.0, float(number))
        production.end(keeps, float(number))
    assert len(production._changes) <= 200
