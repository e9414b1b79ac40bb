"""Whose turn it is for a place: order by class, headroom for the more urgent, floors."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.chains.places import PlaceQueue, allowed
from penstock.config.model import ClassTable

CLASSES = [ClassTable(rank=0), ClassTable(rank=1, order="deadline"), ClassTable(rank=2)]


def taken(queue, busy, total):
    """All who get a place one after the other, while the places last."""
    found = []
    while (item := queue.pop(busy, total)) is not None:
        found.append(item)
        busy += 1
    return found


def test_classes_go_by_rank_and_within_one_by_arrival_or_deadline():
    queue = PlaceQueue(CLASSES)
    for rank, deadline, name in [
        (2, None, "batch"),
        (1, None, "patient"),
        (1, 9.0, "later"),
        (1, 5.0, "sooner"),
        (0, 9.0, "first"),
        (0, 5.0, "second"),
    ]:
        queue.push(rank, deadline, name)
    assert ["first", "second", "sooner", "later", "patient", "batch"] == taken(queue, 0, 100)
    assert 0 == len(queue)


def test_each_class_leaves_a_tenth_of_the_places_to_every_more_urgent_one():
    queue = PlaceQueue(CLASSES)
    for rank in (0, 1, 2):
        for number in range(30):
            queue.push(rank, None, (rank, number))
    assert [(0, 29)] == taken(queue, 0, 30)[-1:], "all places are the most urgent class's"
    assert [rank for rank, _ in taken(queue, 0, 30)] == [1] * 27
    assert [rank for rank, _ in taken(queue, 0, 20)] == [1] * 3 + [2] * 13
    assert [] == taken(queue, 16, 20)


def test_a_single_place_is_everybodys():
    assert [1, 1, 1] == [allowed(1, more_urgent) for more_urgent in range(3)]
    assert [200, 180, 160] == [allowed(200, more_urgent) for more_urgent in range(3)]


def test_a_class_with_a_floor_is_served_though_more_urgent_ones_never_end():
    queue = PlaceQueue([ClassTable(rank=0), ClassTable(rank=1, min_share=0.25)])
    queue.push(1, None, "batch")
    for number in range(9):
        queue.push(0, None, number)
    assert [0, 1, 2, 3, "batch", 4] == [queue.pop(0, 10) for _ in range(6)]


def test_who_withdraws_waits_no_longer_and_classes_can_change_meanwhile():
    queue = PlaceQueue(CLASSES)
    queue.push(7, None, "unknown rank")
    queue.push(2, None, "a")
    queue.push(2, None, "b")
    queue.withdraw("a")
    queue.adopt([ClassTable(rank=0), ClassTable(rank=7), ClassTable(rank=2, queue_max=1)])
    assert queue.is_full(2)
    assert not queue.is_full(7)
    assert ["b", "unknown rank"] == taken(queue, 0, 10)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.none() | st.floats(0, 10)), max_size=40),
    st.integers(1, 12),
)
def test_nobody_is_lost_or_served_twice_and_an_idle_pool_serves_anyone(arrivals, total):
    queue = PlaceQueue(CLASSES)
    for number, (rank, deadline) in enumerate(arrivals):
        queue.push(rank, deadline, number)
    served = []
    while len(queue):
        batch = taken(queue, 0, total)
        assert 0 < len(batch) <= total
        served += batch
    assert sorted(served) == list(range(len(arrivals)))
