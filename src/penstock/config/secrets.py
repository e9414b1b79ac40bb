"""Reads the keys that the configuration names, at start: from the environment or from files.

They are kept apart from ``Config``, which can then be printed, compared and handed to workers.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

import msgspec

from penstock.config.model import Config, KeyTable, ProviderTable
from penstock.config.positions import KeyPath
from penstock.config.problems import Problems

_SECRET_CHARS_MAX = 4096
_HEADER_SAFE = re.compile(r"[!-~]+\Z")
_CALLER_KEY_CHARS_MAX = 512
_CALLER_KEY_CHARS_ADVISED = 20


class Secrets(msgspec.Struct, frozen=True):
    """Values of keys by provider name and by key name. ``repr`` shows the names only."""

    providers: Mapping[str, str] = {}
    keys: Mapping[str, str] = {}

    def __repr__(self) -> str:
        """Names without values: this may end in a log or a traceback."""
        return f"Secrets(providers={sorted(self.providers)}, keys={sorted(self.keys)})"

    __str__ = __repr__


def read_secrets(
    config: Config, folder: Path, environment: Mapping[str, str], problems: Problems
) -> Secrets:
    """Every key that ``config`` names; what cannot be read becomes a problem.

    ``folder`` is what a relative ``key_file`` is relative to.
    """
    reader = _Reader(folder, environment, problems)
    providers: dict[str, str] = {}
    for name, provider in config.providers.items():
        value = reader.read(("providers", name), provider)
        if value is not None:
            providers[name] = value
    keys: dict[str, str] = {}
    owners: dict[str, str] = {}
    for name, key in config.keys.items():
        value = reader.read(("keys", name), key)
        if key.key_env is None and key.key_file is None:
            problems.add(("keys", name), "names no key; set key_env or key_file")
        if value is None:
            continue
        owner = owners.setdefault(value, name)
        if owner != name:
            problems.add(("keys", name), f"is the same key as keys.{owner}; each needs its own")
        if len(value) > _CALLER_KEY_CHARS_MAX:
            problems.add(("keys", name), f"is longer than {_CALLER_KEY_CHARS_MAX} characters")
        if len(value) < _CALLER_KEY_CHARS_ADVISED:
            problems.warn(
                ("keys", name),
                f"the key has {len(value)} characters and may be guessed; "
                "`penstock keys create` makes a strong one",
            )
        keys[name] = value
    return Secrets(providers=providers, keys=keys)


def read_provider_key(name: str, provider: ProviderTable, problems: Problems) -> str | None:
    """The key in a provider's file, whose path is absolute; what cannot be read is a problem."""
    return _Reader(Path(), {}, problems).read(("providers", name), provider)


class _Reader:
    """Reads one secret after the other."""

    def __init__(self, folder: Path, environment: Mapping[str, str], problems: Problems) -> None:
        self._folder = folder
        self._environment = environment
        self._problems = problems

    def read(self, path: KeyPath, table: ProviderTable | KeyTable) -> str | None:
        if table.key_env is not None and table.key_file is not None:
            self._problems.add(path, "has both key_env and key_file; keep one of them")
            return None
        if table.key_env is not None:
            return self._from_environment((*path, "key_env"), table.key_env)
        if table.key_file is not None:
            return self._from_file((*path, "key_file"), table.key_file)
        return None

    def _from_environment(self, path: KeyPath, name: str) -> str | None:
        value = self._environment.get(name)
        if value is None:
            self._problems.add(
                path, f"this environment variable is not set; export {name}=... first", name
            )
            return None
        return self._checked(path, value)

    def _from_file(self, path: KeyPath, name: str) -> str | None:
        file = self._folder / name
        try:
            with file.open("rb") as stream:
                mode = os.fstat(stream.fileno()).st_mode
                content = stream.read(_SECRET_CHARS_MAX + 2)
        except OSError as error:
            self._problems.add(
                path, f"the file cannot be read ({os.strerror(error.errno or 0)}); {_FILE_HINT}"
            )
            return None
        except ValueError:  # a NUL character in the name
            self._problems.add(path, f"is no path; {_FILE_HINT}")
            return None
        if stat.S_IMODE(mode) & 0o077:
            self._problems.warn(path, "others on this machine may read the file; chmod 600 it")
        return self._checked(path, content.decode("latin-1").rstrip("\r\n"))

    def _checked(self, path: KeyPath, value: str) -> str | None:
        """A key must be able to stand in a header."""
        if not value:
            self._problems.add(path, "it is empty; put the key there")
        elif len(value) > _SECRET_CHARS_MAX or not _HEADER_SAFE.match(value):
            self._problems.add(
                path,
                f"what it holds is no key: at most {_SECRET_CHARS_MAX} printable ASCII "
                "characters without spaces or line breaks",
            )
        else:
            return value
        return None


_FILE_HINT = "give the path of a file that holds the key, relative to the configuration file"
