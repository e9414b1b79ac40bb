"""Versions for requirements that are not locked, and those of another day, through uv.

uv is asked as a program, in a directory of its own that holds the requirements and nothing else,
with its configuration off and builds forbidden: it reads an index and runs nothing of the
project. Requirements that are addresses or paths are left out, since reading them could lead
anywhere; they stay unknown. The answer is a ``pylock.toml`` for every platform.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit, urlunsplit

import msgspec

from penstock.errors import ImageError
from penstock.image.indexes import Index
from penstock.image.locks import pylock
from penstock.image.model import Lock, Package, Source

SECONDS_MAX: Final = 180.0
OUTPUT_MAX: Final = 32 * 1024 * 1024
WORDS_MAX: Final = 600
NAMED_MAX: Final = 8
NEEDS_WHEEL: Final = re.compile(r"Wheels are required for `([A-Za-z0-9._-]{1,128})`")
"""How uv names a package that has source archives alone. Without it the error is uv's own words."""
PASSED: Final = (
    "HOME", "PATH", "XDG_CACHE_HOME", "UV_CACHE_DIR", "SSL_CERT_FILE", "SSL_CERT_DIR",
    "UV_SYSTEM_CERTS", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy",
    "https_proxy", "all_proxy", "no_proxy", "NETRC",
)  # fmt: skip
"""What uv gets of the environment: where it keeps things and how it reaches the network."""


def resolve(
    lock: Lock,
    python: str,
    indexes: Sequence[Index],
    environment: Mapping[str, str],
    as_of: str | None = None,
) -> Lock:
    """The lock with versions for its requirements, for ``python`` and newer.

    ``as_of``: a date; nothing that was uploaded later is seen. Raises ``ImageError``.
    """
    program = shutil.which("uv", path=environment.get("PATH"))
    if program is None:
        raise ImageError(
            f"{lock.path} is not locked, and uv, which would resolve it, is not on PATH: install "
            "uv, or lock the project"
        )
    with tempfile.TemporaryDirectory(prefix="penstock-image-") as name:
        place = Path(name)
        (place / "requirements.in").write_text("\n".join(lock.requirements) + "\n", "utf-8")
        (place / "constraints.txt").write_text("\n".join(lock.constraints) + "\n", "utf-8")
        command = [
            program, "pip", "compile", "requirements.in", "--constraints", "constraints.txt",
            "--universal", "--no-config", "--no-build", "--no-python-downloads", "--quiet",
            "--color", "never", "--format", "pylock.toml", "--output-file", "pylock.toml",
            "--python-version", python.removesuffix("t"),
        ]  # fmt: skip
        if as_of is not None:
            command += ["--exclude-newer", as_of]
        _run(command, place, _variables(indexes, environment), lock.path)
        text = (place / "pylock.toml").read_text("utf-8")
    if len(text) > OUTPUT_MAX:
        raise ImageError(f"{lock.path} resolves to more than {OUTPUT_MAX >> 20} MiB")
    resolved = pylock.read(tomllib.loads(text), text, lock.path)
    when = "today" if as_of is None else f"as of {as_of}"
    return msgspec.structs.replace(
        lock,
        packages=(
            *(_unlisted(each) for each in resolved.packages),
            *(each for each in lock.packages if each.source is not Source.REGISTRY),
        ),
        needs=None,
        default_groups=(),
        is_locked=False,
        notes=(*lock.notes, f"not locked: the versions are what uv resolves {when}"),
    )


def _unlisted(package: Package) -> Package:
    """The package without its files: forbidden to build, uv leaves out what would be built.

    So the index is asked for them. The line is one of a file that is gone.
    """
    return msgspec.structs.replace(package, wheels=(), sdist=None, are_files_known=False, line=1)


def _run(command: list[str], place: Path, variables: dict[str, str], path: str) -> None:
    try:
        done = subprocess.run(  # noqa: S603 - uv by its path, arguments of our own
            command,
            cwd=place,
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ImageError(f"uv took more than {SECONDS_MAX:g} s to resolve {path}") from None
    except OSError as error:
        raise ImageError(f"uv could not be started: {error.strerror}") from None
    if done.returncode != 0:
        words = " ".join(done.stderr.decode("utf-8", "replace").split())
        if without_wheels := sorted(set(NEEDS_WHEEL.findall(words)))[:NAMED_MAX]:
            raise ImageError(
                f"{path}: no version of {', '.join(without_wheels)} that fits has a wheel: it "
                "must be compiled, and only then is it known what it needs in turn. Nothing is "
                "built here: lock the project with your own tool (uv lock, pdm lock, poetry "
                "lock), which builds it, and check the lock file"
            )
        raise ImageError(
            f"uv could not resolve {path} without building anything (lock it with your own tool "
            f"if that is what it takes): {ascii(words[:WORDS_MAX])[1:-1]}"
        )


def _variables(indexes: Sequence[Index], environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of uv. Logins go by it, since arguments can be seen by other users."""
    variables = {name: environment[name] for name in PASSED if name in environment}
    named = [_with_login(index) for index in indexes if index.url]
    has_default = any(not index.url for index in indexes)
    if named and not has_default:
        variables["UV_DEFAULT_INDEX"] = named.pop()
    if named:
        variables["UV_INDEX"] = " ".join(named)
    return variables


def _with_login(index: Index) -> str:
    if index.login is None:
        return index.url
    parts = urlsplit(index.url)
    user, password = (quote(each, safe="") for each in index.login)
    return urlunsplit(parts._replace(netloc=f"{user}:{password}@{parts.netloc}"))
