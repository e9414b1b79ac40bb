"""What the ledger is asked: sums are those of the rows, and a call goes out without its caller."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.store.ledger import CallRow, write_rows
from penstock.store.schema import STEPS
from penstock.store.usage import CALL_COLUMNS, GROUPS, calls, moment, sums_csv, usage

NAMES = st.sampled_from(["a", "b", ""])
AMOUNTS = st.integers(0, 10**9)
ROWS = st.builds(
    CallRow,
    request_id=st.just("r"),
    arrived_at=st.integers(0, 400_000).map(float),
    tenant=NAMES, key_id=NAMES, class_name=NAMES, model=NAMES, deployment=NAMES, chain=NAMES,
    tokens_input=AMOUNTS, tokens_output=AMOUNTS, tokens_input_cached=AMOUNTS,
    nano_dollars=st.none() | AMOUNTS,
    outcome=st.sampled_from(["success", "invalid"]),
)  # fmt: skip
FIELD = {"class": "class_name", "key": "key_id"}


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.row_factory = sqlite3.Row
    for step in STEPS:
        for statement in step:
            connection.execute(statement)
    yield connection
    connection.close()


def group_of(row: CallRow, group_by: str) -> str:
    if group_by == "day":
        return datetime.fromtimestamp(row.arrived_at, UTC).date().isoformat()
    return str(getattr(row, FIELD.get(group_by, group_by)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(ROWS, max_size=12),
    st.sampled_from(GROUPS),
    st.integers(0, 400_000),
    st.integers(0, 400_000),
)
def test_the_sums_of_every_group_are_those_of_its_rows_in_the_range(
    connection: sqlite3.Connection, rows: list[CallRow], group_by: str, since: int, until: int
) -> None:
    connection.execute("DELETE FROM calls")
    write_rows(connection, rows)
    counts, tokens, nano = Counter[str](), Counter[str](), Counter[str]()
    unknown = Counter[str]()
    for row in rows:
        if since <= row.arrived_at < until:
            name = group_of(row, group_by)
            counts[name] += 1
            tokens[name] += row.tokens_input + 3 * row.tokens_output + 5 * row.tokens_input_cached
            nano[name] += row.nano_dollars or 0
            unknown[name] += row.nano_dollars is None
    found = {one.name: one for one in usage(connection, group_by, since, until)}

    assert {name: one.calls for name, one in found.items()} == counts
    for name, one in found.items():
        sums = one.tokens_input + 3 * one.tokens_output + 5 * one.tokens_input_cached
        assert sums == tokens[name]
        assert one.dollars == pytest.approx(nano[name] / 1e9)
        assert one.calls_without_price == unknown[name]


def test_an_unknown_group_is_refused(connection: sqlite3.Connection) -> None:
    with pytest.raises(ValueError, match="there is no group 'prompt'"):
        usage(connection, "prompt", 0, 1)


def test_days_stand_in_their_order_and_other_groups_by_what_they_cost(
    connection: sqlite3.Connection,
) -> None:
    for day, tenant, cost in ((1, "cheap", 1), (0, "dear", 9), (2, "middle", 5)):
        at = 86_400.0 * day
        row = CallRow(request_id="r", arrived_at=at, tenant=tenant, key_id="k", nano_dollars=cost)
        write_rows(connection, [row])
    names = [one.name for one in usage(connection, "tenant", 0, 1e9)]
    days = usage(connection, "day", 0, 1e9)

    assert names == ["dear", "middle", "cheap"]
    assert [one.name for one in days] == ["1970-01-01", "1970-01-02", "1970-01-03"]
    assert sums_csv(days).splitlines()[0].startswith("name,calls,calls_succeeded,")
    assert len(sums_csv(days).splitlines()) == 4


def test_calls_for_replay_say_what_was_wanted_where_nothing_was_used(
    connection: sqlite3.Connection,
) -> None:
    common = {"request_id": "secret-id", "tenant": "web", "key_id": "secret-key", "model": "m"}
    estimate = {"tokens_input_estimated": 7, "tokens_output_estimated": 8}
    sent = CallRow(
        **common, **estimate, arrived_at=100.0, attempts=1, tokens_input=5, tokens_output=6
    )
    refused = CallRow(**common, **estimate, arrived_at=101.5, outcome="refused_queue_full")
    no_unit = CallRow(**{**common, "model": ""}, arrived_at=99.0, outcome="invalid")
    write_rows(connection, [refused, sent, no_unit])
    found = [dict(zip(CALL_COLUMNS, row, strict=True)) for row in calls(connection, 0, 1e9)]

    assert [(row["at"], row["tokens_input"], row["tokens_output"]) for row in found] == [
        (1.0, 5, 6),
        (2.5, 7, 8),
    ]
    assert "secret" not in str(found)
    assert list(calls(connection, 500, 1e9)) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7d", 1_000_000 - 7 * 86_400),
        ("30m", 1_000_000 - 1800),
        ("2026-11-01", 1_793_491_200),
        ("2026-11-01T12:00", 1_793_491_200 + 43_200),
        ("2026-11-01T12:00+02:00", 1_793_491_200 + 36_000),
    ],
)
def test_a_moment_is_a_date_or_how_long_ago(text: str, expected: float) -> None:
    assert moment(text, 1_000_000) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "7", "-7d", "7 d", "99999999d"])
def test_another_text_is_no_moment(text: str) -> None:
    with pytest.raises(ValueError, match="must be a date"):
        moment(text, 0)
