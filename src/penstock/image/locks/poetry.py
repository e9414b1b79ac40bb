"""``poetry.lock``: packages with files and hashes, without addresses.

Since lock version 2.1 each package has its groups and markers, so the list is flat. Before that
only the graph of packages is there, and the project's requirements stand in ``pyproject.toml``;
they are followed from there.
"""

from __future__ import annotations

from typing import Any

from penstock.errors import ImageError
from penstock.image.files import Table, canonical_name, plain
from penstock.image.locks.parts import (
    NEEDS_MAX,
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

MAIN = "main"


def read(top: Table, text: str, path: str, needs: dict[str, tuple[Need, ...]] | None) -> Lock:
    """The lock in ``text``; ``needs``: the project's requirements, for a lock without groups."""
    metadata = top.table("metadata")
    tables = packages_of(top, "package")
    is_flat = all("groups" in table for table in tables) and _is_new(metadata)
    if not is_flat and needs is None:
        raise ImageError(
            f"{path} says not which group wants which package; its pyproject.toml must lie beside "
            "it, or lock again with Poetry 2"
        )
    places = header_lines(text, "[[package]]")
    elsewhere = metadata.table("files")
    packages = tuple(
        _package(table, elsewhere, line_at(places, number)) for number, table in enumerate(tables)
    )
    return Lock(
        path=path,
        format="poetry.lock",
        packages=packages,
        needs=None if is_flat else needs,
        requires_python=metadata.text("python-versions"),
        default_groups=(MAIN,),
        extras=tuple(top.table("extras").values),
        groups=tuple({group for package in packages for group in package.groups}),
    )


def _is_new(metadata: Table) -> bool:
    major, _, minor = (metadata.text("lock-version") or "1.0").partition(".")
    return (major, minor) >= ("2", "1")


def _package(table: Table, elsewhere: Table, line: int) -> Package:
    listed = table.tables("files") or elsewhere.tables(table.text("name") or "")
    wheels, sdist = split_files(
        File(
            filename=plain_filename(each.text("file"), table.where),
            sha256=sha256_of(each.text("hash")),
        )
        for each in listed
    )
    needs, by_extra = _edges(table)
    source = table.table("source")
    kind, index = _source(source)
    return Package(
        name=name_of(table),
        version=version_of(table),
        source=kind,
        index=index,
        wheels=wheels,
        sdist=sdist,
        requires_python=_python(table.text("python-versions")),
        line=line,
        marker=_marker(table),
        groups=table.texts("groups"),
        needs=needs,
        extra_needs=by_extra,
    )


def _source(source: Table) -> tuple[Source, str | None]:
    match source.text("type"):
        case None | "pypi":
            return Source.REGISTRY, None
        case "legacy":
            return Source.REGISTRY, source.text("url")
        case "url":
            return Source.URL, None
        case "directory" | "file":
            return Source.PATH, None
        case _:
            return Source.VCS, None


def _python(text: str | None) -> str | None:
    return None if text in {None, "*"} else text


def _marker(table: Table) -> str | None:
    """The marker in the main group: a text for all groups, or a table of them."""
    if isinstance(table.values.get("markers"), dict):
        return table.table("markers").text(MAIN)
    return table.text("markers")


def _edges(table: Table) -> tuple[tuple[Need, ...], dict[str, tuple[Need, ...]]]:
    """What a package always needs, and what each of its extras adds."""
    optional: dict[str, list[Need]] = {}
    always: list[Need] = []
    by_name: dict[str, list[Need]] = {}
    for name, value in table.items("dependencies"):
        for each in value if isinstance(value, list) else [value]:
            need, is_optional = need_of_poetry(name, each, table.where)
            by_name.setdefault(need.name, []).append(need)
            if not is_optional:
                always.append(need)
    extras = table.table("extras")
    for extra in extras.values:
        for text in extras.texts(extra):
            # "name (>=1,<2)": the version in brackets, as PEP 508 allows no longer.
            wanted = need_of_requirement(text.partition(" (")[0], table.where)
            optional.setdefault(extra, []).extend(by_name.get(wanted.name, [wanted]))
    if len(always) > NEEDS_MAX:
        raise ImageError(f"{table.where}: more than {NEEDS_MAX} dependencies")
    return tuple(always), {extra: tuple(needs) for extra, needs in optional.items()}


def need_of_poetry(name: str, value: Any, where: str) -> tuple[Need, bool]:
    """A dependency as Poetry writes it, and whether it is optional."""
    canonical = canonical_name(name, where)
    if isinstance(value, str):
        return Need(canonical), False
    if not isinstance(value, dict):
        raise ImageError(f"{where}: {plain(name)} has no version")
    table = Table(value, f"{where}: {canonical}")
    marker = table.text("markers")
    # An extra in a marker says again what the list of extras says, which is what is followed.
    if marker is not None and "extra ==" in marker:
        marker = _without_extra(marker)
    return Need(canonical, marker, table.texts("extras")), table.flag("optional")


def _without_extra(marker: str) -> str | None:
    parts = [part for part in marker.split(" and ") if "extra ==" not in part]
    is_plain = " or " not in marker and "(" not in marker
    return (" and ".join(parts) or None) if is_plain else None
