"""What is asked whenever a job comes or goes is answered without looking at all that wait."""

from __future__ import annotations

import pytest

from penstock.store import jobs
from penstock.store.database import DATABASE_FILE, Database


@pytest.mark.parametrize(
    ("statement", "values", "index"),
    [
        (jobs._NEXT_DUE, (0.0,), "jobs_due"),
        (jobs._CLAIMABLE, {"rank": 0, "now": 0.0, "count": 1}, "jobs_startable"),
        (jobs._GIVE_BACK, ("pending", 0.0, "me", 1), "jobs_running"),
    ],
)
def test_an_index_answers(tmp_path, statement, values, index) -> None:
    database = Database(tmp_path / DATABASE_FILE)
    with database.read() as connection:
        plan = [
            row["detail"] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)
        ]
    database.close()

    assert any(index in step for step in plan)
    assert not any(step.startswith("SCAN jobs") and "INDEX" not in step for step in plan)
