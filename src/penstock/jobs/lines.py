"""The lines of a batch: what is asked in the input file, what is answered in the other two.

All functions here read and write files and belong into a thread, but for those on one line. An
input is never in memory as a whole: it is read twice, once to be checked, once to be done.

A line that was answered is a line of the output or error file, synced; nothing else says so.
After a crash those files are read back, and a torn last line is cut off. The number of the line
stands in the answer's own id, so that nothing has to be looked up.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

PROBLEMS_MAX: Final = 20
CUSTOM_ID_CHARACTERS_MAX: Final = 512
_ANSWER_ID: Final = re.compile(rb'\{"id":"batch_req_[0-9a-f]{8}_([0-9]{1,9})"')


class Line(msgspec.Struct):
    """One line of an input file."""

    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


class _Id(msgspec.Struct):
    custom_id: str | None = None


class BatchProblem(msgspec.Struct, frozen=True):
    """What is wrong with an input, or with one line of it (counted from 1)."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class Scan(msgspec.Struct):
    """What an input file holds: so many lines, and what forbids to begin."""

    total: int = 0
    problems: list[BatchProblem] = []


class Bad(Exception):
    """A line that cannot be asked; ``custom_id`` as far as it can be read."""

    def __init__(self, code: str, message: str, custom_id: str | None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.custom_id = custom_id


def read(raw: bytes, endpoint: str) -> Line:
    """One line. Raises Bad."""
    try:
        line = msgspec.json.decode(raw, type=Line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        message = (
            "This is no JSON object with 'custom_id', 'method' and 'url' as texts, and 'body'."
        )
        raise Bad("invalid_line", message, custom_id_of(raw)) from None
    if not 1 <= len(line.custom_id) <= CUSTOM_ID_CHARACTERS_MAX:
        message = f"'custom_id' must have 1 to {CUSTOM_ID_CHARACTERS_MAX} characters."
        raise Bad("invalid_custom_id", message, None)
    if line.method != "POST":
        raise Bad("invalid_method", "'method' must be POST.", line.custom_id)
    if line.url != endpoint:
        raise Bad("mismatched_url", "'url' must be the batch's endpoint.", line.custom_id)
    if not bytes(line.body).lstrip().startswith(b"{"):
        raise Bad("invalid_body", "'body' must be a JSON object.", line.custom_id)
    return line


def custom_id_of(raw: bytes) -> str | None:
    """The custom_id of a line that may be wrong in any other way; None where there is none."""
    try:
        found = msgspec.json.decode(raw, type=_Id).custom_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found if found is None or len(found) <= CUSTOM_ID_CHARACTERS_MAX else None


def numbered(file: BinaryIO, bytes_max: int) -> Iterator[tuple[int, bytes | None]]:
    """Each line that is not blank with its number from 1; None for one that is too long."""
    number = 0
    while True:
        raw = file.readline(bytes_max + 1)
        if not raw:
            return
        number += 1
        if len(raw) > bytes_max and not raw.endswith(b"\n"):
            while raw and not raw.endswith(b"\n"):
                raw = file.readline(bytes_max)
            yield number, None
        elif raw.strip():
            yield number, raw


def scan(path: Path, line_bytes_max: int, lines_max: int) -> Scan:
    """Check an input as a whole: that it has lines, not too many, and no custom_id twice.

    What is wrong with a single line is said in the error file, and keeps no other from running.
    """
    found = Scan(problems=[])
    seen: set[int] = set()
    with path.open("rb") as file:
        for number, raw in numbered(file, line_bytes_max):
            found.total += 1
            if found.total > lines_max:
                message = f"A batch has at most {lines_max} lines."
                found.problems.append(BatchProblem("too_many_lines", message))
                return found
            custom_id = None if raw is None else custom_id_of(raw)
            if custom_id is None:
                continue
            # 64 bits of each: a hundred thousand ids in some megabytes.
            mark = hashlib.blake2b(custom_id.encode("utf-8", "surrogatepass"), digest_size=8)
            value = int.from_bytes(mark.digest())
            if value in seen and len(found.problems) < PROBLEMS_MAX:
                message = "This custom_id stands in an earlier line."
                problem = BatchProblem("duplicate_custom_id", message, number, "custom_id")
                found.problems.append(problem)
            seen.add(value)
    if not found.total:
        found.problems.append(BatchProblem("empty_file", "The input file has no lines."))
    return found


def answered(path: Path) -> list[int]:
    """The numbers of the lines that a file of answers holds; a torn last line is cut off."""
    if not path.exists():
        return []
    numbers = []
    whole = 0
    with path.open("r+b") as file:
        for raw in file:
            match = _ANSWER_ID.match(raw)
            if not raw.endswith(b"\n") or match is None:
                break
            numbers.append(int(match[1]))
            whole += len(raw)
        file.truncate(whole)
        file.flush()
        os.fsync(file.fileno())
    return numbers


def append(path: Path, answers: list[bytes]) -> None:
    """Add answers to a file, and return when they are on the disk."""
    if not answers:
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "ab") as file:
        file.write(b"".join(answers))
        file.flush()
        os.fsync(file.fileno())


def answer(
    batch_id: str,
    number: int,
    custom_id: str | None,
    *,
    response: dict[str, Any] | None = None,
    error: dict[str, Any] | None = None,
) -> bytes:
    """One line of an output or error file."""
    document = {
        "id": f"batch_req_{batch_id[-8:]}_{number}",
        "custom_id": custom_id,
        "response": response,
        "error": error,
    }
    return msgspec.json.encode(document) + b"\n"
