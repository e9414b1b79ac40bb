"""A report in the forms that programs read: JSON, SARIF 2.1.0, GitHub's annotations.

The JSON has a version; a field is added without changing it, and none is taken away or changed
in meaning. ``docs/image.md`` describes it. Addresses are in none of these: they may hold logins.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from penstock.image import knowledge
from penstock.image.model import Judged, Verdict
from penstock.image.report import Report, TargetReport, advice, reasons
from penstock.image.targets import data

JSON_VERSION: Final = 1
RULES: Final[dict[str, tuple[str, str]]] = {
    "image/compile": ("warning", "A package has no wheel for a target and must be compiled."),
    "image/impossible": ("error", "A package cannot be installed on a target at all."),
    "image/unknown": ("note", "What installing a package takes is not known."),
    "image/excluded": ("error", "The lock file is not for the target's Python."),
    "image/feature-lost": ("warning", "A build that succeeds lacks a feature."),
    "image/pure-fallback": ("warning", "A pure wheel wants a library of the system."),
    "image/built-twice": ("note", "Build isolation compiles a package more than once."),
    "image/packed-relocations": ("error", "A wheel crashes on a musl before 1.2.4."),
    "image/packed-relocations-unread": ("note", "Whether a wheel crashes here was not read."),
}
"""Each rule's level, and what it says."""
LEVELS: Final = {"error": "error", "warning": "warning", "note": "notice"}


class Finding(NamedTuple):
    """One thing to say about one package on one target."""

    rule: str
    line: int
    message: str


def json_document(report: Report) -> dict[str, Any]:
    """The report as one JSON object."""
    return {
        "version": JSON_VERSION,
        "lock": {"path": report.lock, "format": report.format, "is_locked": report.is_locked},
        "data_as_of": data()["as_of"],
        "as_of": report.as_of,
        "offline": report.is_offline,
        "notes": list(report.notes),
        "targets": [_target(each) for each in report.targets],
    }


def _target(report: TargetReport) -> dict[str, Any]:
    where = report.target
    counts = {verdict.value: len(report.of(verdict)) for verdict in Verdict}
    return {
        "name": where.name,
        "base": where.base,
        "image": where.image,
        "platform": where.platform,
        "python": where.python,
        "libc": where.libc,
        "verdict": report.verdict.value,
        "excluded": report.excluded,
        "counts": counts,
        "image_bytes": where.image_bytes,
        "download_bytes": report.download_bytes,
        "download_missing": report.download_missing,
        "unpacked_bytes": report.unpacked_bytes,
        "unpacked_missing": report.unpacked_missing,
        "compile_cpu_seconds": report.compile_cpu_seconds,
        "compile_missing": report.compile_missing,
        "compile_error_share": knowledge.data()["compile"]["error_share"],
        "reasons": reasons(report),
        "advice": advice(report),
        "packages": [_package(each) for each in report.packages],
    }


def _package(judged: Judged) -> dict[str, Any]:
    takes, changes = judged.compile, judged.changes
    return {
        "name": judged.name,
        "version": judged.version,
        "verdict": judged.verdict.value,
        "reason": judged.reason,
        "line": judged.line,
        "file": judged.file.filename if judged.file is not None else None,
        "uploaded": judged.file.uploaded if judged.file is not None else None,
        "download_bytes": judged.download_bytes,
        "unpacked_bytes": judged.unpacked_bytes,
        "shared_object_bytes": judged.shared_object_bytes,
        "strippable_bytes": judged.strippable_bytes,
        "compile": None
        if takes is None
        else {
            "build_system": takes.build_system,
            "build_requires": list(takes.build_requires),
            "has_native_code": takes.has_native_code,
            "system_packages": list(takes.system_packages),
            "cpu_seconds": takes.cpu_seconds,
        },
        "changes": None
        if changes is None
        else {
            "pythons": list(changes.pythons),
            "newer": changes.newer,
            "older": changes.older,
            "are_versions_known": changes.are_versions_known,
        },
        "traps": [
            {"id": trap.id, "message": trap.message, "is_fatal": trap.is_fatal}
            for trap in judged.traps
        ],
    }


def findings(report: Report) -> Iterator[Finding]:
    """Everything that is worth a word, by target and package."""
    for each in report.targets:
        name = each.target.name
        if each.excluded is not None:
            yield Finding("image/excluded", 1, f"{name}: {each.excluded}")
        for package in each.packages:
            what = f"{package.name} {package.version or ''}".strip()
            if package.verdict in {Verdict.COMPILE, Verdict.IMPOSSIBLE, Verdict.UNKNOWN}:
                message = f"{name}: {what}: {package.verdict.value}: {package.reason}"
                yield Finding(f"image/{package.verdict.value}", package.line, message)
            for trap in package.traps:
                yield Finding(f"image/{trap.id}", package.line, f"{name}: {what}: {trap.message}")


def sarif(report: Report, version: str) -> dict[str, Any]:
    """The report as SARIF 2.1.0. ``version``: of this program."""
    rules = [
        {
            "id": rule,
            "shortDescription": {"text": words},
            "defaultConfiguration": {"level": level},
        }
        for rule, (level, words) in RULES.items()
    ]
    results = [
        {
            "ruleId": finding.rule,
            "ruleIndex": list(RULES).index(finding.rule),
            "level": RULES[finding.rule][0],
            "message": {"text": finding.message},
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": {"uri": _uri(report.lock)},
                        "region": {"startLine": finding.line},
                    }
                }
            ],
        }
        for finding in findings(report)
    ]
    driver = {"name": "penstock image check", "version": version, "rules": rules}
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "columnKind": "utf16CodeUnits", "results": results}],
    }


def _uri(path: str) -> str:
    return quote(path)


def github(report: Report) -> Iterator[str]:
    """Lines that GitHub Actions shows beside the lock file."""
    for finding in findings(report):
        level = LEVELS[RULES[finding.rule][0]]
        place = f"file={_property(report.lock)},line={finding.line},title={_property(finding.rule)}"
        yield f"::{level} {place}::{_data(finding.message)}"


def _data(text: str) -> str:
    """GitHub's own escapes, so that no text becomes a command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
