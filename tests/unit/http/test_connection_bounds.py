"""One address gets its share of the connections, and all together as many as there may be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.config.model import ServerTable
from penstock.errors import CallError
from penstock.http.connection_bounds import TOLD_MAX, Bound, ConnectionBounds, counted_address

TABLE = ServerTable(connections_max=8, connections_per_address_max=3)


class Crowd:
    """Connections that come and go, and what was refused of them."""

    def __init__(self) -> None:
        self.refused: list[Bound] = []
        self.bounds = ConnectionBounds(self.refused.append)

    def come(self, address: str | None, table: ServerTable = TABLE) -> tuple[object, int | None]:
        """The caller, and the status that it was refused with; 0 where it was cut."""
        caller = object()
        entry = self.bounds.enter(caller, address, table)
        return caller, entry.status if isinstance(entry, CallError) else 0 if entry else None


def test_an_address_gets_no_more_than_its_bound_and_others_get_in() -> None:
    crowd = Crowd()

    assert [crowd.come("192.0.2.1")[1] for _ in range(5)] == [None] * 3 + [429] * 2
    assert crowd.come("192.0.2.2")[1] is None
    assert crowd.refused == ["address"] * 2


def test_over_all_that_there_may_be_everybody_is_refused() -> None:
    crowd = Crowd()

    assert [crowd.come(None)[1] for _ in range(10)] == [None] * 8 + [503] * 2
    assert crowd.come("192.0.2.2")[1] == 503
    assert crowd.refused == ["all"] * 3


def test_who_leaves_makes_room_and_who_was_refused_takes_none() -> None:
    crowd = Crowd()
    first, _ = crowd.come("192.0.2.1")
    for _ in range(20):
        crowd.come("192.0.2.1")

    crowd.bounds.leave(first)

    assert [crowd.come("192.0.2.1")[1] for _ in range(2)] == [None, 429]
    assert [crowd.come(None)[1] for _ in range(6)] == [None] * 5 + [503]


def test_one_address_gets_half_where_nothing_is_said_and_one_at_least() -> None:
    for connections_max, expected in ((8, 4), (1, 1)):
        crowd, table = Crowd(), ServerTable(connections_max=connections_max)
        taken = [crowd.come("192.0.2.1", table)[1] for _ in range(8)]

        assert taken.count(None) == expected


def test_of_very_many_over_a_bound_the_rest_are_cut() -> None:
    crowd = Crowd()

    taken = [crowd.come("192.0.2.1")[1] for _ in range(3 + TOLD_MAX + 2)]

    assert taken == [None] * 3 + [429] * TOLD_MAX + [0] * 2


def test_a_refusal_names_the_number_the_setting_and_when_to_come_back() -> None:
    crowd = Crowd()
    for _ in range(3):
        crowd.come("192.0.2.1")
    entry = crowd.bounds.enter(object(), "192.0.2.1", TABLE)

    assert isinstance(entry, CallError)
    assert "3 open connections" in entry.message
    assert "connections_per_address_max" in entry.message
    assert entry.code == "too_many_connections"
    assert entry.retry_after_seconds


@given(st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.booleans()), max_size=60))
def test_whatever_comes_and_goes_the_counts_are_those_of_who_is_there(steps) -> None:
    crowd = Crowd()
    here: list[tuple[object, str | None]] = []
    for address, leaves in steps:
        if leaves and here:
            crowd.bounds.leave(here.pop(0)[0])
        caller, status = crowd.come(address)
        of_address = sum(1 for _, one in here if one == address)
        is_over = address is not None and of_address >= 3
        assert status == (429 if is_over else 503 if len(here) >= 8 else None)
        if status is None:
            here.append((caller, address))
        else:
            crowd.bounds.leave(caller)


@pytest.mark.parametrize(
    ("caller", "own", "counted"),
    [
        (("192.0.2.1", 5000), ("192.0.2.9", 80), "192.0.2.1"),
        (("::ffff:192.0.2.1", 5000, 0, 0), ("::ffff:192.0.2.9", 80, 0, 0), "192.0.2.1"),
        (("2001:db8:1:2:3::4", 1, 0, 0), ("2001:db8::9", 80, 0, 0), "2001:db8:1:2::/64"),
        (("2001:db8:1:2:ffff::", 1, 0, 0), ("2001:db8::9", 80, 0, 0), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 1, 0, 2), ("fe80::2%eth0", 80, 0, 2), "fe80::/64%2"),
        (("fe80::1%eth1", 1, 0, 3), ("fe80::2%eth1", 80, 0, 3), "fe80::/64%3"),
        (("fe80::2%eth0", 1, 0, 2), ("fe80::2%eth0", 80, 0, 2), None),
        (("192.0.2.9", 5000), ("192.0.2.9", 80), None),
        (("127.0.0.2", 5000), ("127.0.0.1", 80), None),
        (("::ffff:127.0.0.1", 1, 0, 0), ("::ffff:127.0.0.9", 80, 0, 0), None),
        (("::1", 5000, 0, 0), ("::1", 80, 0, 0), None),
        ("", "/run/penstock.sock", None),
        (None, None, None),
    ],
)
def test_what_comes_from_this_machine_is_not_counted(caller, own, counted) -> None:
    assert counted_address(caller, own) == counted
