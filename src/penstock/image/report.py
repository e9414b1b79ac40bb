"""What a check finds: verdicts on every target, added up. Pure values.

A sum says how much of it is known: ``unpacked_bytes`` of a target where 3 of 80 sizes are missing
is a lower bound, and ``unpacked_missing`` says so.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from penstock.image.model import Judged, Verdict
from penstock.image.targets import Target

WORST_FIRST = (Verdict.IMPOSSIBLE, Verdict.COMPILE, Verdict.UNKNOWN, Verdict.PREBUILT, Verdict.PURE)


class TargetReport(msgspec.Struct, frozen=True):
    """One target with its packages. ``excluded``: why the lock is not for this Python, or None."""

    target: Target
    packages: tuple[Judged, ...]
    excluded: str | None = None

    def of(self, verdict: Verdict) -> list[Judged]:
        """The packages with that verdict."""
        return [each for each in self.packages if each.verdict is verdict]

    @property
    def verdict(self) -> Verdict:
        """The worst of its packages'; *prebuilt* where everything can be downloaded."""
        if self.excluded is not None or any(
            trap.is_fatal for each in self.packages for trap in each.traps
        ):
            return Verdict.IMPOSSIBLE
        found = {each.verdict for each in self.packages}
        worst = next((each for each in WORST_FIRST if each in found), Verdict.PURE)
        return Verdict.PREBUILT if worst is Verdict.PURE else worst

    @property
    def download_bytes(self) -> int:
        """What is downloaded, as far as it is known."""
        return sum(each.download_bytes or 0 for each in self.packages)

    @property
    def unpacked_bytes(self) -> int:
        """What wheels become on disk, as far as it is known; compiled packages are not in it."""
        return sum(each.unpacked_bytes or 0 for each in self.packages)

    @property
    def download_missing(self) -> int:
        """Packages whose download is not known."""
        return sum(each.download_bytes is None for each in self.packages)

    @property
    def unpacked_missing(self) -> int:
        """Packages whose size on disk is not known."""
        return sum(each.unpacked_bytes is None for each in self.packages)

    @property
    def compile_cpu_seconds(self) -> float:
        """The CPU time of compiling, as far as it was measured."""
        compiles = [each.compile for each in self.of(Verdict.COMPILE)]
        return sum(each.cpu_seconds or 0.0 for each in compiles if each is not None)

    @property
    def compile_missing(self) -> int:
        """Packages that must be compiled and were not measured."""
        compiles = [each.compile for each in self.of(Verdict.COMPILE)]
        return sum(each is None or each.cpu_seconds is None for each in compiles)


def reasons(report: TargetReport) -> list[str]:
    """Why the verdict is what it is, in sentences."""
    total = len(report.packages)
    found = [report.excluded] if report.excluded is not None else []
    for verdict, words in (
        (Verdict.IMPOSSIBLE, "cannot be installed"),
        (Verdict.COMPILE, "must be compiled"),
        (Verdict.UNKNOWN, "are not known"),
    ):
        packages = report.of(verdict)
        if packages:
            found.append(f"{len(packages)} of {total} {words}: {names(packages)}")
    if report.of(Verdict.COMPILE):
        found.append(compile_words(report))
    if not report.of(Verdict.IMPOSSIBLE) and not report.of(Verdict.COMPILE):
        found.append(f"{total - len(report.of(Verdict.UNKNOWN))} of {total} are downloads")
    return found


def compile_words(report: TargetReport) -> str:
    """The expected time of compiling, with its error and what is missing in it."""
    missing, total = report.compile_missing, len(report.of(Verdict.COMPILE))
    if missing == total:
        return "no compile time of these was measured"
    words = (
        f"compiling takes about {duration(report.compile_cpu_seconds)} of CPU, give or take half"
    )
    return f"{words}; {missing} of {total} were not measured" if missing else words


def duration(seconds: float) -> str:
    """``45 s``, ``26 min``, ``2.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def advice(report: TargetReport) -> list[str]:
    """What would change the verdict: another Python for all, or another version of each."""
    hard = [*report.of(Verdict.IMPOSSIBLE), *report.of(Verdict.COMPILE)]
    changes = [(each, each.changes) for each in hard if each.changes is not None]
    if not changes:
        return []
    found: list[str] = []
    shared = set(changes[0][1].pythons).intersection(*(each.pythons for _, each in changes))
    if shared and len(changes) == len(hard):
        ordered = sorted(shared, key=lambda python: int(python.removesuffix("t")[2:]))
        found.append(f"with Python {' or '.join(ordered)} nothing of this is left")
    for package, each in changes:
        if each.newer is not None:
            found.append(f"{package.name} {each.newer} has a wheel; the lock has {package.version}")
        if each.older is not None:
            silent = package.verdict is Verdict.IMPOSSIBLE
            words = "what is not locked silently becomes" if silent else "the newest before it was"
            found.append(f"{package.name} {package.version} has none; {words} {each.older}")
        if each.newer is None and each.older is None and each.are_versions_known:
            found.append(f"{package.name}: no version has a wheel for this target")
    return found


class Report(msgspec.Struct, frozen=True):
    """A lock file on every target that was asked for."""

    lock: str
    format: str
    targets: tuple[TargetReport, ...]
    is_offline: bool
    is_locked: bool = True
    as_of: str | None = None
    notes: tuple[str, ...] = ()


def fails(report: Report, fail_on: str) -> bool:
    """Whether ``--fail-on compile|impossible|never`` makes the check fail."""
    grave = {
        "never": set[Verdict](),
        "impossible": {Verdict.IMPOSSIBLE},
        "compile": {Verdict.IMPOSSIBLE, Verdict.COMPILE},
    }[fail_on]
    return any(
        each.verdict in grave or any(package.verdict in grave for package in each.packages)
        for each in report.targets
    )


def names(packages: Sequence[Judged]) -> str:
    """``numpy 1.24.3, blis 0.7.9``."""
    return ", ".join(f"{each.name} {each.version}" if each.version else each.name
                     for each in packages)  # fmt: skip
