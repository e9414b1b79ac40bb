"""The data of ``penstock image``: what a lock file holds, where it would run, what that costs.

Everything is a frozen value; bytes and seconds are named as such. ``None`` is "not known", and is
never replaced by a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec


class Source(StrEnum):
    """Where a package comes from."""

    REGISTRY = "registry"
    URL = "url"
    VCS = "vcs"
    PATH = "path"


class File(msgspec.Struct, frozen=True):
    """A wheel or a source distribution, as a lock or an index names it."""

    filename: str
    url: str | None = None
    sha256: str | None = None
    bytes: int | None = None
    uploaded: str | None = None
    requires_python: str | None = None


class Need(msgspec.Struct, frozen=True):
    """An edge of a lock's graph: one package needs another, where the marker holds.

    ``version`` tells apart several of one name (uv's forks); None fits any.
    """

    name: str
    marker: str | None = None
    extras: tuple[str, ...] = ()
    version: str | None = None


class Package(msgspec.Struct, frozen=True):
    """One package of a lock.

    ``are_files_known`` is false where the lock has no list of files and the index must be asked;
    then ``hashes``, if there are any, say which of them are allowed. ``index`` is the address of
    the index that the lock names, None for the project's. ``line`` is where the lock names it,
    from 1. ``marker`` and ``groups`` say when a flat lock installs it; ``needs`` and
    ``extra_needs`` are the edges of a lock that is a graph.
    """

    name: str
    version: str | None
    source: Source = Source.REGISTRY
    index: str | None = None
    wheels: tuple[File, ...] = ()
    sdist: File | None = None
    are_files_known: bool = True
    hashes: frozenset[str] = frozenset()
    requires_python: str | None = None
    line: int = 1
    marker: str | None = None
    groups: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()
    extra_needs: Mapping[str, tuple[Need, ...]] = msgspec.field(default_factory=dict)


class Lock(msgspec.Struct, frozen=True):
    """What a lock file says.

    ``needs`` is None in a flat lock, whose packages are chosen by their own markers and groups;
    otherwise the edges from the project: ``""`` what it always needs, ``extra:NAME`` and
    ``group:NAME`` what these add. ``is_locked`` is false where the versions were resolved now.
    ``indexes`` are addresses that its options name, which may hold a password; ``requirements``
    and ``constraints`` what is to be resolved where it is no lock.
    """

    path: str
    format: str
    packages: tuple[Package, ...]
    needs: Mapping[str, tuple[Need, ...]] | None = None
    requires_python: str | None = None
    default_groups: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    is_locked: bool = True
    indexes: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Verdict(StrEnum):
    """What installing a package takes, from the best to the worst."""

    PURE = "pure"
    PREBUILT = "prebuilt"
    COMPILE = "compile"
    IMPOSSIBLE = "impossible"
    UNKNOWN = "unknown"


class Trap(msgspec.Struct, frozen=True):
    """Something that goes wrong though the tags match. ``is_fatal``: it will not run at all."""

    id: str
    message: str
    is_fatal: bool = False


class Compile(msgspec.Struct, frozen=True):
    """What is known of building a package from its source.

    ``cpu_seconds`` is measured or None; ``build_requires`` are the names in its build system.
    """

    build_system: str | None = None
    build_requires: tuple[str, ...] = ()
    has_native_code: bool | None = None
    system_packages: tuple[str, ...] = ()
    cpu_seconds: float | None = None


class Changes(msgspec.Struct, frozen=True):
    """What would make a package installable without a compiler.

    ``pythons`` for which the same version has a wheel, on the same base; the nearest ``newer``
    and ``older`` version with a wheel for this target. ``are_versions_known``: an index was asked.
    """

    pythons: tuple[str, ...] = ()
    newer: str | None = None
    older: str | None = None
    are_versions_known: bool = False


class Judged(msgspec.Struct, frozen=True):
    """The verdict on one package for one target, with its reason.

    ``unpacked_bytes`` is what its wheel becomes on disk, without bytecode;
    ``shared_object_bytes`` the part of it in shared objects, ``strippable_bytes`` in those that
    stripping may touch.
    """

    name: str
    version: str | None
    verdict: Verdict
    reason: str
    line: int
    file: File | None = None
    download_bytes: int | None = None
    unpacked_bytes: int | None = None
    shared_object_bytes: int | None = None
    strippable_bytes: int | None = None
    compile: Compile | None = None
    traps: tuple[Trap, ...] = ()
    changes: Changes | None = None
