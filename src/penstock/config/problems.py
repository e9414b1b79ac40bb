"""Collects everything that is wrong with one file, and words it.

A problem is one line: ``penstock.toml:12: deployments.fast.rpm = -1: must be …; hint``. Values
are shown so that a reader recognises them, escaped and cut; values that may be a secret, or
may hold one, are never shown.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from enum import Enum

from penstock.config.positions import KeyPath
from penstock.errors import ConfigError

_VALUE_CHARS_MAX = 80
_HINT_CHARS_MAX = 400
"""Enough for all keys of any table."""
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+\Z")


class Shown(Enum):
    """Stands for a value in a problem's line."""

    NOT = "the value is left out"


def name_of(path: KeyPath) -> str:
    """``("keys", "a b", "models", 0)`` as ``keys."a b".models[0]``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            bare = part if _BARE_KEY.match(part) else json.dumps(_cut(part))
            text += f".{bare}" if text else bare
    return text


def _cut(text: str, characters_max: int = _VALUE_CHARS_MAX) -> str:
    return text if len(text) <= characters_max else text[:characters_max] + "..."


def show(value: object) -> str:
    """A value as it would stand in the file; control and direction characters are escaped."""
    if isinstance(value, dict):
        return "{...}"
    if isinstance(value, float):
        return repr(value)  # inf and nan are spelled as TOML spells them
    if isinstance(value, str):
        return json.dumps(_cut(value))
    try:
        return _cut(json.dumps(value))
    except (TypeError, ValueError):  # dates and times, and lists of them; numbers of 4300 digits
        return type(value).__name__


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The hint for a name that is not known: its nearest neighbour, or all there are."""
    choices = sorted(known)
    near = difflib.get_close_matches(name, choices, n=1)
    if near:
        return f"did you mean {name_of((near[0],))}?"
    if not choices:
        return "there is none"
    names = ", ".join(name_of((choice,)) for choice in choices)
    return "known: " + _cut(names, _HINT_CHARS_MAX)


class Problems:
    """The problems of one file, in the order of its lines."""

    def __init__(self, file: str, lines: Mapping[KeyPath, int]) -> None:
        self._file = file
        self._lines = lines
        self._found: list[tuple[int, str]] = []
        self.warnings: list[str] = []

    def _line_of(self, path: KeyPath) -> int | None:
        for length in range(len(path), 0, -1):
            line = self._lines.get(path[:length])
            if line is not None:
                return line
        return None

    def _word(self, path: KeyPath, rule: str, value: object) -> tuple[int, str]:
        line = self._line_of(path)
        place = self._file if line is None else f"{self._file}:{line}"
        name = name_of(path)
        shown = name if value is Shown.NOT else f"{name} = {show(value)}"
        return line or 0, f"{place}: {shown}: {rule}"

    def add(self, path: KeyPath, rule: str, value: object = Shown.NOT) -> None:
        """Something that must be changed before the file can be served."""
        self._found.append(self._word(path, rule, value))

    def warn(self, path: KeyPath, rule: str, value: object = Shown.NOT) -> None:
        """Something that can be served, and should be known."""
        self.warnings.append(self._word(path, rule, value)[1])

    def add_text(self, line: int | None, rule: str) -> None:
        """A problem of the file as a text, which has no key."""
        place = self._file if line is None else f"{self._file}:{line}"
        self._found.append((line or 0, f"{place}: {rule}"))

    def raise_if_any(self) -> None:
        """Raise ConfigError with all problems, if there is one."""
        if self._found:
            ordered = sorted(self._found, key=lambda problem: problem[0])
            raise ConfigError(list(dict.fromkeys(text for _, text in ordered)))
