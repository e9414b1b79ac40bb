"""Finds the line on which each key of a TOML text stands.

``tomllib`` gives values without positions, and of the kept libraries only tomlkit holds them,
privately, at five times ``tomllib``'s import time. So the text is walked a second time here.
The walk trusts that ``tomllib`` has accepted the text: it looks for structure only, and has no
errors of its own to report.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import TypeAlias

KeyPath: TypeAlias = tuple[str | int, ...]
"""A key's tables from the outside inwards; integers count the items of arrays."""

_TOKEN = re.compile(
    r"""
      (?P<skip>[ \t\r]+|\#[^\n]*)
    | (?P<newline>\n)
    | (?P<text>\"\"\"(?:[^\\]|\\.)*?\"{3,5} | '{3}.*?'{3,5} | "(?:[^"\\]|\\.)*" | '[^']*')
    | (?P<mark>[\[\]{}=,.])
    | (?P<bare>[^\s\[\]{}=,.\#"']+)
    """,
    re.VERBOSE | re.DOTALL,
)


class _Walk:
    """One pass over the tokens; ``lines`` fills up with the first line of each key."""

    def __init__(self, text: str) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._tokens = list(_tokens(text))
        self._index = 0

    def _peek(self) -> str:
        return self._tokens[self._index][1] if self._index < len(self._tokens) else ""

    def _kind(self) -> str:
        return self._tokens[self._index][0] if self._index < len(self._tokens) else ""

    def _line(self) -> int:
        return self._tokens[min(self._index, len(self._tokens) - 1)][2]

    def _skip_newlines(self) -> None:
        while self._kind() == "newline":
            self._index += 1

    def _note(self, path: KeyPath, line: int) -> None:
        self.lines.setdefault(path, line)

    def _key(self, end: str) -> tuple[str, ...]:
        """The parts of a dotted key, up to and with ``end``."""
        parts: list[str] = []
        while (part := self._peek()) not in {end, ""}:
            if part != ".":
                parts.append(_unquote(part) if self._kind() == "text" else part)
            self._index += 1
        self._index += 1
        return tuple(parts)

    def document(self) -> None:
        """Walk the headers and the keys below them."""
        prefix: KeyPath = ()
        while self._index < len(self._tokens):
            self._skip_newlines()
            if self._kind() == "":
                return
            line = self._line()
            if self._peek() == "[":
                self._index += 1
                if self._peek() == "[":
                    self._index += 1
                prefix = self._key("]")
                if self._peek() == "]":
                    self._index += 1
                for depth in range(1, len(prefix) + 1):
                    self._note(prefix[:depth], line)
            else:
                self._pair(prefix)

    def _pair(self, prefix: KeyPath) -> None:
        line = self._line()
        parts = self._key("=")
        for depth in range(1, len(parts) + 1):
            self._note((*prefix, *parts[:depth]), line)
        self._value((*prefix, *parts))

    def _value(self, path: KeyPath) -> None:
        opening = self._peek()
        if opening == "{":
            self._index += 1
            self._skip_newlines()
            while self._peek() != "}":
                self._pair(path)
                self._skip_separators()
            self._index += 1
        elif opening == "[":
            self._index += 1
            self._skip_newlines()
            item = 0
            while self._peek() != "]":
                self._note((*path, item), self._line())
                self._value((*path, item))
                self._skip_separators()
                item += 1
            self._index += 1
        else:
            while self._kind() not in {"newline", ""} and self._peek() not in {",", "]", "}"}:
                self._index += 1

    def _skip_separators(self) -> None:
        while self._peek() == "," or self._kind() == "newline":
            self._index += 1


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    line = 1
    for match in _TOKEN.finditer(text):
        kind, token = str(match.lastgroup), match.group()
        if kind != "skip":
            yield kind, token, line
        line += token.count("\n")


def _unquote(token: str) -> str:
    return str(tomllib.loads(f"key = {token}")["key"])


def lines_of(text: str) -> dict[KeyPath, int]:
    """The line (from 1) on which each table, key and array item of ``text`` first stands.

    ``text`` must be TOML that ``tomllib`` accepts.
    """
    walk = _Walk(text)
    walk.document()
    return walk.lines
