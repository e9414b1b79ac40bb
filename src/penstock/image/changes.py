"""What would change a verdict: another release of the package, or another Python. Pure.

A release counts if the target takes one of its wheels and it is neither withdrawn nor a
pre-release. Of the newer ones the nearest is named, and of the older ones the newest: the
smallest step from what the lock has.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from packaging.version import Version

from penstock.image.judge import best_wheel
from penstock.image.listed import Listed, parsed_version
from penstock.image.model import Changes, File, Package
from penstock.image.targets import Target, pythons, target


def changes_of(package: Package, where: Target, listed: Sequence[Listed] | None) -> Changes:
    """What would make the package installable without a compiler. ``listed``: all its files."""
    wheels = _wheels(package, listed)
    newer, older = _versions(package, where, listed or ())
    return Changes(
        pythons=tuple(
            python
            for python in pythons()
            if python != where.python
            and python.endswith("t") == where.is_free_threaded
            and best_wheel(wheels, target(where.base, where.platform, python)) is not None
        ),
        newer=newer,
        older=older,
        are_versions_known=listed is not None,
    )


def _wheels(package: Package, listed: Sequence[Listed] | None) -> Sequence[File]:
    """The version's wheels: those of the index, since a lock leaves out other Pythons'."""
    if listed:
        return [
            each.file
            for each in listed
            if each.version == package.version and each.file.filename.endswith(".whl")
        ]
    return package.wheels


def _versions(
    package: Package, where: Target, listed: Sequence[Listed]
) -> tuple[str | None, str | None]:
    """The nearest newer and the nearest older version with a wheel for the target."""
    here = parsed_version(package.version or "")
    if here is None:
        return None, None
    wheels: defaultdict[Version, list[File]] = defaultdict(list)
    for each in listed:
        version = parsed_version(each.version)
        if version is None or each.is_yanked or version.is_prerelease:
            continue
        if each.file.filename.endswith(".whl"):
            wheels[version].append(each.file)
    return (
        _first(sorted(each for each in wheels if each > here), wheels, where),
        _first(sorted((each for each in wheels if each < here), reverse=True), wheels, where),
    )


def _first(
    versions: Sequence[Version], wheels: Mapping[Version, Sequence[File]], where: Target
) -> str | None:
    found = (each for each in versions if best_wheel(wheels[each], where) is not None)
    return str(next(found, "")) or None
