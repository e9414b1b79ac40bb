"""The rules that ask the lock file; silent where it cannot be asked.

None of them says that a base is bad: whether it is depends on the wheels of what is locked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from penstock.image.dockerfile.findings import Edit, Finding, Severity
from penstock.image.dockerfile.parse import Instruction, Word
from penstock.image.dockerfile.stages import Stage
from penstock.image.dockerfile.view import View, line_of
from penstock.image.files import plain
from penstock.image.model import Verdict
from penstock.image.report import TargetReport, compile_words, names

COMPILERS: Final = frozenset(
    [
        "build-base",
        "build-essential",
        "gcc",
        "g++",
        "clang",
        "make",
        "cmake",
        "musl-dev",
        "libc-dev",
        "libc6-dev",
        "linux-headers",
        "libffi-dev",
        "openssl-dev",
        "libssl-dev",
        "python3-dev",
        "python-dev",
        "cargo",
        "rust",
        "rustc",
        "gfortran",
        "openblas-dev",
        "lapack-dev",
        "libstdc++",
        "autoconf",
        "automake",
        "libtool",
        "patchelf",
        "ninja-build",
    ]
)
"""Packages that a machine wants to compile others' code, and no run-time of Python does."""

NAMED_MAX: Final = 12
"""So many packages are named in a message."""


def _judged(view: View) -> Iterator[tuple[Stage, TargetReport]]:
    """The stages on a known base, each base once, with the lock's report."""
    seen: set[tuple[str, str]] = set()
    for stage in view.stages:
        if stage.base is None or stage.python is None or stage.parent is not None:
            continue
        if (stage.base, stage.python) in seen:
            continue
        seen.add((stage.base, stage.python))
        report = view.verdict(stage.base, stage.python)
        if report is not None:
            yield stage, report


def compiles(view: View) -> Iterator[Finding]:
    """PSI001: packages have no wheel for the base, and have one for another."""
    for stage, report in _judged(view):
        lacking = [*report.of(Verdict.IMPOSSIBLE), *report.of(Verdict.COMPILE)]
        if not lacking or report.excluded is not None:
            continue
        better = view.verdict("slim", stage.python or "")
        missing_there = (
            len([*better.of(Verdict.IMPOSSIBLE), *better.of(Verdict.COMPILE)]) if better else None
        )
        is_impossible = bool(report.of(Verdict.IMPOSSIBLE))
        what = "cannot be installed" if is_impossible else "must be compiled"
        message = (
            f"{len(lacking)} of {len(report.packages)} packages have no wheel for "
            f"{report.target.name} ({report.target.libc}) and {what}: {names(lacking[:NAMED_MAX])}"
            + (f" and {len(lacking) - NAMED_MAX} more" if len(lacking) > NAMED_MAX else "")
        )
        message += f"; {compile_words(report)}" if report.compile_cpu_seconds else ""
        edits: tuple[Edit, ...] = ()
        if better is not None and missing_there is not None and missing_there < len(lacking):
            message += f"; on {better.target.base} it is {missing_there or 'none'}"
            edits, why_not = to_slim(view)
            message += f". Not changed by itself: {why_not}" if why_not else ""
        yield Finding(
            "PSI001",
            Severity.ERROR if is_impossible else Severity.WARNING,
            line_of(view, stage.image_word.start),
            message,
            edits,
        )


_ALPINE: Final = re.compile(r"alpine[\d.]*")
_BUSYBOX: Final = frozenset({"adduser", "addgroup", "su-exec", "ash", "/bin/ash", "apk-tools"})


def to_slim(view: View) -> tuple[tuple[Edit, ...], str | None]:
    """The edits from Alpine to slim in all stages, or why they cannot be made blindly."""
    edits: list[Edit] = []
    text = view.file.text
    for each in view.stages:
        if each.base is None or not each.base.startswith("alpine") or each.parent is not None:
            continue
        written = text[each.image_word.start : each.image_word.stop]
        match = _ALPINE.search(written)
        if match is None:
            return (), f"line {line_of(view, each.image_word.start)} takes its tag from a variable"
        if "@" in written:
            return (), "the base is pinned by a digest, which would have to be looked up"
        start = each.image_word.start + match.start()
        edits.append(Edit(start, start + len(match[0]), "slim"))
    for _, instruction, command in view.commands():
        if command[0].text in _BUSYBOX:
            return (), f"line {instruction.line} uses {plain(command[0].text)} as BusyBox has it"
        if command[0].text == "apk":
            left = [name for name in system_packages(command) if name not in COMPILERS]
            if left:
                return (), (
                    f"line {instruction.line} installs {plain(', '.join(left))} by apk, whose "
                    "names in Debian have to be found"
                )
    for instruction, commands in _toolchain(view, "apk"):
        edits += dropped(view, instruction, commands)
    return tuple(edits), None


