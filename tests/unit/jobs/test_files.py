"""Files at rest: what is swept away, and what stays."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from penstock.config.model import BatchesTable
from penstock.jobs.files import LEFT_SECONDS, Files, new_file_id
from penstock.store.batches import BatchStore, FileRow
from penstock.store.database import DATABASE_FILE
from penstock.store.reader import Reader
from penstock.store.writer import Writer

NOW = 1e9


def test_a_sweep_takes_what_a_crash_has_left_and_no_upload_that_is_under_way(tmp_path: Path):
    writer, reader = Writer(tmp_path / DATABASE_FILE), Reader(tmp_path / DATABASE_FILE)
    store = BatchStore(writer, reader)
    files = Files(tmp_path / "files", store, BatchesTable(), lambda: NOW)
    known, under_way, left = (new_file_id() for _ in range(3))
    for file_id in (known, under_way, left):
        files.open_new(file_id).close()
    row = FileRow(
        file_id=known,
        tenant="acme",
        filename="a",
        purpose="batch",
        bytes=0,
        created_at=0.0,
        expires_at=1e12,
    )
    store.add_file(row, None).result(10)
    long_ago = NOW - LEFT_SECONDS - 10
    for file_id, written_at in ((known, long_ago), (left, long_ago), (under_way, NOW - 10)):
        os.utime(files.path(file_id), (written_at, written_at))
    asyncio.run(files.sweep())

    assert {path.name for path in (tmp_path / "files").iterdir()} == {known, under_way}
    writer.close()
    reader.close()
