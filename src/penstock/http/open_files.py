"""How many files this process may have open: every caller who waits is a connection, and so one.

Systems start their services with a soft limit of 1,024, because of programs that still use
``select``, and a far higher hard one, up to which a process may raise its own. At the soft limit
the service would take no more callers while its configuration allows them four times as many.
"""

from __future__ import annotations

import resource
from typing import Final

FILES_BESIDE: Final = 512
"""The store, logs, workers, what Python opens, and callers who are told that there are too many."""


def raise_open_files(connections_max: int) -> str | None:
    """Raise the soft limit to what so many connections need, both ways together.

    What to tell the operator where the hard limit is lower; None where all is well.
    """
    needed = connections_max + FILES_BESIDE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return None
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    except (OSError, ValueError):  # some systems have a bound of their own below the hard limit
        allowed = soft
    if allowed >= needed:
        return None
    return (
        f"the system allows this process {allowed} open files, and its connections may need "
        f"{needed}: raise the limit (ulimit -n, LimitNOFILE), or lower [server] connections_max"
    )
