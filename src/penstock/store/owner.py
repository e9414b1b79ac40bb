"""Who runs the jobs of a store: the one process that holds a lock on a file beside it.

The kernel gives the lock back the moment its holder dies, however it dies. So the next process
knows at once, and for certain, that nobody runs those jobs any more: there is no lease to run
out, no clock to compare, and a process that was only stopped for a while is never taken for
dead, which would run its jobs twice. What it costs: the processes must share a machine, as
those that write one SQLite file must anyway.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from pathlib import Path
from typing import Final

from penstock.store.database import DATABASE_FILE

LOCK_FILE: Final = "jobs.lock"


class Owner:
    """This process as an owner of jobs; ``name`` is its own, never used before."""

    def __init__(self, directory: Path) -> None:
        self.name = secrets.token_hex(16)
        self._file = directory / LOCK_FILE
        self._descriptor: int | None = None

    def store_exists(self) -> bool:
        """Whether there is a store that could hold jobs."""
        return (self._file.parent / DATABASE_FILE).exists()

    def acquire(self) -> bool:
        """Become the owner; False while another process is. Raises OSError."""
        if self._descriptor is None:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Give it up."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None
