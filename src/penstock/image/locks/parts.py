"""What the readers share: files, versions, places in the text, requirements."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote, urlsplit

from packaging.requirements import InvalidRequirement, Requirement

from penstock.errors import ImageError
from penstock.image.files import Table, canonical_name, plain
from penstock.image.model import File, Need

PACKAGES_MAX: Final = 20_000
FILES_MAX: Final = 5_000
"""Files of one package; the largest on the default index has about 6,000 in all its versions."""
NEEDS_MAX: Final = 5_000
VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+!_-]{0,127}")
FILENAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]{0,254}")
SHA256: Final = re.compile(r"(?:sha256[:=])?([0-9a-f]{64})")


def packages_of(top: Table, key: str) -> list[Table]:
    """The packages of a lock; raises ``ImageError`` for more than any project has."""
    tables = top.tables(key)
    if len(tables) > PACKAGES_MAX:
        raise ImageError(f"{top.where}: {len(tables)} packages; at most {PACKAGES_MAX} are read")
    return tables


def name_of(table: Table, key: str = "name") -> str:
    """The package's name in its one spelling."""
    return canonical_name(table.text(key), table.where)


def version_of(table: Table) -> str | None:
    """The package's version, or None where the lock leaves it out (a project's own code)."""
    version = table.text("version")
    if version is not None and VERSION.fullmatch(version) is None:
        raise ImageError(f"{table.where}: {plain(version)!r} is not a version")
    return version


def filename_of(text: str, where: str) -> str:
    """The last part of an address or path, which must be a file's name and nothing else."""
    try:
        name = unquote(urlsplit(text).path.rpartition("/")[2])
    except ValueError:
        name = ""
    if FILENAME.fullmatch(name) is None:
        raise ImageError(f"{where}: {plain(text)!r} names no file of a package")
    return name


def plain_filename(text: str | None, where: str) -> str:
    """A file's name that is one as it stands. Raises ``ImageError`` for a path."""
    if text is None or FILENAME.fullmatch(text) is None:
        raise ImageError(f"{where}: {plain(text)!r} is not the name of a file")
    return text


def sha256_of(text: str | None) -> str | None:
    """The digest, where it is a SHA-256; others tell us nothing about a file's identity."""
    found = SHA256.fullmatch(text.lower()) if text is not None else None
    return found[1] if found is not None else None


def split_files(files: Iterable[File]) -> tuple[tuple[File, ...], File | None]:
    """Wheels, and the source distribution: a ``.tar.gz`` before any other kind."""
    wheels, sdists = [], []
    for file in files:
        if file.filename.endswith(".whl"):
            wheels.append(file)
        elif is_sdist(file.filename):
            sdists.append(file)
    if len(wheels) > FILES_MAX:
        raise ImageError(
            f"{plain(wheels[0].filename)}: more than {FILES_MAX} wheels of one version"
        )
    sdists.sort(key=lambda file: not file.filename.endswith(".tar.gz"))
    return tuple(wheels), sdists[0] if sdists else None


def is_sdist(filename: str) -> bool:
    """Whether pip and uv would build from this file."""
    return filename.endswith((".tar.gz", ".zip", ".tar.bz2", ".tar.xz", ".tgz"))


def header_lines(text: str, header: str) -> list[int]:
    """The line of each ``name`` below a header such as ``[[package]]``, in order, from 1."""
    places: list[int] = []
    is_below = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith(header):
            places.append(number)
            is_below = True
        elif is_below and line.startswith("name"):
            places[-1] = number
            is_below = False
    return places


def line_at(places: list[int], number: int) -> int:
    """The line of the package at that place; 1 where the text is written in another way."""
    return places[number] if number < len(places) else 1


def need_of_requirement(text: str, where: str) -> Need:
    """An edge from a requirement (PEP 508). Raises ``ImageError``."""
    try:
        requirement = Requirement(text[:8192])
    except (InvalidRequirement, RecursionError):
        raise ImageError(f"{where}: {plain(text)!r} is not a requirement") from None
    return Need(
        canonical_name(requirement.name, where),
        str(requirement.marker) if requirement.marker is not None else None,
        tuple(sorted(requirement.extras)),
    )
