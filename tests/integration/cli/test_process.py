"""The command line as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PENSTOCK = [sys.executable, "-m", "penstock"]


def test_a_reader_that_goes_away_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as stdout:
        ended = subprocess.run(
            [*PENSTOCK, "check-config", "--schema"],
            stdout=stdout,
            stderr=subprocess.PIPE,
            check=False,
        )

    assert (ended.returncode, ended.stderr) == (1, b"")


def test_a_bad_configuration_ends_the_process_with_2_and_no_traceback(tmp_path: Path) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text("[servr]\n")
    ended = subprocess.run(
        [*PENSTOCK, "check-config", str(file)], capture_output=True, text=True, check=False
    )

    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        f"{file}:1: servr: there is no such table; did you mean server?\n"
        "error: 1 problem in the configuration; nothing was started or changed\n"
    )


def test_a_key_goes_to_stdout_alone_so_that_a_script_can_take_it(tmp_path: Path) -> None:
    made = subprocess.run(
        [*PENSTOCK, "keys", "create", "ci", "--tenant", "t"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )

    assert made.stdout.startswith("psk_")
    assert len(made.stdout.splitlines()) == 1
