"""``penstock simulate --suite`` and its processes end together."""

from __future__ import annotations

import signal
import subprocess
import sys


def test_a_killed_suite_leaves_no_process_behind():
    """They hold its standard error: that it ends says that all of them have ended."""
    command = [sys.executable, "-m", "penstock", "simulate", "--suite", "--policy", "penstock"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as suite:
        assert suite.stderr is not None
        assert b"1/" in suite.stderr.readline()
        suite.send_signal(signal.SIGKILL)
        suite.communicate(timeout=30)

    assert suite.returncode == -signal.SIGKILL
