"""The verdict on one package for one target, from its files' names alone. Pure.

A wheel whose tags the target takes is *prebuilt*, or *pure* where its tag names no platform.
Without one a source distribution *must be compiled*; without that either, installing is
*impossible*. This is the order in which pip and uv look, so the verdict is theirs; what the tags
do not show is told by ``knowledge`` and the traps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import msgspec
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from penstock.image.model import File, Judged, Package, Source, Verdict
from penstock.image.targets import Target, tags

Build = tuple[()] | tuple[int, str]


@lru_cache(maxsize=65_536)
def parsed(filename: str) -> tuple[tuple[str, ...], Build, str] | None:
    """A wheel's tags, build number and version; None for a name that is none of a wheel.

    By hand where the name is plain: ``packaging`` takes 30 µs for each, and a lock of 150
    packages names 5,000.
    """
    parts = filename.removesuffix(".whl").split("-")
    if len(parts) == 5 and filename.endswith(".whl"):
        _, version, *compressed = parts
        return _expanded(*compressed), (), version
    try:
        _, number, build, found = parse_wheel_filename(filename)
    except InvalidWheelFilename:
        return None
    return tuple(str(tag) for tag in found), build, str(number)


def _expanded(interpreters: str, abis: str, platforms: str) -> tuple[str, ...]:
    return tuple(
        f"{interpreter}-{abi}-{platform}"
        for interpreter in interpreters.lower().split(".")
        for abi in abis.lower().split(".")
        for platform in platforms.lower().split(".")
    )


def best_wheel(wheels: Iterable[File], where: Target) -> File | None:
    """The wheel that would be installed; None if the target takes none of them."""
    places = tags(where)
    ranked: list[tuple[int, Any, File]] = []
    for wheel in wheels:
        known = parsed(wheel.filename)
        if known is None or not fits_python(wheel.requires_python, where):
            continue
        place = min((places[tag] for tag in known[0] if tag in places), default=None)
        if place is not None:
            number = known[1] or (0, "")
            ranked.append((place, (-number[0], number[1]), wheel))
    return min(ranked, key=lambda each: each[:2])[2] if ranked else None


def is_pure(wheel: File) -> bool:
    """Whether the wheel's tags name no platform."""
    known = parsed(wheel.filename)
    return known is not None and all(tag.endswith("-any") for tag in known[0])


def fits_python(specifier: str | None, where: Target) -> bool:
    """Whether a ``requires-python`` lets the target's Python in; what cannot be read does."""
    if specifier is None:
        return True
    return _fits(specifier, where.python_full)


@lru_cache(maxsize=4096)
def _fits(specifier: str, version: str) -> bool:
    try:
        return SpecifierSet(specifier).contains(version, prereleases=True)
    except InvalidSpecifier:
        return True


def judge(package: Package, where: Target, index: Mapping[str, tuple[File, ...]]) -> Judged:
    """The verdict, from the lock's files, or from ``index`` where the lock has no list.

    ``index``: by the package's name, the files of its version, as far as they were asked for. To
    a lock's own files it adds only which Pythons they are for.
    """
    known = index.get(package.name)
    wheels, sdist = package.wheels, package.sdist
    if not package.are_files_known and package.source is Source.REGISTRY:
        if known is None:
            return _judged(
                package, Verdict.UNKNOWN, "the lock names no files, and no index was asked"
            )
        allowed = [file for file in known if not package.hashes or file.sha256 in package.hashes]
        if not known:
            return _judged(package, Verdict.UNKNOWN, "the index has no such version")
        if not allowed:
            reason = "no file of the index has one of the hashes in the lock"
            return _judged(package, Verdict.IMPOSSIBLE, reason)
        wheels = tuple(file for file in allowed if file.filename.endswith(".whl"))
        sdist = next((file for file in allowed if not file.filename.endswith(".whl")), None)
    elif known:
        pythons = {file.filename: file.requires_python for file in known}
        wheels = tuple(_with_python(file, pythons) for file in wheels)
        sdist = _with_python(sdist, pythons) if sdist is not None else None
    if package.source in {Source.VCS, Source.PATH} and not wheels and sdist is None:
        kind = "a repository" if package.source is Source.VCS else "a directory"
        reason = f"built from {kind}; what that takes is not known without building it"
        return _judged(package, Verdict.UNKNOWN, reason)
    return _from_files(package, where, wheels, sdist)


def _with_python(file: File, pythons: Mapping[str, str | None]) -> File:
    """A file of the lock with the Pythons that the index says it is for."""
    if file.requires_python is not None:
        return file
    return msgspec.structs.replace(file, requires_python=pythons.get(file.filename))


def _from_files(
    package: Package, where: Target, wheels: tuple[File, ...], sdist: File | None
) -> Judged:
    if not fits_python(package.requires_python, where):
        reason = f"needs Python {package.requires_python}"
        return _judged(package, Verdict.IMPOSSIBLE, reason)
    wheel = best_wheel(wheels, where)
    if wheel is not None:
        if is_pure(wheel):
            return _judged(package, Verdict.PURE, "a wheel for any platform", wheel)
        return _judged(package, Verdict.PREBUILT, "a wheel for this platform", wheel)
    return _without_wheel(package, where, wheels, sdist)


def _without_wheel(
    package: Package, where: Target, wheels: tuple[File, ...], sdist: File | None
) -> Judged:
    lacking = "no wheels at all" if not wheels else why_not(wheels, where)
    if sdist is None:
        if not wheels:
            return _judged(package, Verdict.UNKNOWN, "the lock names no file of it")
        return _judged(package, Verdict.IMPOSSIBLE, f"{lacking}, and no source distribution")
    if not fits_python(sdist.requires_python, where):
        reason = f"{lacking}, and its source needs Python {sdist.requires_python}"
        return _judged(package, Verdict.IMPOSSIBLE, reason)
    return _judged(package, Verdict.COMPILE, lacking, sdist)


def why_not(wheels: Iterable[File], where: Target) -> str:
    """What of a target the wheels lack: its libc, its architecture or its Python."""
    everything = [tag for wheel in wheels for tag in (parsed(wheel.filename) or ((), (), ""))[0]]
    family = "musllinux" if where.musl is not None else "manylinux"
    of_libc = [tag for tag in everything if f"-{family}" in tag or tag.endswith("-any")]
    if not of_libc:
        return f"no {family} wheel"
    here = [tag for tag in of_libc if tag.endswith((f"_{where.machine}", "-any"))]
    if not here:
        return f"no {family} wheel for {where.platform}"
    known = set(tags(where))
    pythons = {tag.rpartition("-")[0] for tag in known}
    if not any(tag.rpartition("-")[0] in pythons for tag in here):
        return f"no {family} wheel for Python {where.python}"
    return f"no {family} wheel for {where.libc}"


def _judged(package: Package, verdict: Verdict, reason: str, file: File | None = None) -> Judged:
    return Judged(
        name=package.name,
        version=package.version,
        verdict=verdict,
        reason=reason,
        line=package.line,
        file=file,
        download_bytes=file.bytes if file is not None else None,
    )
