"""Base images side by side: what each makes of a project, and what that changes.

The size of an image is that of its base and what the wheels become on it, without bytecode and
without the project's own files. Stripping is estimated from the share of shared objects that it
took away from known packages (``data/knowledge.toml``). What must be compiled has no wheel to read
a size from, so such a sum is a lower bound and is marked as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from penstock.image import knowledge
from penstock.image.model import Verdict
from penstock.image.report import Report, TargetReport
from penstock.image.targets import data

JSON_VERSION = 1


class Row(msgspec.Struct, frozen=True):
    """One base image; bytes of its parts, which add up to the image.

    ``symbol_bytes`` is what stripping would take away. ``missing`` counts packages whose size is
    not in the sum. ``compile_cpu_seconds`` has the machine's factor in it.
    """

    name: str
    base: str
    image: str
    verdict: Verdict
    packages: int
    compiled: tuple[str, ...]
    impossible: tuple[str, ...]
    compile_cpu_seconds: float
    compile_missing: int
    download_bytes: int
    base_bytes: int | None
    symbol_bytes: int
    shared_object_bytes: int
    other_bytes: int
    missing: int
    is_current: bool

    @property
    def dependency_bytes(self) -> int:
        """What the packages become on disk."""
        return self.symbol_bytes + self.shared_object_bytes + self.other_bytes

    @property
    def image_bytes(self) -> int | None:
        """The image, None where the size of its base is not known."""
        return None if self.base_bytes is None else self.base_bytes + self.dependency_bytes

    @property
    def stripped_bytes(self) -> int | None:
        """The image after stripping."""
        return None if self.image_bytes is None else self.image_bytes - self.symbol_bytes


class Comparison(msgspec.Struct, frozen=True):
    """A project on several bases; ``current`` is the row to compare with: its own, or the first."""

    lock: str
    as_of: str | None
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    @property
    def current(self) -> Row:
        """What changes are counted from."""
        return next((row for row in self.rows if row.is_current), self.rows[0])


def compare(report: Report, current_base: str | None, machine_factor: float) -> Comparison:
    """The rows of a report, in its order. ``machine_factor``: 2 is a machine half as fast."""
    rows = tuple(_row(each, current_base, machine_factor) for each in report.targets)
    return Comparison(report.lock, report.as_of, rows, report.notes)


def _row(report: TargetReport, current_base: str | None, machine_factor: float) -> Row:
    symbols = sum(
        round((each.strippable_bytes or 0) * knowledge.strip_share(each))
        for each in report.packages
    )
    shared = sum(each.shared_object_bytes or 0 for each in report.packages)
    where = report.target
    return Row(
        name=where.name,
        base=where.base,
        image=where.image,
        verdict=report.verdict,
        packages=len(report.packages),
        compiled=tuple(each.name for each in report.of(Verdict.COMPILE)),
        impossible=tuple(each.name for each in report.of(Verdict.IMPOSSIBLE)),
        compile_cpu_seconds=report.compile_cpu_seconds * machine_factor,
        compile_missing=report.compile_missing,
        download_bytes=report.download_bytes,
        base_bytes=where.image_bytes,
        symbol_bytes=symbols,
        shared_object_bytes=shared - symbols,
        other_bytes=report.unpacked_bytes - shared,
        missing=report.unpacked_missing,
        is_current=where.base == current_base,
    )


def json_document(comparison: Comparison) -> dict[str, Any]:
    """The comparison as one JSON object."""
    reference = comparison.current
    return {
        "version": JSON_VERSION,
        "lock": comparison.lock,
        "as_of": comparison.as_of,
        "data_as_of": data()["as_of"],
        "current": reference.name if reference.is_current else None,
        "notes": list(comparison.notes),
        "rows": [
            {
                "name": row.name,
                "base": row.base,
                "image": row.image,
                "verdict": row.verdict.value,
                "packages": row.packages,
                "compile": list(row.compiled),
                "impossible": list(row.impossible),
                "compile_cpu_seconds": row.compile_cpu_seconds,
                "compile_missing": row.compile_missing,
                "download_bytes": row.download_bytes,
                "base_bytes": row.base_bytes,
                "dependency_bytes": row.dependency_bytes,
                "image_bytes": row.image_bytes,
                "stripped_bytes": row.stripped_bytes,
                "size_missing": row.missing,
                "change_bytes": change(row, reference),
            }
            for row in comparison.rows
        ],
    }


def change(row: Row, reference: Row) -> int | None:
    """How much larger the image is than the reference; None where one is not wholly known."""
    if row.image_bytes is None or reference.image_bytes is None:
        return None
    if row.missing or reference.missing:
        return None
    return row.image_bytes - reference.image_bytes


def hard_words(packages: Sequence[str]) -> str:
    """How many packages, and the first of their names: ``10: numpy, …``."""
    shown = ", ".join(packages[:3]) + (", …" if len(packages) > 3 else "")
    return f"{len(packages)}: {shown}"
