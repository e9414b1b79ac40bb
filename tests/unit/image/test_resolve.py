"""What uv cannot resolve without building ends in an error that names the way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.errors import ImageError
from penstock.image.model import Lock
from penstock.image.resolve import resolve

HINT = (
    "error: No solution found\nhint: Wheels are required for `old-one` because building from "
    "source is disabled for all packages (i.e., with `--no-build`)"
)


def refused(place: Path, words: str) -> str:
    """What is said where uv ends with these words."""
    program = place / "uv"
    program.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{words}\nEND\nexit 1\n")
    program.chmod(0o755)
    lock = Lock("pyproject.toml", "pyproject.toml", (), requirements=("old-one",), is_locked=False)
    with pytest.raises(ImageError) as caught:
        resolve(lock, "3.11", (), {"PATH": f"{place}:/usr/bin:/bin"})
    return str(caught.value)


def test_a_package_with_sources_alone_is_named_with_the_way_out(tmp_path: Path) -> None:
    message = refused(tmp_path, HINT)

    assert "no version of old-one that fits has a wheel: it must be compiled" in message
    assert "uv lock, pdm lock, poetry lock" in message


def test_other_words_of_uv_are_passed_on_without_what_steers_a_terminal(tmp_path: Path) -> None:
    message = refused(tmp_path, "error: \x1b[31mno such version of `x`")

    assert "no such version of `x`" in message
    assert "\x1b" not in message
