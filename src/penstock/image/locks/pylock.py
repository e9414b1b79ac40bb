"""``pylock.toml`` (PEP 751): read by the reference implementation, ``packaging.pylock``."""

from __future__ import annotations

from typing import Any

from penstock.errors import ImageError
from penstock.image.files import canonical_name, plain
from penstock.image.locks.parts import (
    PACKAGES_MAX,
    VERSION,
    filename_of,
    header_lines,
    line_at,
    sha256_of,
    split_files,
)
from penstock.image.model import File, Lock, Package, Source


def read(document: dict[str, Any], text: str, path: str) -> Lock:
    """The lock in ``text``, parsed as ``document``. Raises ``ImageError``."""
    # 40 ms that the other formats save.
    from packaging.pylock import Pylock, PylockValidationError  # noqa: PLC0415

    try:
        pylock = Pylock.from_dict(document)
    except (PylockValidationError, ValueError, TypeError, RecursionError) as error:
        raise ImageError(f"{path} breaks the rules of pylock.toml: {plain(error)}") from None
    if len(pylock.packages) > PACKAGES_MAX:
        raise ImageError(f"{path}: more than {PACKAGES_MAX} packages")
    places = header_lines(text, "[[packages]]")
    return Lock(
        path=path,
        format="pylock.toml",
        packages=tuple(
            _package(each, path, line_at(places, number))
            for number, each in enumerate(pylock.packages)
        ),
        requires_python=str(pylock.requires_python) if pylock.requires_python else None,
        default_groups=tuple(pylock.default_groups or ()),
        extras=tuple(pylock.extras or ()),
        groups=tuple(pylock.dependency_groups or ()),
    )


def _package(package: Any, path: str, line: int) -> Package:
    where = f"{path}:{line}"
    archive = package.archive
    files = [_file(each, where) for each in package.wheels or ()]
    files += [_file(each, where) for each in (package.sdist, archive) if each is not None]
    wheels, sdist = split_files(files)
    source = Source.REGISTRY
    if package.vcs is not None:
        source = Source.VCS
    elif package.directory is not None:
        source = Source.PATH
    elif archive is not None:
        source = Source.URL if archive.url is not None else Source.PATH
    version = str(package.version) if package.version is not None else None
    if version is not None and VERSION.fullmatch(version) is None:
        raise ImageError(f"{where}: {plain(version)!r} is not a version")
    return Package(
        name=canonical_name(str(package.name), where),
        version=version,
        source=source,
        index=package.index,
        wheels=wheels,
        sdist=sdist,
        requires_python=str(package.requires_python) if package.requires_python else None,
        line=line,
        marker=str(package.marker) if package.marker is not None else None,
    )


def _file(file: Any, where: str) -> File:
    uploaded = getattr(file, "upload_time", None)
    named = getattr(file, "name", None)
    return File(
        filename=filename_of(named or file.url or file.path or "", where),
        url=file.url,
        sha256=sha256_of(file.hashes.get("sha256")),
        bytes=file.size,
        uploaded=uploaded.isoformat() if uploaded is not None else None,
    )
