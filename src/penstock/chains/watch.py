"""Notices that chain code has changed, for ``penstock serve --reload`` in development.

The files are looked at once a second: that takes a few milliseconds for the size of a project,
works on every file system (also those that containers mount, which report no events), and needs
no library.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable

LOOK_SECONDS = 1.0
FILES_MAX = 20_000
SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages", "venv"})


def snapshot(directories: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Time of change (ns) and size of each Python file below, by path; at most 20,000 of them."""
    found: dict[str, tuple[int, int]] = {}
    waiting = list(directories)
    while waiting and len(found) < FILES_MAX:
        try:
            entries = list(os.scandir(waiting.pop()))
        except OSError:
            continue
        for entry in entries:
            if entry.name.startswith(".") or entry.name in SKIPPED:
                continue
            try:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif entry.name.endswith(".py"):
                    about = entry.stat()
                    found[entry.path] = (about.st_mtime_ns, about.st_size)
            except OSError:
                continue
    return found


async def changes(directories: Iterable[str]) -> AsyncIterator[list[str]]:
    """The files that changed, came or went, each time that some did and then nothing more.

    An editor or a checkout writes several files: it is waited until a look finds no new change.
    """
    watched = list(directories)
    seen = latest = await asyncio.to_thread(snapshot, watched)
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        before, latest = latest, await asyncio.to_thread(snapshot, watched)
        if latest != seen and latest == before:
            changed = sorted(
                path for path in seen.keys() | latest.keys() if seen.get(path) != latest.get(path)
            )
            seen = latest
            yield changed
