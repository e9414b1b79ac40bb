"""``uv.lock``: a graph of packages with markers on its edges.

The lock names every file with its address, hash, size and time, so that tags need no network. It
holds several versions of a package where they differ by environment ("forks"), told apart on the
edge by ``version``. What the project itself needs stands at the package whose source is the
lock's own directory; in a workspace without such a package, all members are installed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from penstock.errors import ImageError
from penstock.image.files import Table, canonical_name
from penstock.image.locks.parts import (
    filename_of,
    header_lines,
    line_at,
    name_of,
    packages_of,
    sha256_of,
    split_files,
    version_of,
)
from penstock.image.model import File, Lock, Need, Package, Source

LOCK_VERSION: Final = 1
LOCAL: Final = ("virtual", "editable", "directory")


def read(top: Table, text: str, path: str) -> Lock:
    """The lock in ``text``, parsed as ``top``. Raises ``ImageError``."""
    if top.number("version") != LOCK_VERSION:
        raise ImageError(f"{path}: its version is not {LOCK_VERSION}, the only one that is known")
    places = header_lines(text, "[[package]]")
    tables = packages_of(top, "package")
    packages = tuple(
        _package(table, line_at(places, number)) for number, table in enumerate(tables)
    )
    roots = _roots(top, tables)
    needs: defaultdict[str, list[Need]] = defaultdict(list)
    for table in roots:
        needs[""] += _needs(table.tables("dependencies"))
        for kind, key in (("extra", "optional-dependencies"), ("group", "dev-dependencies")):
            groups = table.table(key)
            for name in groups.values:
                needs[f"{kind}:{name}"] += _needs(groups.tables(name))
    for name in top.table("manifest").table("dependency-groups").values:
        listed = top.table("manifest").table("dependency-groups").tables(name)
        needs[f"group:{name}"] += _needs(listed)
    return Lock(
        path=path,
        format="uv.lock",
        packages=packages,
        needs={key: tuple(value) for key, value in needs.items()},
        requires_python=top.text("requires-python"),
        extras=tuple(key[6:] for key in needs if key.startswith("extra:")),
        groups=tuple(key[6:] for key in needs if key.startswith("group:")),
    )


def _roots(top: Table, tables: list[Table]) -> list[Table]:
    """The project itself, or every member of a workspace that has no project at its top."""
    local = [
        table
        for table in tables
        if any(table.table("source").values.get(key) == "." for key in LOCAL)
    ]
    if local:
        return local
    members = {canonical_name(name, top.where) for name in top.table("manifest").texts("members")}
    return [table for table in tables if name_of(table) in members]


def _package(table: Table, line: int) -> Package:
    source = table.table("source")
    kind, index = _source(source)
    files = [_file(each) for each in table.tables("wheels")]
    if "sdist" in table:
        files += [_file(table.table("sdist"), source)]
    wheels, sdist = split_files(file for file in files if file is not None)
    extras = table.table("optional-dependencies")
    return Package(
        name=name_of(table),
        version=version_of(table),
        source=kind,
        index=index,
        wheels=wheels,
        sdist=sdist,
        line=line,
        needs=tuple(_needs(table.tables("dependencies"))),
        extra_needs={name: tuple(_needs(extras.tables(name))) for name in extras.values},
    )


def _source(source: Table) -> tuple[Source, str | None]:
    registry = source.text("registry")
    if registry is not None:
        return Source.REGISTRY, registry
    if "git" in source:
        return Source.VCS, None
    return (Source.URL, None) if "url" in source else (Source.PATH, None)


def _file(table: Table, source: Table | None = None) -> File | None:
    """A wheel or source distribution; None for an archive that is named by nothing."""
    place = table.text("url") or table.text("path") or table.text("filename")
    if place is None and source is not None:
        place = source.text("url") or source.text("path")
    if place is None:
        return None
    return File(
        filename=filename_of(place, table.where),
        url=table.text("url"),
        sha256=sha256_of(table.text("hash")),
        bytes=table.number("size"),
        uploaded=table.text("upload-time"),
    )


def _needs(tables: Iterable[Table]) -> list[Need]:
    return [
        Need(
            name_of(table),
            table.text("marker"),
            table.texts("extra"),
            version_of(table),
        )
        for table in tables
    ]
