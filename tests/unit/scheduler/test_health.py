"""A deployment in trouble is left alone, then asked by few; an unknown limit is felt out."""

from __future__ import annotations

import math

import pytest

from penstock.scheduler.health import OUT_FAILURES, Health, Trouble


def calls(health: Health, count: int) -> None:
    health.in_flight += count


def ending(health: Health, now: float, *, well: bool = True) -> None:
    health.in_flight -= 1
    if well:
        health.accepted(now)
        health.succeeded(now)


def room(health: Health, now: float) -> int:
    """How many more may be sent now."""
    count = 0
    while health.ready_at(now) <= now and count < 1_000:
        health.in_flight += 1
        count += 1
    health.in_flight -= count
    return count


def test_each_trouble_in_a_row_doubles_the_pause_up_to_its_bound():
    health, now, pauses = Health(), 0.0, []
    for _ in range(9):
        health.overloaded(None, now)
        pauses.append(health.paused_until - now)
        now = health.paused_until
    assert [0.5, 1, 2, 4, 5, 5, 5, 5, 5] == pauses


def test_failures_of_calls_sent_before_the_pause_count_once():
    health = Health()
    calls(health, 50)
    for _ in range(50):
        health.overloaded(None, 0.0)
        ending(health, 0.0, well=False)
    assert 0.5 == health.paused_until


def test_the_pause_that_the_provider_names_is_kept():
    health = Health()
    health.overloaded(7.0, 0.0)
    assert 7.0 == health.ready_at(1.0)


def test_after_the_pause_the_number_under_way_doubles_with_each_round_then_is_free():
    health = Health()
    calls(health, 20)
    health.overloaded(None, 0.0)
    for _ in range(20):
        ending(health, 0.0, well=False)
    now, rounds = 1.0, []
    for _ in range(7):
        sent = room(health, now)
        rounds.append(sent)
        calls(health, sent)
        for _ in range(sent):
            ending(health, now)
    assert [1, 2, 4, 8, 16, 1_000, 1_000] == rounds


def test_an_unknown_limit_is_approached_by_one_call_a_round_and_left_by_a_share():
    """Against a provider that takes ten at once, about ten are under way."""
    health, now, under_way = Health(), 0.0, []
    for _ in range(300):
        now += 1.0
        calls(health, min(room(health, now), 40))
        under_way.append(health.in_flight)
        refused = max(0, health.in_flight - 10)
        for _ in range(refused):
            health.limited(now + 0.5, now)
        for number in range(health.in_flight):
            ending(health, now + 0.6, well=number >= refused)
        assert 0 == health.in_flight
    later = under_way[50:]
    assert 7 <= sum(later) / len(later) <= 10.5
    assert max(later) <= 12
    assert not math.isinf(health.ready_at(now + 10))


def failing(times: int, now: float = 0.0) -> tuple[Health, float]:
    health = Health()
    for _ in range(times):
        now = max(now, health.paused_until) + 1.0
        health.overloaded(None, now)
    return health, now


def test_five_failures_in_a_row_are_reason_enough_to_take_a_deployment_out():
    assert not failing(OUT_FAILURES - 1)[0].is_failing
    assert failing(OUT_FAILURES)[0].is_failing


def test_so_are_half_of_the_last_calls():
    health, now = Health(), 0.0
    for number in range(40):
        now = max(now, health.paused_until) + 1.0
        if number % 2:
            health.overloaded(None, now)
        else:
            health.succeeded(now)
    assert health.is_failing


def test_it_is_probed_by_one_call_after_periods_that_double():
    health, now = failing(OUT_FAILURES)
    health.take_out(Trouble.FAILING, now)
    first = health.out_until - now
    assert health.is_out(now)

    now = health.out_until
    assert not health.is_out(now)
    health.in_flight = 1
    assert health.is_out(now)

    health.take_out(Trouble.FAILING, now)
    health.in_flight = 0
    assert pytest.approx(2 * first) == health.out_until - now

    now = health.out_until
    health.succeeded(now)
    assert (None, False) == (health.trouble, health.is_out(now))


def test_being_out_keeps_no_call_that_can_go_nowhere_else():
    health, now = failing(OUT_FAILURES)
    pause = health.paused_until
    health.take_out(Trouble.KEY_REFUSED, now)
    assert (pause, True) == (health.ready_at(now), health.is_out(now))

    health.succeeded(pause)
    assert not health.is_out(pause)


def test_a_new_key_brings_a_deployment_back_at_once():
    health = Health()
    health.take_out(Trouble.KEY_REFUSED, 0.0)
    health.restore()
    assert (0.0, None) == (health.ready_at(0.0), health.trouble)


def test_an_answer_that_is_none_counts_but_holds_nobody_up():
    health = Health()
    for _ in range(OUT_FAILURES):
        assert not health.is_failing
        health.failed()
        assert 1.0 == health.ready_at(1.0)
    assert health.is_failing
