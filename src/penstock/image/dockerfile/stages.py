"""The stages of a Dockerfile: what each is built on, and what its base is for a lock file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from penstock.errors import ImageError
from penstock.image.dockerfile.parse import Dockerfile, Instruction, Word
from penstock.image.targets import base_names, data

_VARIABLE: Final = re.compile(r"\$(?:(\w+)|\{(\w+)(?::?-([^}]*))?\})")
_PYTHON: Final = re.compile(
    r"(?:[\w.:-]+/)*python:(?P<version>\d+\.\d+)(?:\.\d+\w*)?(?P<threads>t)?(?:-(?P<rest>[\w.-]+))?"
    r"(?:@sha256:[0-9a-f]{64})?\Z"
)


class Stage(NamedTuple):
    """One stage. ``image``: its base with the defaults of ARG filled in.

    ``base`` and ``python`` are the names that targets have, where the base is an official
    image of Python (or a mirror's copy) that is known; else None. ``parent``: the stage that it
    is built on, by number.
    """

    number: int
    name: str | None
    image: str
    image_word: Word
    instructions: tuple[Instruction, ...]
    base: str | None
    python: str | None
    parent: int | None


def stages(file: Dockerfile) -> list[Stage]:
    """The stages, in order. Raises ``ImageError`` where there is none."""
    arguments: dict[str, str] = {}
    found: list[Stage] = []
    for place, instruction in enumerate(file.instructions):
        if instruction.keyword == "ARG" and not found:
            arguments |= _arguments(instruction, arguments)
        elif instruction.keyword == "FROM":
            after = file.instructions[place + 1 :]
            found.append(_stage(instruction, after, arguments, found))
        elif not found:
            raise ImageError(f"line {instruction.line}: {instruction.keyword} stands before FROM")
    if not found:
        raise ImageError("the Dockerfile has no FROM")
    return found


def chain(all_stages: list[Stage], stage: Stage) -> list[Stage]:
    """The stages that end up in ``stage``, the first one first."""
    parents = chain(all_stages, all_stages[stage.parent]) if stage.parent is not None else []
    return [*parents, stage]


def _arguments(instruction: Instruction, known: dict[str, str]) -> dict[str, str]:
    found = {}
    for word in instruction.operands:
        name, separator, value = word.text.partition("=")
        if separator:
            found[name] = expanded(value, known)
    return found


def expanded(text: str, arguments: dict[str, str]) -> str:
    """``text`` with the defaults of arguments; a variable without one stays as it is."""

    def value(match: re.Match[str]) -> str:
        return arguments.get(match[1] or match[2], match[3] if match[3] is not None else match[0])

    return _VARIABLE.sub(value, text)


def _stage(
    instruction: Instruction,
    after: Iterable[Instruction],
    arguments: dict[str, str],
    before: list[Stage],
) -> Stage:
    operands = instruction.operands
    if not operands:
        raise ImageError(f"line {instruction.line}: FROM names no image")
    image = expanded(operands[0].text, arguments)
    named = len(operands) >= 3 and operands[1].text.upper() == "AS"
    parent = next((each.number for each in reversed(before) if each.name == image.lower()), None)
    body = []
    for each in after:
        if each.keyword == "FROM":
            break
        body.append(each)
    base, python = target_of(image)
    if parent is not None:
        base, python = before[parent].base, before[parent].python
    return Stage(
        number=len(before),
        name=operands[2].text.lower() if named else None,
        image=image,
        image_word=operands[0],
        instructions=(instruction, *body),
        base=base,
        python=python,
        parent=parent,
    )


def target_of(image: str) -> tuple[str | None, str | None]:
    """The base and the Python of an official image's name, as targets name them."""
    match = _PYTHON.match(image)
    if match is None:
        return None, None
    python = match["version"] + (match["threads"] or "")
    if match["version"] not in data()["pythons"]:
        python = ""
    try:
        return base_names(match["rest"] or "debian"), python or None
    except ImageError:
        return None, python or None
