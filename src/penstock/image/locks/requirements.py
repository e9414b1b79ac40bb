"""``requirements.txt``: lines with versions, with or without hashes, and the files they include.

The format is pip's own and has no grammar but its documentation. What decides a verdict is read:
requirements, ``--hash``, ``-r`` and ``-c`` inside the project, addresses. Other options are
noted where they matter and left alone. Environment variables are not filled in: they hold
passwords.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec
from packaging.requirements import InvalidRequirement, Requirement

from penstock.errors import ImageError
from penstock.image.files import canonical_name, plain, read_text
from penstock.image.locks.parts import PACKAGES_MAX, VERSION, filename_of, split_files
from penstock.image.model import File, Lock, Package, Source

INCLUDES_MAX: Final = 100
LINE_MAX: Final = 1024 * 1024
REQUIREMENT_MAX: Final = 8192
HASH: Final = re.compile(r"\s--hash[= ]\s*(\w+):([0-9a-fA-F]+)")
INCLUDE: Final = re.compile(r"(?:-r|-c|--requirement|--constraint)(?:\s+|=|(?=[^\s-]))(.+)")
COMMENT: Final = re.compile(r"(?:^|\s)#.*$")
URL: Final = re.compile(r"(?:[a-z][a-z0-9+.-]*)://|\.{0,2}/|file:", re.IGNORECASE)


class Line(msgspec.Struct, frozen=True):
    """One requirement as it stands, with its place."""

    text: str
    where: str
    number: int
    is_constraint: bool


class Read(msgspec.Struct):
    """All lines of a file and of what it includes."""

    lines: list[Line] = msgspec.field(default_factory=list)
    options: list[str] = msgspec.field(default_factory=list)
    indexes: list[str] = msgspec.field(default_factory=list)
    files: set[Path] = msgspec.field(default_factory=set)


def read(text: str, file: Path, root: Path) -> Lock:
    """The requirements of ``file``, whose text is given. Raises ``ImageError``."""
    found = Read()
    _gather(text, file, root, found, is_constraint=False)
    packages: list[Package] = []
    pins: dict[str, str] = {}
    unpinned: list[str] = []
    for line in sorted(found.lines, key=lambda line: not line.is_constraint):
        package = _package(line)
        if line.is_constraint:
            if package.version is not None:
                pins[package.name] = package.version
            continue
        if package.version is None and package.source is Source.REGISTRY:
            version = pins.get(package.name)
            package = msgspec.structs.replace(package, version=version)
            if version is None:
                unpinned.append(package.name)
        packages.append(package)
    if len(packages) > PACKAGES_MAX:
        raise ImageError(f"{plain(file.name)}: more than {PACKAGES_MAX} requirements")
    return Lock(
        path=file.name,
        format="requirements.txt",
        packages=tuple(packages),
        is_locked=not unpinned,
        indexes=tuple(found.indexes),
        requirements=tuple(_plain_lines(found, is_constraint=False)),
        constraints=tuple(_plain_lines(found, is_constraint=True)),
        notes=tuple(dict.fromkeys(found.options)),
    )


def _plain_lines(found: Read, *, is_constraint: bool) -> Iterator[str]:
    """The requirements without options, and without those that are addresses or paths."""
    for line in found.lines:
        text = _without_options(line.text)
        is_address = "@" in text or "://" in text or URL.match(text) is not None
        if line.is_constraint is is_constraint and not is_address:
            yield text


def _gather(text: str, file: Path, root: Path, found: Read, *, is_constraint: bool) -> None:
    """Add the lines of ``file``, following what it includes, each file once."""
    found.files.add(file.resolve())
    if len(found.files) > INCLUDES_MAX:
        raise ImageError(f"{plain(file.name)}: more than {INCLUDES_MAX} files are included")
    for number, line in _logical_lines(text, file.name):
        included = INCLUDE.fullmatch(line)
        if included is not None:
            _include(line, included[1].strip(), file, root, found, is_constraint=is_constraint)
        elif line.startswith(("-e ", "--editable")):
            place = line.partition(" ")[2].strip()
            found.lines.append(Line(place, f"{file.name}:{number}", number, is_constraint))
        elif line.startswith("-"):
            _option(line, found)
        else:
            found.lines.append(Line(line, f"{file.name}:{number}", number, is_constraint))
        if len(found.lines) > PACKAGES_MAX:
            raise ImageError(f"{plain(file.name)}: more than {PACKAGES_MAX} requirements")


def _option(line: str, found: Read) -> None:
    """Keep what an option says of indexes; the names of others, whose values may be secret."""
    name, _, value = line.replace("=", " ", 1).partition(" ")
    if name in {"-i", "--index-url", "--extra-index-url"}:
        found.indexes.append(value.strip())
    elif name in {"--only-binary", "--no-binary", "--find-links", "-f", "--no-index"}:
        found.options.append(f"the option {name} is there and has no part in the verdicts")


def _include(
    line: str, name: str, file: Path, root: Path, found: Read, *, is_constraint: bool
) -> None:
    if "://" in name or PurePosixPath(name).is_absolute():
        raise ImageError(
            f"{plain(file.name)} includes {plain(name)!r}; only files of the project are read"
        )
    path = file.parent / name
    # Looked at as it is written first: what lies outside is not even asked whether it exists.
    inside = Path(*_normal(path.relative_to(root).parts, name)) if path != root else Path()
    if (root / inside).resolve() in found.files:
        return
    text = read_text(root / inside, root)
    constrains = is_constraint or line.startswith(("-c", "--constraint"))
    _gather(text, root / inside, root, found, is_constraint=constrains)


def _normal(parts: tuple[str, ...], name: str) -> list[str]:
    """The parts of a path without ``..``; raises ``ImageError`` where it leaves its root."""
    normal: list[str] = []
    for part in parts:
        if part == "..":
            if not normal:
                raise ImageError(
                    f"{plain(name)!r} leads outside the project, where nothing is read"
                )
            normal.pop()
        elif part != ".":
            normal.append(part)
    return normal


def _logical_lines(text: str, name: str) -> Iterator[tuple[int, str]]:
    """Lines joined where they end in a backslash, without comments; numbered from 1."""
    parts: list[str] = []
    began = length = 0
    for number, physical in enumerate(text.splitlines(), 1):
        is_comment = physical.lstrip().startswith("#")
        began = began or number
        continues = physical.endswith("\\") and not is_comment
        if not is_comment:
            parts.append(physical[:-1] if continues else physical)
            length += len(physical)
        if length > LINE_MAX:
            raise ImageError(f"{plain(name)}:{began}: a line of more than {LINE_MAX} characters")
        if continues:
            continue
        line = COMMENT.sub("", " ".join(parts)).strip()
        if line:
            yield began, line
        parts, began, length = [], 0, 0
    line = COMMENT.sub("", " ".join(parts)).strip()
    if line:
        yield began, line


def _package(line: Line) -> Package:
    hashes = frozenset(
        digest.lower() for kind, digest in HASH.findall(line.text) if kind.lower() == "sha256"
    )
    text = _without_options(line.text)
    if len(text) > REQUIREMENT_MAX:
        raise ImageError(f"{plain(line.where)}: a requirement of {len(text)} characters")
    if URL.match(text) is not None or text == ".":
        return _from_place(text, line)
    return _requirement(text, line, hashes)


def _without_options(text: str) -> str:
    """A requirement without ``--hash`` and the options, such as ``--config-settings``, after it."""
    return HASH.sub("", f"{text} ").partition(" --")[0].strip()


def _requirement(text: str, line: Line, hashes: frozenset[str]) -> Package:
    try:
        requirement = Requirement(text)
    except (InvalidRequirement, RecursionError):
        raise ImageError(f"{plain(line.where)}: {plain(text)!r} is not a requirement") from None
    marker = str(requirement.marker) if requirement.marker is not None else None
    name = canonical_name(requirement.name, line.where)
    if requirement.url is not None:
        package = _from_place(requirement.url, line, name)
        return msgspec.structs.replace(package, marker=marker)
    version = None
    specifiers = list(requirement.specifier)
    if len(specifiers) == 1 and specifiers[0].operator in {"==", "==="}:
        pinned = specifiers[0].version
        version = pinned if VERSION.fullmatch(pinned) else None
    return Package(
        name=name,
        version=version,
        are_files_known=False,
        hashes=hashes,
        line=line.number,
        marker=marker,
    )


def _from_place(place: str, line: Line, name: str | None = None) -> Package:
    """A requirement that is an address or a path. Its address is never shown: it may be secret."""
    is_vcs = re.match(r"(?:git|hg|svn|bzr)\+", place) is not None
    is_remote = "://" in place and not place.startswith("file:")
    kind = Source.VCS if is_vcs else Source.URL if is_remote else Source.PATH
    files: list[File] = []
    if not is_vcs and place.partition("#")[0].endswith((".whl", ".tar.gz", ".zip")):
        filename = filename_of(place.partition("#")[0], line.where)
        files.append(File(filename, url=place.partition("#")[0] if is_remote else None))
    if name is None:
        egg = re.search(r"[#&]egg=([A-Za-z0-9._-]+)", place)
        guessed = egg[1] if egg else files[0].filename.split("-")[0] if files else "local-project"
        name = canonical_name(guessed, line.where)
    wheels, sdist = split_files(files)
    return Package(name, None, kind, wheels=wheels, sdist=sdist, line=line.number)
