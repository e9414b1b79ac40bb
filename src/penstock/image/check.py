"""A lock file judged on targets: reading, choosing, judging, and what more is known of each.

First the verdicts, which need the files' names alone; then, for what cannot simply be downloaded,
why and what would change it; then sizes. Each step asks only for what the one before left open.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from penstock.errors import ImageError
from penstock.image import knowledge
from penstock.image.cache import Cache
from penstock.image.changes import changes_of
from penstock.image.facts import Facts, identity
from penstock.image.files import plain, read_text
from penstock.image.indexes import Index, of_project
from penstock.image.judge import fits_python, judge
from penstock.image.listed import of_version
from penstock.image.locks.find import find, read
from penstock.image.locks.project import NAME as PYPROJECT
from penstock.image.locks.project import project_table, requirements_of
from penstock.image.locks.selection import Selection, select
from penstock.image.model import Compile, File, Judged, Lock, Package, Source, Trap, Verdict
from penstock.image.relocations import MUSL_FIRST
from penstock.image.report import Report, TargetReport
from penstock.image.resolve import resolve
from penstock.image.targets import Target, base_names, data, target


class Wish(msgspec.Struct, frozen=True):
    """What is asked for. Empty ``pythons``: the one that the project names or allows.

    ``as_of``: a date, for which the requirements are resolved anew. ``cache`` is where answers
    are kept, None for nowhere; ``now`` is in seconds since the epoch.
    """

    project: Path
    bases: tuple[str, ...]
    platforms: tuple[str, ...]
    pythons: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    is_offline: bool = False
    as_of: str | None = None
    cache: Path | None = None
    now: float = 0.0
    environment: Mapping[str, str] = {}


Found = list[tuple[Package, Judged]]


def check(wish: Wish) -> Report:
    """Judge a project on every target of ``wish``. Raises ``ImageError``."""
    path, passed_over = find(wish.project)
    root = path.parent
    lock = read(path)
    _require("extra", wish.extras, lock.extras, lock)
    _require("group", wish.groups, lock.groups, lock)
    pythons = wish.pythons or (python_of(root, lock.requires_python),)
    indexes = of_project(root, lock.indexes, wish.environment)
    lock = _resolved(lock, root, pythons, indexes, wish)
    notes = [f"{name} is there, too, and was not read" for name in passed_over]
    targets = [
        target(base, platform, python)
        for python in pythons
        for platform in wish.platforms
        for base in dict.fromkeys(base_names(word) for word in wish.bases)
    ]
    chosen = [
        select(lock, Selection(where.environment(), wish.extras, wish.groups)) for where in targets
    ]
    with Cache(wish.cache, wish.now) as cache:
        facts = Facts(cache, indexes, is_offline=wish.is_offline, as_of=wish.as_of)
        judged = _judge_all(targets, chosen, facts)
        reports = [
            _report(lock, where, found, facts) for where, found in zip(targets, judged, strict=True)
        ]
    return Report(
        lock=lock.path,
        format=lock.format,
        targets=tuple(reports),
        is_offline=wish.is_offline,
        is_locked=lock.is_locked,
        as_of=wish.as_of,
        notes=(*lock.notes, *notes, *facts.notes),
    )


def _resolved(
    lock: Lock, root: Path, pythons: Sequence[str], indexes: Sequence[Index], wish: Wish
) -> Lock:
    """The lock, or what its requirements resolve to where it is none, or for another day."""
    if lock.is_locked and wish.as_of is None:
        return lock
    if wish.is_offline:
        if lock.format == PYPROJECT or wish.as_of is not None:
            raise ImageError(
                f"{lock.path} has to be resolved, which needs an index: leave out --offline, or "
                "lock the project"
            )
        return lock  # requirements: what is not pinned is unknown, and is said to be
    if lock.format != "requirements.txt":
        top = project_table(root)
        if top is None:
            raise ImageError(f"{lock.path}: resolving it again needs its pyproject.toml beside it")
        texts = requirements_of(top, wish.extras, wish.groups)
        plain_ones = tuple(text for text in texts if "@" not in text.partition(";")[0])
        lock = msgspec.structs.replace(lock, requirements=plain_ones)
    oldest = min(pythons, key=lambda python: int(python.removesuffix("t").split(".")[1]))
    return resolve(lock, oldest, indexes, wish.environment, wish.as_of)


def _judge_all(
    targets: Sequence[Target], chosen: Sequence[Sequence[Package]], facts: Facts
) -> list[Found]:
    """Verdicts, asking for lists of files where the lock has none, and then for contents."""
    everything = {identity(package): package for packages in chosen for package in packages}
    facts.ask_for_files(each for each in everything.values() if _lacks_files(each))
    judged = [
        _judge(where, packages, facts) for where, packages in zip(targets, chosen, strict=True)
    ]
    flat = [each for found in judged for each in found]
    hard = [
        package
        for package, verdict in flat
        if verdict.verdict in {Verdict.COMPILE, Verdict.IMPOSSIBLE}
        and package.source is Source.REGISTRY
    ]
    facts.ask_for_files(hard)
    if hard:  # the index knows which Pythons a file is for, which most locks do not say
        judged = [
            _judge(where, packages, facts) for where, packages in zip(targets, chosen, strict=True)
        ]
        flat = [each for found in judged for each in found]
    facts.ask_for_contents(flat)
    facts.ask_for_relocations(
        each
        for where, found in zip(targets, judged, strict=True)
        if _is_musl_too_old(where)
        for each in found
    )
    return judged


def _is_musl_too_old(where: Target) -> bool:
    return where.musl is not None and where.musl < MUSL_FIRST


def _lacks_files(package: Package) -> bool:
    return not package.are_files_known and package.source is Source.REGISTRY


def _judge(where: Target, packages: Iterable[Package], facts: Facts) -> Found:
    found: Found = []
    for package in packages:
        known: Mapping[str, tuple[File, ...]] = {}
        if package.source is Source.REGISTRY and package.version is not None:
            listed = facts.listed(package)
            if listed is not None:
                known = {package.name: of_version(listed, package.version)}
        result = judge(package, where, known)
        if result.verdict is Verdict.UNKNOWN and _lacks_files(package) and not known:
            reason = "not pinned" if package.version is None else facts.why_not_listed(package)
            result = msgspec.structs.replace(result, reason=f"{result.reason}: {reason}")
        found.append((package, result))
    return found


def _report(lock: Lock, where: Target, found: Found, facts: Facts) -> TargetReport:
    excluded = None
    if not fits_python(lock.requires_python, where):
        excluded = f"the lock is for Python {lock.requires_python}"
    compiled = {result.name for _, result in found if result.verdict is Verdict.COMPILE}
    packages = tuple(
        _enriched(package, result, where, facts, compiled) for package, result in found
    )
    return TargetReport(target=where, packages=packages, excluded=excluded)


def _enriched(
    package: Package, result: Judged, where: Target, facts: Facts, compiled: set[str]
) -> Judged:
    """The verdict with sizes, what a build takes, traps, and what would change it."""
    traps = knowledge.traps_of(result) + _relocations(result, where, facts)
    if result.verdict in {Verdict.PURE, Verdict.PREBUILT} and result.file is not None:
        sizes = facts.sizes(result.file)
        if sizes is None:
            return msgspec.structs.replace(result, traps=tuple(traps))
        return msgspec.structs.replace(
            result,
            download_bytes=sizes.download,
            unpacked_bytes=sizes.unpacked,
            shared_object_bytes=sizes.shared_objects,
            strippable_bytes=sizes.strippable,
            traps=tuple(traps),
        )
    if result.verdict in {Verdict.COMPILE, Verdict.IMPOSSIBLE}:
        takes = None
        if result.verdict is Verdict.COMPILE and result.file is not None:
            takes = knowledge.compile_of(result, where, facts.compile(result.file))
            traps += _isolation(takes, compiled)
        listed = facts.listed(package) if package.source is Source.REGISTRY else None
        return msgspec.structs.replace(
            result,
            compile=takes,
            traps=tuple(traps),
            changes=changes_of(package, where, listed),
        )
    return msgspec.structs.replace(result, traps=tuple(traps))


def _relocations(result: Judged, where: Target, facts: Facts) -> list[Trap]:
    """What a musl before 1.2.4 does with the libraries that a wheel bundles."""
    if not _is_musl_too_old(where) or result.file is None or result.verdict is not Verdict.PREBUILT:
        return []
    match facts.has_packed_relocations(result.file):
        case True:
            words = f"a library that the wheel bundles crashes on {where.libc}: 1.2.4 is needed"
            return [Trap("packed-relocations", words, is_fatal=True)]
        case None:
            words = f"whether the libraries that it bundles run on {where.libc} was not read"
            return [Trap("packed-relocations-unread", words)]
        case _:
            return []


def _isolation(takes: Compile, compiled: set[str]) -> list[Trap]:
    """Build isolation: what a build asks for is compiled once more, whatever the lock has."""
    return [
        Trap("built-twice", f"its build compiles {name} once more, in isolation")
        for name in sorted(knowledge.requirement_names(takes.build_requires) & compiled)
    ]


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
        where = target("slim", "amd64", python)
        if requires_python is not None and fits_python(requires_python, where):
            return python
    return known[-2]
