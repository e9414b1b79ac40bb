"""Reading a project's files, which may be hostile: parse only, bounded, nothing outside.

A project that is checked need not be trusted: its lock may be a link to somebody's keys, a pipe
that never ends, or as large as the disk. So a file is opened without following it anywhere but
within the project, must be a regular one, and has a bound on its bytes. Nothing is imported or
run.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Any, Final, TypeVar

from penstock.errors import ImageError

T = TypeVar("T")

FILE_BYTES_MAX: Final = 16 * 1024 * 1024
"""The largest lock files have 5 MiB. Reading TOML that is meant badly takes 1 s for each."""
NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
"""A package's name (PEP 508), with a bound."""
KEY_PARTS_MAX: Final = 16
QUOTED: Final = re.compile(r"""\"(?:[^"\\]|\\.)*\"|'[^']*'""")
SEPARATORS: Final = re.compile(r"[-_.]+")
PLAIN_MAX: Final = 120


def plain(text: object) -> str:
    """``text`` from a file, for a message: bounded, and without what steers a terminal."""
    words = ascii(str(text))[1:-1]
    return words if len(words) <= PLAIN_MAX else f"{words[:PLAIN_MAX]}…"


def canonical_name(value: object, where: str) -> str:
    """A package's name in its one spelling. Raises ``ImageError`` for what is none."""
    if not isinstance(value, str) or NAME.fullmatch(value) is None:
        raise ImageError(f"{where}: {plain(value)!r} is not a package's name")
    return SEPARATORS.sub("-", value).lower()


def read_text(path: Path, root: Path) -> str:
    """The text of a file of the project at ``root``.

    Raises ``ImageError`` for one that is not there, lies outside, is no regular file, is larger
    than 16 MiB or is not UTF-8.
    """
    name = plain(path.name)
    try:
        # Links are resolved once, here; the place found is then opened without following any.
        real = path.resolve(strict=True)
        if not real.is_relative_to(root.resolve(strict=True)):
            raise ImageError(
                f"{name} leads outside the project, where nothing is read; put a copy in its place"
            )
        handle = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (OSError, RuntimeError, ValueError) as error:
        raise ImageError(f"{name} cannot be read: {_why(error)}") from None
    with os.fdopen(handle, "rb") as file:
        state = os.fstat(handle)
        if not stat.S_ISREG(state.st_mode):
            raise ImageError(f"{name} is not a regular file")
        content = file.read(FILE_BYTES_MAX + 1)
    if len(content) > FILE_BYTES_MAX:
        raise ImageError(f"{name} has more than {FILE_BYTES_MAX >> 20} MiB, which no lock file has")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ImageError(f"{name} is not UTF-8, from byte {error.start}") from None


def read_toml(path: Path, root: Path) -> tuple[dict[str, Any], str]:
    """The tables of a TOML file of the project, and its text. Raises ``ImageError``."""
    text = read_text(path, root)
    _refuse_long_keys(text, path.name)
    try:
        return tomllib.loads(text), text
    except tomllib.TOMLDecodeError as error:
        raise ImageError(f"{plain(path.name)} is not TOML: {plain(error)}") from None
    except (RecursionError, ValueError):
        # ValueError: an integer of more digits than Python reads.
        raise ImageError(f"{plain(path.name)} is not TOML that can be read: nested too deep, or a "
                         "number without end") from None  # fmt: skip


def _refuse_long_keys(text: str, name: str) -> None:
    """Raise ``ImageError`` for a key of many parts, which costs ``tomllib`` their square.

    A key of 5,000 parts takes it 3 s, one of 100,000 an hour. Lock files have keys of 4.
    """
    for number, line in enumerate(text.splitlines(), 1):
        if line.count(".") > KEY_PARTS_MAX:
            unquoted = QUOTED.sub("", line).partition("#")[0]
            if unquoted.count(".") > KEY_PARTS_MAX:
                raise ImageError(
                    f"{plain(name)}:{number}: more than {KEY_PARTS_MAX} dots outside of quotes, "
                    "which is no line of a lock file"
                )


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "its path leads in a circle" if isinstance(error, RuntimeError) else "no such path"


class Table:
    """A table of a file, read strictly: what is there has its type, or an error names the key.

    Values that are not asked for are left alone: formats grow.
    """

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise ImageError(f"{where} is not a table")
        self.values = value
        self.where = where

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def text(self, key: str) -> str | None:
        """A text, or None where the key is not there."""
        return self._typed(key, str)

    def number(self, key: str) -> int | None:
        """A whole number of at least 0, or None."""
        value = self._typed(key, int)
        if value is not None and (isinstance(value, bool) or value < 0):
            raise ImageError(f"{self.where}: {key} is not a number of bytes")
        return value

    def flag(self, key: str) -> bool:
        """A boolean; false where the key is not there."""
        return bool(self._typed(key, bool))

    def table(self, key: str) -> Table:
        """A table; an empty one where the key is not there."""
        return Table(self.values.get(key, {}), f"{self.where}: {key}")

    def tables(self, key: str) -> list[Table]:
        """A list of tables."""
        return [
            Table(each, f"{self.where}: {key}[{place}]")
            for place, each in enumerate(self._typed(key, list) or [])
        ]

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts."""
        values = self._typed(key, list) or []
        if not all(isinstance(each, str) for each in values):
            raise ImageError(f"{self.where}: {key} is not a list of texts")
        return tuple(values)

    def items(self, key: str) -> list[tuple[str, Any]]:
        """The keys and values of a table, which may hold anything."""
        return list(self.table(key).values.items())

    def _typed(self, key: str, kind: type[T]) -> T | None:
        value = self.values.get(key)
        if value is not None and not isinstance(value, kind):
            raise ImageError(f"{self.where}: {key} is not {ARTICLES[kind]}")
        return value


ARTICLES: Final[dict[type, str]] = {
    str: "a text",
    int: "a number",
    bool: "true or false",
    list: "a list",
}
