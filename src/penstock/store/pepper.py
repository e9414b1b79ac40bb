"""The secret under which API keys are digested.

It stands in a file beside the database (or where ``PENSTOCK_PEPPER_FILE`` says), so that a copy
of the database alone is no list of digests to try guesses on. What is used is derived from the
file's content for this one purpose: another purpose derives another value.
"""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from penstock.errors import StoreError

PEPPER_FILE_VARIABLE: Final = "PENSTOCK_PEPPER_FILE"
_BYTES: Final = 32
_CHARACTERS_MAX: Final = 4096
_PURPOSE: Final = b"penstock: digest of API keys, 1"


def new_content() -> bytes:
    """What a pepper's file may hold."""
    return secrets.token_hex(_BYTES).encode()


def pepper_from(content: bytes) -> bytes:
    """The pepper that a file with this content would be."""
    return hmac.digest(content, _PURPOSE, "sha256")


def pepper_in(
    directory: Path, environment: Mapping[str, str], *, create: bool, content: bytes | None = None
) -> bytes:
    """The pepper of the store in ``directory``; made there when ``create`` and there is none.

    ``content`` is what a new file is to hold: a process that has gone by it keeps its pepper.
    Raises StoreError when it is missing, too short, or readable by others where we made it.
    """
    named = environment.get(PEPPER_FILE_VARIABLE)
    if named:
        return _derived(_content(Path(named)), Path(named))
    file = directory / "pepper"
    if create and not file.exists():
        _make(file, content or new_content())
    found = _content(file)
    if stat.S_IMODE(file.stat().st_mode) & 0o077:
        raise StoreError(f"{file}: others on this machine may read the pepper; chmod 600 it")
    return _derived(found, file)


def fingerprint(pepper: bytes) -> str:
    """Tells one pepper from another, and nothing else about it."""
    return hmac.digest(pepper, b"penstock: fingerprint of the pepper", "sha256").hex()[:16]


def _content(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(_CHARACTERS_MAX).strip()
    except OSError as error:
        raise StoreError(
            f"{file}: the pepper cannot be read ({os.strerror(error.errno or 0)}); the stored "
            "keys are of no use without it: restore the file, or move the store away"
        ) from error


def _derived(content: bytes, file: Path) -> bytes:
    if len(content) < _BYTES:
        raise StoreError(f"{file}: a pepper has at least {_BYTES} characters; restore the file")
    return pepper_from(content)


def _make(file: Path, content: bytes) -> None:
    """Write a whole pepper or none; of two processes at once, the first one's stays."""
    draft = file.with_name(f"{file.name}.{secrets.token_hex(8)}")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content + b"\n")
                stream.flush()
                os.fsync(stream.fileno())
            os.link(draft, file)
        finally:
            draft.unlink()
    except FileExistsError:
        return
    except OSError as error:
        raise StoreError(
            f"{file}: the pepper cannot be written ({os.strerror(error.errno or 0)}); check the "
            "directory's owner and mode, or set [store] path"
        ) from error
