"""What a rule finds in a Dockerfile, and the edits that mend it: values, applied in one place."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import StrEnum

import msgspec

from penstock.errors import ImageError


class Severity(StrEnum):
    """How much it matters: the words that SARIF and annotations use."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Edit(msgspec.Struct, frozen=True, order=True):
    """Replace the text from ``start`` to ``stop``."""

    start: int
    stop: int
    replacement: str


class Finding(msgspec.Struct, frozen=True):
    """One thing found. ``edits`` mend it; where it has none, ``message`` says what to do."""

    rule: str
    severity: Severity
    line: int
    message: str
    edits: tuple[Edit, ...] = ()


def apply(text: str, edits: Iterable[Edit]) -> str:
    """``text`` with the edits; one that overlaps an earlier one is refused."""
    parts: list[str] = []
    place = 0
    for edit in sorted(set(edits)):
        if edit.start < place:
            raise ImageError("two of the changes touch the same words; make one of them by hand")
        parts += [text[place : edit.start], edit.replacement]
        place = edit.stop
    return "".join([*parts, text[place:]])


def difference(before: str, after: str, name: str) -> str:
    """A unified diff, as ``patch`` and ``git apply`` take it; line ends as they are."""
    lines = difflib.unified_diff(_lines(before), _lines(after), f"a/{name}", f"b/{name}")
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )


def _lines(text: str) -> list[str]:
    lines = text.split("\n")
    return [f"{line}\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
