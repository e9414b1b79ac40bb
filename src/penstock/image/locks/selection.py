"""Which packages of a lock a target installs: markers, extras and groups for *its* environment.

A flat lock is filtered; a graph is followed from the project, each package and each of its extras
once, so that extras which name each other end. Markers are evaluated by ``packaging`` with the
target's environment, never with the running one.

uv writes extras that exclude each other into markers of its own (``extra == 'extra-3-app-cpu'``):
these are set to what was asked for before the rest is evaluated.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from packaging.markers import (
    InvalidMarker,
    Marker,
    UndefinedComparison,
    UndefinedEnvironmentName,
)

from penstock.errors import ImageError
from penstock.image.files import plain
from penstock.image.model import Lock, Need, Package

MARKER_MAX: Final = 65_536
CONFLICT: Final = re.compile(r"""extra\s*(==|!=)\s*["']((?:extra|group|project)-\d+-[^"']*)["']""")
TRUE, FALSE = "python_version >= '0'", "python_version < '0'"


class Selection:
    """What is asked for of a lock: an environment, extras and groups."""

    def __init__(
        self, environment: Mapping[str, str], extras: Collection[str], groups: Collection[str]
    ) -> None:
        self.environment = dict(environment)
        self.extras = frozenset(extras)
        self.groups = frozenset(groups)
        self._known: dict[str, bool] = {}

    def holds(self, marker: str | None) -> bool:
        """Whether the marker holds. Raises ``ImageError`` for one that cannot be read."""
        if marker is None:
            return True
        known = self._known.get(marker)
        if known is None:
            known = self._known[marker] = self._evaluate(marker)
        return known

    def _evaluate(self, marker: str) -> bool:
        parsed = _parsed(CONFLICT.sub(self._conflict, marker))
        environment: dict[str, Any] = {
            **self.environment,
            "extras": self.extras,
            "dependency_groups": self.groups,
        }
        try:
            if "extras" in marker or "dependency_groups" in marker:
                return bool(parsed.evaluate(environment, context="lock_file"))
            # `extra == 'a'` holds where any extra that was asked for makes it hold.
            return any(
                parsed.evaluate({**self.environment, "extra": extra})
                for extra in (self.extras or ("",))
            )
        except (UndefinedComparison, UndefinedEnvironmentName, RecursionError, KeyError) as error:
            raise ImageError(
                f"the marker {plain(marker)!r} cannot be evaluated: {plain(error)}"
            ) from None

    def _conflict(self, found: re.Match[str]) -> str:
        kind, _, rest = found[2].partition("-")
        wanted = self.groups if kind == "group" else self.extras
        # extra-3-app-cpu: the number is the length of the project's name, then a dash.
        length, _, names = rest.partition("-")
        is_on = kind == "project" or names[int(length) + 1 :] in wanted
        return TRUE if is_on == (found[1] == "==") else FALSE


@lru_cache(maxsize=4096)
def _parsed(marker: str) -> Marker:
    if len(marker) > MARKER_MAX:
        raise ImageError(f"a marker of {len(marker)} characters; at most {MARKER_MAX} are read")
    try:
        return Marker(marker)
    except (InvalidMarker, RecursionError):
        raise ImageError(f"{plain(marker)!r} is not a marker") from None


def select(lock: Lock, selection: Selection) -> list[Package]:
    """The packages that the lock installs, each name and version once, by name."""
    chosen = _flat(lock, selection) if lock.needs is None else _followed(lock, selection)
    once = {(package.name, package.version): package for package in chosen}
    return sorted(once.values(), key=lambda package: (package.name, package.version or ""))


def _flat(lock: Lock, selection: Selection) -> Iterator[Package]:
    groups = selection.groups | frozenset(lock.default_groups)
    asked = Selection(selection.environment, selection.extras, groups)
    # PDM has its extras among the groups.
    wanted = groups | selection.extras
    for package in lock.packages:
        if package.groups and not wanted.intersection(package.groups):
            continue
        if asked.holds(package.marker):
            yield package


def _followed(lock: Lock, selection: Selection) -> Iterator[Package]:
    by_name: defaultdict[str, list[Package]] = defaultdict(list)
    for package in lock.packages:
        by_name[package.name].append(package)
    needs = lock.needs or {}
    keys = ["", *(f"extra:{name}" for name in sorted(selection.extras))]
    keys += [f"group:{name}" for name in sorted(selection.groups)]
    waiting = [need for key in keys for need in needs.get(key, ())]
    seen: set[tuple[str, str | None, str]] = set()
    while waiting:
        need = waiting.pop()
        if not selection.holds(need.marker):
            continue
        for package in _candidates(by_name[need.name], need):
            for extra in ("", *need.extras):
                key = (package.name, package.version, extra)
                if key in seen:
                    continue
                seen.add(key)
                waiting += package.extra_needs.get(extra, ()) if extra else package.needs
                if not extra:
                    yield package


def _candidates(packages: list[Package], need: Need) -> list[Package]:
    """Those of one name that fit the edge; most locks have one."""
    if need.version is None or len(packages) < 2:
        return packages[:1] if need.version is None else packages
    return [package for package in packages if package.version == need.version]
