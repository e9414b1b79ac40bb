"""What the rules look at: a Dockerfile with its stages, and what the lock file says of a base."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from penstock.image.dockerfile.parse import Dockerfile, Instruction, Word
from penstock.image.dockerfile.stages import Stage, chain
from penstock.image.report import TargetReport

Judge = Callable[[str, str], TargetReport | None]
"""The lock file's report for a base and a Python, or None where it is not known."""


class View(msgspec.Struct, frozen=True):
    """What the rules look at. ``ignored`` is the text of ``.dockerignore``, None without one."""

    file: Dockerfile
    stages: list[Stage]
    verdict: Judge
    ignored: str | None

    @property
    def last(self) -> list[Stage]:
        """The stages that end up in the image."""
        return chain(self.stages, self.stages[-1])

    def installs(self) -> Iterator[tuple[Stage, Instruction, list[Word]]]:
        """Every command that installs Python packages."""
        for stage, instruction, command in self.commands():
            if is_install([word.text for word in command]):
                yield stage, instruction, command

    def commands(self) -> Iterator[tuple[Stage, Instruction, list[Word]]]:
        """Every shell command of every RUN, with its stage."""
        for stage in self.stages:
            for instruction in stage.instructions:
                if instruction.keyword == "RUN":
                    for command in instruction.commands():
                        yield stage, instruction, command


_PIP: Final = re.compile(r"(?:.*/)?(?:pip3?(?:\.\d+)?)\Z")
_PYTHON: Final = re.compile(r"(?:.*/)?python3?(?:\.\d+)?\Z")


def installer(words: list[str]) -> str | None:
    """``pip``, ``uv``, ``poetry`` or ``pdm``, if the command is one of theirs that installs."""
    if words and _PYTHON.match(words[0]) and words[1:2] == ["-m"]:
        words = words[2:]
    program, rest = (words[0], words[1:]) if words else ("", [])
    verbs = [word for word in rest if not word.startswith("-")][:2]
    if _PIP.match(program) and verbs[:1] == ["install"]:
        return "pip"
    if program.endswith("uv") and (
        verbs[:1] == ["sync"] or verbs in (["pip", "install"], ["pip", "sync"])
    ):
        return "uv"
    if program.endswith(("poetry", "pdm")) and verbs[:1] in (["install"], ["sync"]):
        return "poetry" if program.endswith("poetry") else "pdm"
    return None


def is_install(words: list[str]) -> bool:
    """Whether a command installs packages of a project, rather than an installer itself."""
    kind = installer(words)
    if kind is None:
        return False
    targets = [word for word in words if not word.startswith("-")]
    tools = {"pip", "uv", "poetry", "pdm", "setuptools", "wheel", "pipx", "hatch", "hatchling"}
    asked = []
    if "install" in targets and kind in {"pip", "uv"}:
        arguments = targets[targets.index("install") + 1 :]
        asked = [re.split(r"[=<>~!\[]", word)[0] for word in arguments]
    return not (asked and all(word in tools for word in asked) and "-r" not in words)


def line_of(view: View, place: int) -> int:
    """The line, from 1, of an offset."""
    return view.file.text.count("\n", 0, place) + 1
