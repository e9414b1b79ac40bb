"""One file, several connections, several processes: nobody takes the journal from anybody."""

from __future__ import annotations

import subprocess
import sys

from penstock.store.database import DATABASE_FILE, Database

VISIT = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
connection.close()
"""


def test_another_process_that_closes_the_database_leaves_ours_its_journal(tmp_path):
    """The last to close removes the journal; who is the last is told by locks."""
    file = tmp_path / DATABASE_FILE
    first, second = Database(file), Database(file)
    subprocess.run([sys.executable, "-c", VISIT, str(file)], check=True, timeout=30)
    with first.write() as connection:
        connection.execute("CREATE TABLE written (number INTEGER)")
    journal = file.with_name(f"{file.name}-wal")

    assert journal.exists()
    second.close()
    assert journal.exists()
    first.close()
    again = Database(file)
    with again.read() as connection:
        assert connection.execute("SELECT COUNT(*) FROM written").fetchone()[0] == 0
    again.close()
