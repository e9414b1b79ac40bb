"""The rules of jobs: what can happen, when a run is given up, who has headroom."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.jobs.states import (
    BACKOFF_SECONDS_MAX,
    TRANSITIONS,
    Happening,
    State,
    after,
    after_break,
    places_free,
)

happenings = st.lists(st.sampled_from(Happening), max_size=30)


@given(happenings)
def test_whatever_happens_what_has_ended_stays_as_it_is(history: list[Happening]) -> None:
    state = State.PENDING
    for happening in history:
        if (state, happening) in TRANSITIONS:
            assert not state.is_final
            state = after(state, happening)
        else:
            with pytest.raises(KeyError):
                after(state, happening)


@pytest.mark.parametrize("state", [state for state in State if not state.is_final])
def test_every_job_can_be_cancelled_as_long_as_it_has_not_ended(state: State) -> None:
    assert after(state, Happening.CANCELLED) is State.INTERRUPTED


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60), st.integers(1, 4))
def test_a_run_is_given_up_for_its_own_attempts_or_a_hundred_times_as_many_spent_waiting(
    history: list[tuple[bool, bool]], attempts_max: int
) -> None:
    blame, in_a_row = 0, 0.0
    for got_on, in_a_call in history:
        sequel = after_break(blame, attempts_max, got_on=got_on, in_a_call=in_a_call)
        in_a_row = 0 if got_on else in_a_row + (1 if in_a_call else 100)

        assert (sequel.happening is Happening.FAILED) == (in_a_row >= attempts_max * 100)
        assert 0 <= sequel.delay_seconds <= BACKOFF_SECONDS_MAX
        if sequel.happening is Happening.FAILED:
            return
        blame = sequel.blame


def test_runs_that_were_lost_together_share_the_blame() -> None:
    alone = after_break(0, 3, got_on=False, in_a_call=False)
    together = after_break(0, 3, got_on=False, in_a_call=False, beside=24)
    crowd = after_break(0, 3, got_on=False, in_a_call=False, beside=1000)

    assert [one.blame for one in (alone, together, crowd)] == [100, 4, 1]


def test_an_attempt_that_got_on_is_followed_at_once_and_others_ever_later() -> None:
    delays = [
        after_break(blame, 9, got_on=False, in_a_call=False).delay_seconds
        for blame in (0, 100, 200, 300)
    ]

    assert after_break(200, 9, got_on=True, in_a_call=False).delay_seconds == 0
    assert after_break(200, 9, got_on=False, in_a_call=True).delay_seconds == 0
    assert delays == [1, 2, 4, 8]


ranks = st.lists(st.integers(0, 9), min_size=1, max_size=5, unique=True)


@given(ranks, st.integers(1, 200), st.data())
def test_less_urgent_classes_alone_leave_places_to_every_more_urgent_one(
    classes: list[int], running_max: int, data: st.DataObject
) -> None:
    """Start jobs in any order, as many as may: the shares hold, and nobody is kept out alone."""
    running: dict[int, int] = {}
    for rank in data.draw(st.lists(st.sampled_from(classes), max_size=20)):
        running[rank] = running.get(rank, 0) + places_free(classes, running, running_max)[rank]

    ordered = sorted(classes)
    assert sum(running.values()) <= running_max
    for index, rank in enumerate(ordered):
        share = max(1, running_max * (len(ordered) - index) // len(ordered))
        assert sum(count for other, count in running.items() if other >= rank) <= share
    assert places_free(classes, {}, running_max)[ordered[0]] == running_max


def test_batch_alone_gets_a_third_of_the_places_of_three_classes() -> None:
    assert places_free([0, 1, 2], {}, 90) == {0: 90, 1: 60, 2: 30}
    assert places_free([0, 1, 2], {2: 30}, 90) == {0: 60, 1: 30, 2: 0}
