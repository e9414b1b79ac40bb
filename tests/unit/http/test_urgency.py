"""A request can say how urgent it is, and never more so than its key allows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.config.model import ClassTable
from penstock.http.auth import Principal
from penstock.http.urgency import body_seconds, class_and_seconds, urgency
from penstock.providers.base import Endpoint, ParsedCall

CLASSES = {
    "interactive": ClassTable(rank=0, wait_seconds_max=60),
    "standard": ClassTable(rank=1, wait_seconds_max=600),
    "batch": ClassTable(rank=2, wait_seconds_max=86_400),
}
NOW = 1000.0


def principal(default: str = "standard", ceiling: str = "interactive") -> Principal:
    return Principal("key", "tenant", default, ceiling)


def class_of(headers: dict[str, str] | None = None, **said: object) -> str:
    return urgency(principal(), headers or {}, CLASSES, NOW, **said).class_name


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("u=0", "interactive"),
        ("u=2", "interactive"),
        ("u=3", "standard"),
        ("u=4", "standard"),
        ("u=5", "batch"),
        ("u=7, i", "batch"),
        ("i, u=7", "batch"),
        ("i=?0,u=7", "batch"),
        ("u=1, u=6", "batch"),  # RFC 9651: of equal keys the last counts
        ("u=6;x=1", "batch"),
        ('other="a, b"', "standard"),
        ("u=8", "standard"),
        ("u=-1", "standard"),
        ("u=0.0", "standard"),
        ("u=07", "standard"),
        ('u="0"', "standard"),
        ("u", "standard"),
        ("U=0", "standard"),
        ("u=0,", "standard"),
        ("u=0;", "standard"),
        ("u = 0", "standard"),
        ("u=0 i", "standard"),
        ("u=\u0660", "standard"),
        ("u=0" + " " * 300, "standard"),
        ("", "standard"),
    ],
)
def test_the_priority_header_is_read_strictly_or_not_at_all(header: str, expected: str) -> None:
    assert class_of({"priority": header}) == expected


@pytest.mark.parametrize(
    ("priority", "expected"),
    [(-5, "interactive"), (0, "interactive"), (1, "standard"), (2, "batch"), (2000, "batch")],
)
def test_a_bodys_priority_counts_classes_lower_first(priority: int, expected: str) -> None:
    assert class_of(priority=priority) == expected


@pytest.mark.parametrize(
    ("tier", "expected"),
    [
        ("priority", "interactive"),
        ("fast", "interactive"),
        ("default", "standard"),
        ("auto", "standard"),
        ("standard_only", "standard"),
        ("flex", "batch"),
        ("unheard-of", "standard"),
    ],
)
def test_a_service_tier_names_a_class(tier: str, expected: str) -> None:
    assert class_of(service_tier=tier) == expected


def test_the_first_way_of_saying_it_wins() -> None:
    said = {"priority": 0, "service_tier": "priority", "default": "interactive"}
    assert class_of({"priority": "u=7"}, **said) == "batch"
    assert class_of({"priority": "bad="}, priority=2, service_tier="priority") == "batch"
    assert class_of(service_tier="flex", default="interactive") == "batch"
    assert class_of(default="batch") == "batch"
    assert class_of(default="unknown") == "standard"


class_names = st.text("abcdef", min_size=1, max_size=4)


@given(
    classes=st.dictionaries(
        class_names,
        st.builds(ClassTable, rank=st.integers(0, 5), wait_seconds_max=st.floats(0.1, 1e5)),
        min_size=1,
        max_size=10,
    ),
    default=class_names,
    ceiling=class_names,
    headers=st.dictionaries(
        st.sampled_from(["priority", "prefer", "x-stainless-timeout", "x-stainless-read-timeout"]),
        st.text(max_size=20)
        | st.builds("u={}".format, st.integers(-1, 9))
        | st.builds("wait={}".format, st.integers(-1, 10**7))
        | st.floats().map(str),
    ),
    priority=st.none() | st.integers(),
    service_tier=st.none() | st.sampled_from(["priority", "fast", "flex", "auto", "x"]),
    chain_default=st.none() | class_names,
)
def test_no_input_gets_above_the_ceiling_or_past_the_longest_wait(
    classes, default, ceiling, headers, priority, service_tier, chain_default
) -> None:
    got = urgency(
        principal(default, ceiling),
        headers,
        classes,
        NOW,
        priority=priority,
        service_tier=service_tier,
        default=chain_default,
    )
    assert got.class_name in classes
    allowed = classes[ceiling].rank if ceiling in classes else max(c.rank for c in classes.values())
    assert classes[got.class_name].rank >= allowed
    assert NOW <= got.deadline <= NOW + classes[got.class_name].wait_seconds_max


@given(st.integers(1, 8))
def test_urgencies_are_spread_over_all_classes_in_order(count: int) -> None:
    classes = {f"c{rank}": ClassTable(rank=rank) for rank in range(count)}
    key = Principal("k", "t", "c0", "c0")
    got = [urgency(key, {"priority": f"u={u}"}, classes, NOW).class_name for u in range(8)]
    assert got == sorted(got)
    assert set(got) == set(classes)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 600),
        ({"prefer": "wait=30"}, 30),
        ({"prefer": "WAIT=30"}, 30),
        ({"prefer": 'wait="30"'}, 30),
        ({"prefer": "respond-async, wait=10"}, 10),
        ({"prefer": "wait=5, wait=50"}, 5),
        ({"prefer": "wait=0"}, 0),
        ({"prefer": "wait=-1"}, 600),
        ({"prefer": "wait=soon"}, 600),
        ({"prefer": "wait=99999999"}, 600),
        ({"prefer": "await=5"}, 600),
        ({"x-stainless-timeout": "20"}, 20),
        ({"x-stainless-timeout": "20.5"}, 20.5),
        ({"x-stainless-read-timeout": "15", "x-stainless-timeout": "20"}, 15),
        ({"x-stainless-read-timeout": "600", "x-stainless-timeout": "20"}, 20),
        ({"x-stainless-timeout": "600"}, 600),
        ({"x-stainless-timeout": "0"}, 600),
        ({"x-stainless-timeout": "NOT_GIVEN"}, 600),
        ({"x-stainless-timeout": "inf"}, 600),
        ({"x-stainless-timeout": "nan"}, 600),
        ({"x-stainless-timeout": "1e1"}, 600),
        ({"prefer": "wait=7", "x-stainless-timeout": "20"}, 7),
    ],
)
def test_a_deadline_is_what_stock_clients_say_of_their_patience(headers, seconds) -> None:
    assert urgency(principal(), headers, CLASSES, NOW).deadline == NOW + seconds


def call(**said: object) -> ParsedCall:
    """A body that says when it must be done."""
    return ParsedCall(Endpoint.CHAT, "m", stream=False, body=b"", fields={}, **said)


@pytest.mark.parametrize(
    ("deadline", "expected"),
    [
        ("30", 30.0),
        ("0.5", 0.5),
        ("2023-11-14T22:14:20Z", 60.0),
        ("2023-11-14T23:14:20+01:00", 60.0),
        ("2020-01-01T00:00:00Z", 0.0),
        ("2023-11-14T22:14:20", None),  # whose clock is that?
        ("next Friday", None),
        ("-5", None),
        ("nan", None),
        ("1" * 300, None),
    ],
)
def test_a_deadline_in_the_metadata_is_seconds_or_a_time_with_its_zone(deadline, expected) -> None:
    assert expected == body_seconds(call(deadline=deadline), wall=1_700_000_000.0)


def test_a_window_counts_where_there_is_no_deadline_and_both_come_after_headers() -> None:
    assert 900.0 == body_seconds(call(window_seconds=900.0), wall=0.0)
    assert 30.0 == body_seconds(call(deadline="30", window_seconds=900.0), wall=0.0)

    def seconds(headers: dict[str, str], said: float) -> float:
        return class_and_seconds(principal(), headers, CLASSES, body_seconds=said)[1]

    assert 5.0 == seconds({"prefer": "wait=5"}, 50.0)
    assert 50.0 == seconds({}, 50.0)
    assert 600.0 == seconds({}, 9e9)
