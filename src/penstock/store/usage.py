"""What the ledger is asked: sums by tenant, chain, model, day and so on, and calls for replay.

Every statement is written out; what varies is bound. Times are Unix seconds, a range holds its
beginning and not its end.
"""

from __future__ import annotations

import csv
import io
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias, get_args

import msgspec

Group: TypeAlias = Literal[
    "tenant", "chain", "model", "class", "day", "key", "deployment", "outcome"
]
GROUPS: Final[tuple[str, ...]] = get_args(Group)
CALL_COLUMNS: Final = (
    "at", "tenant", "class", "model", "chain", "run", "step",
    "tokens_input", "tokens_output", "tokens_output_max", "deadline_seconds",
    "wait_seconds", "upstream_seconds",
)  # fmt: skip
_SPAN: Final = re.compile(r"([0-9]{1,5})([mhd])\Z")
_SPAN_SECONDS: Final = {"m": 60, "h": 3600, "d": 86_400}

_SUMS: Final = """
    SELECT
        CASE :group_by
            WHEN 'tenant' THEN tenant
            WHEN 'chain' THEN chain
            WHEN 'model' THEN model
            WHEN 'class' THEN class
            WHEN 'day' THEN date(arrived_at, 'unixepoch')
            WHEN 'key' THEN key_id
            WHEN 'deployment' THEN deployment
            WHEN 'outcome' THEN outcome
        END AS name,
        COUNT(*) AS calls,
        SUM(outcome = 'success') AS calls_succeeded,
        SUM(tokens_input) AS tokens_input,
        SUM(tokens_input_cached) AS tokens_input_cached,
        SUM(tokens_output) AS tokens_output,
        SUM(tokens_reasoning) AS tokens_reasoning,
        SUM(COALESCE(nano_dollars, 0)) AS nano_dollars,
        SUM(nano_dollars IS NULL) AS calls_without_price,
        AVG(wait_seconds) AS wait_seconds_mean,
        MAX(wait_seconds) AS wait_seconds_max,
        AVG(upstream_seconds) AS upstream_seconds_mean
    FROM calls
    WHERE arrived_at >= :since AND arrived_at < :until
    GROUP BY name
    ORDER BY CASE :group_by WHEN 'day' THEN name END, nano_dollars DESC, calls DESC, name
"""
# A call that was never sent used nothing: what it wanted is its estimate.
_CALLS: Final = """
    SELECT
        arrived_at - :since AS at, tenant, class, model, chain, run_id AS run, step,
        CASE WHEN attempts > 0 AND tokens_input > 0
            THEN tokens_input ELSE tokens_input_estimated END AS tokens_input,
        CASE WHEN attempts > 0 AND tokens_input > 0
            THEN tokens_output ELSE tokens_output_estimated END AS tokens_output,
        tokens_output_max, deadline_seconds, wait_seconds, upstream_seconds
    FROM calls
    WHERE arrived_at >= :since AND arrived_at < :until AND model <> ''
    ORDER BY arrived_at, number
"""
_FIRST: Final = "SELECT MIN(arrived_at) FROM calls WHERE arrived_at >= :since"


class UsageSum(msgspec.Struct, frozen=True):
    """What the calls of one group used. ``dollars`` leaves out calls of unknown cost."""

    name: str
    calls: int
    calls_succeeded: int
    tokens_input: int
    tokens_input_cached: int
    tokens_output: int
    tokens_reasoning: int
    dollars: float
    calls_without_price: int
    wait_seconds_mean: float
    wait_seconds_max: float
    upstream_seconds_mean: float


def usage(
    connection: sqlite3.Connection, group_by: str, since: float, until: float
) -> list[UsageSum]:
    """The sums of each group, the dearest first; days in their order."""
    if group_by not in GROUPS:
        raise ValueError(f"there is no group {group_by!a}; there are: {', '.join(GROUPS)}")
    parameters = {"group_by": group_by, "since": since, "until": until}
    sums = []
    for row in connection.execute(_SUMS, parameters):
        fields = dict(row)
        fields["dollars"] = fields.pop("nano_dollars") / 1e9
        sums.append(UsageSum(**fields))
    return sums


def calls(connection: sqlite3.Connection, since: float, until: float) -> Iterator[Sequence[object]]:
    """Each call that became a unit, as the simulator replays it: no prompt, no key.

    ``at`` counts from the first of them.
    """
    first = connection.execute(_FIRST, {"since": since}).fetchone()[0]
    if first is not None:
        yield from map(tuple, connection.execute(_CALLS, {"since": first, "until": until}))


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """As CSV (RFC 4180) with a head. Names are identifiers, so no cell is a formula."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def sums_csv(sums: Iterable[UsageSum]) -> str:
    """Sums as CSV."""
    return csv_text(UsageSum.__struct_fields__, map(msgspec.structs.astuple, sums))


def moment(text: str, now: float) -> float:
    """A time as Unix seconds: ``2026-11-01``, ``2026-11-01T12:00``, or ``7d`` ago (m, h, d).

    Dates are UTC where they name no other zone. Raises ValueError.
    """
    if _SPAN.match(text) is not None:
        return now - span_seconds(text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            "must be a date (2026-11-01), a time (2026-11-01T12:00) or how long ago (30m, 12h, 7d)"
        ) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def span_seconds(text: str) -> int:
    """A time span, such as ``30m``, ``12h`` or ``7d``, in seconds. Raises ValueError."""
    span = _SPAN.match(text)
    if span is None:
        raise ValueError("must be a number of minutes, hours or days (30m, 12h, 7d)")
    return int(span[1]) * _SPAN_SECONDS[span[2]]
