"""``pdm.lock``: a flat list, each package with the groups and the marker that want it.

Markers and groups are inherited in the lock (strategy ``inherit_metadata``, PDM's default since
2.11). A lock without that strategy says nothing of which packages a group wants, so its edges are
followed from the project's own requirements. An extra of a package is an entry of its own with
the same files.
"""

from __future__ import annotations

from penstock.errors import ImageError
from penstock.image.files import Table
from penstock.image.locks.parts import (
    filename_of,
    header_lines,
    line_at,
    name_of,
    need_of_requirement,
    packages_of,
    plain_filename,
    sha256_of,
    split_files,
    version_of,
)
from penstock.image.model import File, Lock, Need, Package, Source


def read(top: Table, text: str, path: str, needs: dict[str, tuple[Need, ...]] | None) -> Lock:
    """The lock in ``text``; ``needs``: the project's requirements, for a lock without groups."""
    metadata = top.table("metadata")
    is_flat = "inherit_metadata" in metadata.texts("strategy")
    places = header_lines(text, "[[package]]")
    elsewhere = metadata.table("files")
    packages = [
        _package(table, elsewhere, line_at(places, number))
        for number, table in enumerate(packages_of(top, "package"))
    ]
    groups = metadata.texts("groups")
    if not is_flat and needs is None:
        raise ImageError(
            f"{path} says not which group wants which package; its pyproject.toml must lie beside "
            "it, or lock again with the strategy inherit_metadata"
        )
    lock_targets = metadata.tables("targets")
    return Lock(
        path=path,
        format="pdm.lock",
        packages=tuple(packages if is_flat else _merged(packages)),
        needs=None if is_flat else needs,
        requires_python=lock_targets[0].text("requires_python") if len(lock_targets) == 1 else None,
        default_groups=("default",),
        extras=groups,
        groups=groups,
    )


def _package(table: Table, elsewhere: Table, line: int) -> Package:
    name, version = name_of(table), version_of(table)
    listed = table.tables("files")
    if not listed:  # where locks before 4.0 keep them
        listed = elsewhere.tables(f"{table.text('name')} {version}")
    wheels, sdist = split_files(_file(each) for each in listed)
    needs = tuple(need_of_requirement(each, table.where) for each in table.texts("dependencies"))
    extras = table.texts("extras")
    return Package(
        name=name,
        version=version,
        source=_source(table),
        wheels=wheels,
        sdist=sdist,
        requires_python=table.text("requires_python"),
        line=line,
        marker=table.text("marker"),
        groups=table.texts("groups"),
        needs=() if extras else needs,
        extra_needs=dict.fromkeys(extras, needs),
    )


def _merged(packages: list[Package]) -> list[Package]:
    """The entries of a package's extras with its own, as a graph wants them."""
    found: dict[tuple[str, str | None], Package] = {}
    for package in packages:
        key = (package.name, package.version)
        other = found.get(key)
        if other is None:
            found[key] = package
            continue
        found[key] = Package(
            name=package.name,
            version=package.version,
            source=package.source,
            wheels=other.wheels or package.wheels,
            sdist=other.sdist or package.sdist,
            requires_python=package.requires_python,
            line=min(other.line, package.line),
            needs=other.needs + package.needs,
            extra_needs={**other.extra_needs, **package.extra_needs},
        )
    return list(found.values())


def _source(table: Table) -> Source:
    if any(kind in table for kind in ("git", "hg", "svn", "bzr")):
        return Source.VCS
    if "path" in table:
        return Source.PATH
    return Source.URL if "url" in table else Source.REGISTRY


def _file(table: Table) -> File:
    url = table.text("url")
    where = table.where
    return File(
        filename=filename_of(url, where) if url else plain_filename(table.text("file"), where),
        url=url,
        sha256=sha256_of(table.text("hash")),
    )