def system_packages(command: list[Word]) -> list[str]:
    """What ``apk add`` or ``apt-get install`` asks for, without versions and virtual names."""
    words = [word.text for word in command]
    if words[:1] == ["apk"] and "add" in words:
        rest, skip = [], False
        for word in words[words.index("add") + 1 :]:
            if skip or word.startswith(("-", ".")):
                skip = word in {"-t", "--virtual", "--repository", "-X"}
                continue
            rest.append(re.split(r"[=<>~]", word)[0])
        return rest
    if words[:1] in (["apt-get"], ["apt"]) and "install" in words:
        rest = words[words.index("install") + 1 :]
        return [word.split("=")[0] for word in rest if not word.startswith("-")]
    return []


def _toolchain(
    view: View, manager: str | None = None
) -> Iterator[tuple[Instruction, list[list[Word]]]]:
    """Instructions with the commands that do nothing but install or remove compilers."""
    for stage in view.stages:
        for instruction in stage.instructions:
            if instruction.keyword != "RUN":
                continue
            found = []
            for command in instruction.commands():
                words = [word.text for word in command]
                asked = system_packages(command)
                is_tools = bool(asked) and all(name in COMPILERS for name in asked)
                # What only prepares for it or clears up after it goes with it.
                is_around = words[:1] == ["apk"] and not asked
                if (is_tools or is_around) and manager in (None, words[0]):
                    found.append(command)
            if any(system_packages(command) for command in found):
                yield instruction, found


def dropped(view: View, instruction: Instruction, commands: list[list[Word]]) -> list[Edit]:
    """Edits that take commands out of a RUN; the whole of it, if nothing else is in it."""
    text = view.file.text
    everything = list(instruction.commands())
    gone = {command[0].start for command in commands}
    if all(command[0].start in gone for command in everything):
        stop = instruction.stop + (text[instruction.stop : instruction.stop + 1] == "\n")
        return [Edit(instruction.start, stop, "")]
    edits = []
    for place, command in enumerate(everything):
        if command[0].start not in gone:
            continue
        if place + 1 < len(everything):
            edits.append(Edit(command[0].start, everything[place + 1][0].start, ""))
        else:
            kept = [each for each in everything[:place] if each[0].start not in gone]
            start = kept[-1][-1].stop
            edits = [edit for edit in edits if edit.start < start]
            edits.append(Edit(start, command[-1].stop, ""))
    return edits


def needless_compilers(view: View) -> Iterator[Finding]:
    """PSI002: compilers are installed, and nothing is compiled."""
    compiled_somewhere = False
    for _, report in _judged(view):
        if report.of(Verdict.COMPILE) or report.of(Verdict.UNKNOWN):
            compiled_somewhere = True
    reports = list(_judged(view))
    if not reports or compiled_somewhere:
        return
    for instruction, commands in _toolchain(view):
        asked = [name for command in commands for name in system_packages(command)]
        edits: tuple[Edit, ...] = ()
        if all(command[0].text == "apk" for command in commands):
            edits = tuple(dropped(view, instruction, commands))
        message = (
            f"{plain(', '.join(asked))}: every package of the lock file has a wheel for "
            f"{reports[0][1].target.name}, so nothing is compiled; leave the compilers out"
        )
        yield Finding("PSI002", Severity.WARNING, instruction.line, message, edits)


def traps(view: View) -> Iterator[Finding]:
    """PSI003: wheels that fit by their tags and crash or fail on this base.

    What is only compiled twice is a part of what PSI001 says, and none of this.
    """
    for stage, report in _judged(view):
        for package in report.packages:
            for trap in (each for each in package.traps if each.id != "built-twice"):
                severity = Severity.ERROR if trap.is_fatal else Severity.WARNING
                message = f"{package.name} {package.version or ''}: {trap.message}"
                line = line_of(view, stage.image_word.start)
                yield Finding("PSI003", severity, line, message)


def wrong_python(view: View) -> Iterator[Finding]:
    """PSI004: the lock file is not for the Python of the base."""
    for stage, report in _judged(view):
        if report.excluded is not None:
            line = line_of(view, stage.image_word.start)
            message = f"the base has Python {report.target.python}, and {report.excluded}"
            yield Finding("PSI004", Severity.ERROR, line, message)


def full_base(view: View) -> Iterator[Finding]:
    """PSI014: the image carries the compilers of the full base, and needs none."""
    stage = view.last[0]
    if stage.base is None or not stage.base.startswith("debian") or stage.python is None:
        return
    report = view.verdict(stage.base.replace("debian", "slim"), stage.python)
    if report is None or {Verdict.COMPILE, Verdict.UNKNOWN, Verdict.IMPOSSIBLE} & {
        each.verdict for each in report.packages
    }:
        return
    yield Finding(
        "PSI014",
        Severity.NOTE,
        line_of(view, stage.image_word.start),
        f"every package of the lock file has a wheel for {report.target.base}, which has "
        "no compilers and is about 900 MB smaller; use it unless a system library of the "
        "full image is needed",
    )
