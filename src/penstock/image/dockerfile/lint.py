"""A Dockerfile checked: its text read, the lock file asked, the rules run, the changes applied."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any, Final

import msgspec

from penstock.errors import ImageError
from penstock.image.check import Wish, check
from penstock.image.dockerfile.findings import Finding, Severity, apply, difference
from penstock.image.dockerfile.parse import BYTES_MAX, decode, parse
from penstock.image.dockerfile.rules import RULES
from penstock.image.dockerfile.stages import stages
from penstock.image.dockerfile.view import View
from penstock.image.dockerfile.write import DOCKERIGNORE
from penstock.image.files import plain
from penstock.image.locks.find import NAMES
from penstock.image.report import TargetReport

DOCUMENT: Final = "docs/image.md"
IGNORE: Final = ".dockerignore"
_SILENCED: Final = re.compile(r"#\s*penstock:\s*ignore=([\w,\s]+)")


class Linted(msgspec.Struct, frozen=True):
    """What was found, and the text with every change that can be made by itself.

    ``ignore``: the ``.dockerignore`` to add, None where there is one. ``notes``: what could not
    be looked at.
    """

    path: Path
    before: str
    after: str
    findings: tuple[Finding, ...]
    ignore: str | None
    notes: tuple[str, ...]

    def difference(self) -> str:
        """The changes as a unified diff, relative to the Dockerfile's directory."""
        changes = difference(self.before, self.after, self.path.name)
        if self.ignore is not None:
            changes += difference("", self.ignore, IGNORE).replace(
                f"--- a/{IGNORE}", "--- /dev/null"
            )
        return changes


def lint(path: Path, project: Path, wish: Wish | None = None) -> Linted:
    """Check the Dockerfile at ``path`` of ``project``.

    ``wish`` says which extras and groups the image has, and whether the index may be asked.
    Raises ``ImageError`` for what cannot be read.
    """
    before = decode(_read(path), plain(path.name))
    file = parse(before, plain(path.name))
    verdicts = _Verdicts(project, wish)
    ignored = _ignored(path, project)
    view = View(file, stages(file), verdicts.of, ignored)
    silenced = {name for match in _SILENCED.findall(before) for name in re.split(r"[,\s]+", match)}
    findings = sorted(
        (finding for rule in RULES if rule.id not in silenced for finding in rule.look(view)),
        key=lambda finding: (finding.line, finding.rule),
    )
    edits = [edit for finding in findings for edit in finding.edits]
    lacks_ignore = any(each.rule == "PSI010" and ignored is None for each in findings)
    return Linted(
        path=path,
        before=before,
        after=apply(before, edits),
        findings=tuple(findings),
        ignore=DOCKERIGNORE if lacks_ignore else None,
        notes=tuple(verdicts.notes),
    )


class _Verdicts:
    """The lock file's verdicts, each asked for once; silent where there is no lock file."""

    def __init__(self, project: Path, wish: Wish | None) -> None:
        self._project = project
        self._wish = wish
        self._known: dict[tuple[str, str], TargetReport | None] = {}
        self.notes: list[str] = []

    def of(self, base: str, python: str) -> TargetReport | None:
        if (base, python) not in self._known:
            self._known[base, python] = self._ask(base, python)
        return self._known[base, python]

    def _ask(self, base: str, python: str) -> TargetReport | None:
        if self._wish is None:
            return None
        wish = msgspec.structs.replace(
            self._wish, bases=(base,), platforms=("amd64",), pythons=(python,)
        )
        try:
            return check(wish).targets[0]
        except ImageError as problem:
            self._note(str(problem))
            return None

    def _note(self, text: str) -> None:
        note = f"the rules that ask the lock file were left out: {text}"
        if note not in self.notes:
            self.notes.append(note)


def has_lock(project: Path) -> bool:
    """Whether there is a lock file that ``check`` would read."""
    return any((project / name).is_file() for name in NAMES[:-1])


def _read(path: Path) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ImageError(f"{plain(path.name)} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ImageError(f"{plain(path.name)} is not a regular file")
    with os.fdopen(handle, "rb") as file:
        return file.read(BYTES_MAX + 1)


def _ignored(path: Path, project: Path) -> str | None:
    """The ``.dockerignore`` that a build of the project with this Dockerfile reads."""
    for place in (path.with_name(f"{path.name}{IGNORE}"), project / IGNORE):
        if place.is_file():
            return _read(place)[: 64 * 1024].decode("utf-8", "replace")
    return None


_LEVELS: Final = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "note"}


def sarif(linted: Linted, uri: str, version: str) -> dict[str, Any]:
    """The findings as SARIF 2.1.0 (OASIS), for code scanning."""
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "penstock image dockerfile",
                        "version": version,
                        "rules": [
                            {
                                "id": rule.id,
                                "shortDescription": {"text": rule.title},
                                "help": {"text": help_of(rule.id)},
                                "defaultConfiguration": {"level": _LEVELS[rule.severity]},
                            }
                            for rule in RULES
                        ],
                    }
                },
                "results": [
                    {
                        "ruleId": finding.rule,
                        "level": _LEVELS[finding.severity],
                        "message": {"text": finding.message},
                        "locations": [
                            {
                                "physicalLocation": {
                                    "artifactLocation": {"uri": uri},
                                    "region": {"startLine": finding.line},
                                }
                            }
                        ],
                    }
                    for finding in linted.findings
                ],
            }
        ],
    }


def help_of(rule: str) -> str:
    """Where a rule is explained."""
    return f"{DOCUMENT}#{rule.lower()}"
