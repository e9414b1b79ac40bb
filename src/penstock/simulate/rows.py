"""Rows of a workload: one call each, that was really made; read from CSV or JSON.

Two sets of columns are known. A *trace* is what is published of LLM services: milliseconds, prompt
and output tokens. The *ledger* is what ``penstock usage --calls`` prints of a running service:
Unix seconds, tenants, classes, chains with their runs and steps. Neither holds a prompt. JSON is
an array of objects with the same names.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

import msgspec

from penstock.errors import ConfigError

ROWS_MAX = 2_000_000
TOKENS_MAX = 10_000_000
SECONDS_MAX = 1e10
JSON_BYTES_MAX = 256_000_000


class Row(NamedTuple):
    """One call; ``at`` in seconds from anywhere.

    ``session`` is a conversation, whose calls are taken for chains; ``run`` is a chain's execution,
    its calls in order of time. ``busy_seconds``: how long the call waited and was answered, where
    that is known. Empty and 0 stand for unknown.
    """

    at: float
    tokens_input: int
    tokens_output: int
    session: str = ""
    tenant: str = ""
    class_name: str = ""
    model: str = ""
    tokens_output_max: int = 0
    deadline_seconds: float = 0.0
    run: str = ""
    busy_seconds: float = 0.0


Line: TypeAlias = Mapping[str, str]


class _Columns(NamedTuple):
    """What a set of columns calls things. ``scale``: seconds in one of its units of time."""

    at: str
    scale: float
    tokens_input: str
    tokens_output: str
    tokens_output_max: str
    deadline: str


TRACE = _Columns("t_ms", 0.001, "prompt_tokens", "output_tokens", "max_tokens", "deadline_s")
LEDGER = _Columns(
    "at", 1.0, "tokens_input", "tokens_output", "tokens_output_max", "deadline_seconds"
)


def read_rows(path: Path) -> list[Row]:
    """The rows of a file, in order of time. Raises ConfigError with line, value and rule."""
    read = _from_json if path.suffix == ".json" else _from_csv
    try:
        rows = sorted(read(path), key=lambda row: row.at)
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from None
    if not rows:
        raise ConfigError([f"{path}: there are no rows"])
    return rows


def _from_csv(path: Path) -> Iterator[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, restval="")
        try:
            columns = _columns(f"{path}:1", reader.fieldnames or ())
            for count, line in enumerate(reader, 1):
                place = f"{path}:{reader.line_num}"
                yield _row(place, columns, line, count)
        except (UnicodeDecodeError, csv.Error) as error:
            raise ConfigError([f"{path}: this is no CSV in UTF-8: {error}"]) from None


def _from_json(path: Path) -> Iterator[Row]:
    if path.stat().st_size > JSON_BYTES_MAX:
        raise ConfigError([f"{path}: JSON is read up to {JSON_BYTES_MAX:,} bytes; give CSV"])
    try:
        lines = msgspec.json.decode(
            path.read_bytes(), type=list[dict[str, str | int | float | None]]
        )
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: this is no JSON array of flat objects: {error}"]) from None
    columns = _columns(str(path), lines[0]) if lines else LEDGER
    for count, line in enumerate(lines, 1):
        texts = {name: "" if value is None else str(value) for name, value in line.items()}
        yield _row(f"{path}: object {count}", columns, texts, count)


def _columns(place: str, names: Iterable[str]) -> _Columns:
    """The set of columns that is meant. Raises ConfigError where one is missing."""
    found = set(names)
    columns = LEDGER if LEDGER.at in found else TRACE
    for name in (columns.at, columns.tokens_input, columns.tokens_output):
        if name not in found:
            either = " or ".join(
                f"{one.at}, {one.tokens_input} and {one.tokens_output}" for one in (LEDGER, TRACE)
            )
            raise ConfigError([f"{place}: the column {name} is missing; give {either}"])
    return columns


def _row(place: str, columns: _Columns, line: Line, count: int) -> Row:
    if count > ROWS_MAX:
        raise ConfigError([f"{place}: more than {ROWS_MAX} rows; give a part of them"])
    return Row(
        at=_number(place, line, columns.at, SECONDS_MAX / columns.scale) * columns.scale,
        tokens_input=max(1, int(_number(place, line, columns.tokens_input, TOKENS_MAX))),
        tokens_output=int(_number(place, line, columns.tokens_output, TOKENS_MAX)),
        session=line.get("session") or "",
        tenant=line.get("tenant") or "",
        class_name=line.get("class") or "",
        model=line.get("model") or "",
        tokens_output_max=int(_number(place, line, columns.tokens_output_max, TOKENS_MAX)),
        deadline_seconds=_number(place, line, columns.deadline, SECONDS_MAX),
        run=line.get("run") or "",
        busy_seconds=_number(place, line, "wait_seconds", SECONDS_MAX)
        + _number(place, line, "upstream_seconds", SECONDS_MAX),
    )


def _number(place: str, line: Line, name: str, highest: float) -> float:
    text = line.get(name) or "0"
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= highest:
        raise ConfigError([f"{place}: {name} is {text[:40]!a}; a number from 0 to {highest:g}"])
    return value
