"""A lock file judged on targets: reading, choosing, judging, and what more is known of each."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from penstock.errors import ImageError
from penstock.image.files import plain, read_text
from penstock.image.judge import fits_python, judge
from penstock.image.locks.find import find, read
from penstock.image.locks.selection import Selection, select
from penstock.image.model import Lock
from penstock.image.report import Report, TargetReport
from penstock.image.targets import Target, data, target


class Wish(msgspec.Struct, frozen=True):
    """What is asked for. Empty ``pythons``: the one that the project names or allows."""

    project: Path
    bases: tuple[str, ...]
    platforms: tuple[str, ...]
    pythons: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    is_offline: bool = False


def check(wish: Wish) -> Report:
    """Judge a project on every target of ``wish``. Raises ``ImageError``."""
    path, passed_over = find(wish.project)
    lock = read(path)
    _require("extra", wish.extras, lock.extras, lock)
    _require("group", wish.groups, lock.groups, lock)
    pythons = wish.pythons or (python_of(path.parent, lock.requires_python),)
    targets = [
        target(base, platform, python)
        for python in pythons
        for platform in wish.platforms
        for base in wish.bases
    ]
    notes = [*(f"{name} is there, too, and was not read" for name in passed_over)]
    return Report(
        lock=lock.path,
        format=lock.format,
        targets=tuple(_judged(lock, where, wish) for where in targets),
        is_offline=wish.is_offline,
        notes=tuple(notes),
    )


def _judged(lock: Lock, where: Target, wish: Wish) -> TargetReport:
    selection = Selection(where.environment(), wish.extras, wish.groups)
    packages = select(lock, selection)
    excluded = None
    if not fits_python(lock.requires_python, where):
        excluded = f"the lock is for Python {lock.requires_python}"
    return TargetReport(
        target=where,
        packages=tuple(judge(package, where, {}) for package in packages),
        excluded=excluded,
    )


def _require(kind: str, asked: Iterable[str], known: Iterable[str], lock: Lock) -> None:
    for name in asked:
        if name not in known:
            there = ", ".join(sorted(known)) or "none"
            raise ImageError(f"{lock.path} has no {kind} {plain(name)!r}; there are: {there}")


def python_of(root: Path, requires_python: str | None) -> str:
    """The Python that a project runs on: ``.python-version``, else the oldest that it allows."""
    known: list[str] = list(data()["pythons"])
    named = root / ".python-version"
    if named.is_file():
        words = read_text(named, root).split()
        wanted = ".".join(words[0].split(".")[:2]) if words else ""
        if wanted in known:
            return wanted
    for python in known:
        if requires_python is not None and fits_python(
            requires_python, target("slim", "amd64", python)
        ):
            return python
    return known[-2]
