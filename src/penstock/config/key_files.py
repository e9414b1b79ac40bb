"""Provider keys that are rotated without a restart: their files are looked at again.

A look is one ``stat`` a file; only a file that has changed is read. What cannot be read, or is no
key, changes nothing: the key before goes on, and the problem is said once. A file that is replaced
(written beside and renamed, as Kubernetes and Vault do) is a change like one that is written over.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from penstock.config.model import Config
from penstock.config.problems import Problems
from penstock.config.secrets import read_provider_key
from penstock.errors import ConfigError

_Stamp: TypeAlias = tuple[int, int, int] | None


class KeyFiles:
    """The key files of a configuration's providers; ``config`` is one with absolute paths."""

    def __init__(self, config: Config) -> None:
        self._tables = {
            name: table for name, table in config.providers.items() if table.key_file is not None
        }
        self._stamps = {name: _stamp(str(table.key_file)) for name, table in self._tables.items()}

    def changed(self) -> tuple[dict[str, str], list[str]]:
        """The new keys by provider since the last call, and what is wrong with others."""
        keys: dict[str, str] = {}
        said: list[str] = []
        for name, table in self._tables.items():
            stamp = _stamp(str(table.key_file))
            if stamp == self._stamps[name]:
                continue
            self._stamps[name] = stamp
            problems = Problems("a changed key file", {})
            key = read_provider_key(name, table, problems)
            if key is not None:
                keys[name] = key
            try:
                problems.raise_if_any()
            except ConfigError as error:
                said += error.problems
        return keys, said


def _stamp(path: str) -> _Stamp:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
