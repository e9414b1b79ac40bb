"""Reads a Dockerfile into instructions and their shell commands, each with its place in the text.

Nothing is normalised: a place is a slice of the text, so an edit changes what it names and keeps
every other byte, line ends, comments and parser directives included. What is read is what the
rules need: instructions over continued lines with comments among them, the ``escape`` directive,
heredocs, ``FROM`` with ``--platform``, ``ARG`` in it and ``AS``; of a shell command its words,
quotes removed. Variables in a shell are left as they are written.

Looked at first: dockerfile-parse takes the lines of a heredoc for instructions, and
tree-sitter-dockerfile has exact places but needs a native library, with no wheel for musl on
arm64. The grammar that matters here is small.

Reference: docs.docker.com/reference/dockerfile (parser directives, escape, here-documents).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Final, NamedTuple

from penstock.errors import ImageError

BYTES_MAX: Final = 1024 * 1024
INSTRUCTIONS_MAX: Final = 5000
WORDS_MAX: Final = 50_000

_DIRECTIVE: Final = re.compile(r"#\s*(\w+)\s*=\s*(.*?)\s*\Z")
_KEYWORD: Final = re.compile(r"\s*([A-Za-z]+)(?:\s|\Z)")
_HEREDOC: Final = re.compile(r"<<(-?)([\"']?)([A-Za-z_][A-Za-z0-9_.]*)\2")
_KNOWN: Final = frozenset(
    [
        "ADD",
        "ARG",
        "CMD",
        "COPY",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "FROM",
        "HEALTHCHECK",
        "LABEL",
        "MAINTAINER",
        "ONBUILD",
        "RUN",
        "SHELL",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "WORKDIR",
    ]
)


class Word(NamedTuple):
    """A word as the shell would see it, and the slice of the text that it was written as."""

    text: str
    start: int
    stop: int


class Instruction(NamedTuple):
    """One instruction: its keyword in capitals, the slice of it, its first line from 1.

    ``words`` are those after the keyword, separators of commands (``&&``, ``;``) among them.
    ``heredocs`` are the bodies of its here-documents.
    """

    keyword: str
    start: int
    stop: int
    line: int
    words: tuple[Word, ...]
    heredocs: tuple[str, ...]

    @property
    def flags(self) -> list[str]:
        """The leading words that begin with two dashes: ``--mount=…``, ``--from=…``."""
        found = []
        for word in self.words:
            if not word.text.startswith("--"):
                break
            found.append(word.text)
        return found

    @property
    def operands(self) -> tuple[Word, ...]:
        """The words behind the flags."""
        return self.words[len(self.flags) :]

    def commands(self) -> Iterator[list[Word]]:
        """The simple commands of a RUN, each as its words; assignments before one left out."""
        command: list[Word] = []
        for word in self.operands:
            if word.text in SEPARATORS and word.stop - word.start == len(word.text):
                if command:
                    yield command
                command = []
            elif command or not _is_prefix(word.text):
                command.append(word)
        if command:
            yield command


SEPARATORS: Final = frozenset({"&&", "||", ";", "|", "&", "(", ")"})
_PREFIXES: Final = frozenset({"if", "then", "else", "do", "!", "{", "sudo", "exec", "env", "set"})
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")


def _is_prefix(word: str) -> bool:
    return word in _PREFIXES or _ASSIGNMENT.match(word) is not None


class Dockerfile(NamedTuple):
    """A text and its instructions in order."""

    text: str
    instructions: tuple[Instruction, ...]


def decode(content: bytes, name: str) -> str:
    """The text of a Dockerfile. Raises ``ImageError`` for what cannot be one."""
    if len(content) > BYTES_MAX:
        raise ImageError(f"{name} has more than {BYTES_MAX >> 20} MiB, which no Dockerfile has")
    if b"\0" in content:
        raise ImageError(f"{name} is not a text: it has a zero byte")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ImageError(f"{name} is not UTF-8, from byte {error.start}") from None


def parse(text: str, name: str = "Dockerfile") -> Dockerfile:
    """Read ``text``. Raises ``ImageError`` naming the line that is no instruction."""
    lines = text.split("\n")
    escape = _escape(lines)
    instructions: list[Instruction] = []
    number, offset, words_left = 0, 0, WORDS_MAX
    while number < len(lines):
        first, start = number, offset
        if _is_nothing(lines[number]):
            offset += len(lines[number]) + 1
            number += 1
            continue
        number, offset = _logical_end(lines, number, offset, escape)
        stop = offset - 1
        match = _KEYWORD.match(lines[first].removeprefix("\ufeff"))
        keyword = match[1].upper() if match else ""
        if match is None or keyword not in _KNOWN:
            raise ImageError(f"{name}:{first + 1}: this is no instruction of a Dockerfile")
        begin = start + len(lines[first]) - len(lines[first].removeprefix("\ufeff")) + match.end(1)
        words = tuple(islice(_words(text, begin, stop, escape), words_left + 1))
        bodies: list[str] = []
        if keyword in {"RUN", "COPY", "ADD", "ONBUILD"}:
            for marker in _heredocs(text[start:stop]):
                body, number, offset = _heredoc(
                    lines, number, offset, marker, f"{name}:{first + 1}"
                )
                bodies.append(body)
        words_left -= len(words)
        if len(instructions) >= INSTRUCTIONS_MAX or words_left < 0:
            raise ImageError(
                f"{name} has more than {INSTRUCTIONS_MAX} instructions or too long ones"
            )
        instructions.append(
            Instruction(keyword, start, min(offset - 1, len(text)), first + 1, words, tuple(bodies))
        )
    return Dockerfile(text, tuple(instructions))


def _escape(lines: list[str]) -> str:
    """The escape character that the directives at the head name; a backslash without one."""
    for line in lines:
        match = _DIRECTIVE.match(line.removeprefix("\ufeff").strip())
        if match is None:
            return "\\"
        if match[1].lower() == "escape" and match[2] in {"\\", "`"}:
            return match[2]
    return "\\"


def _is_nothing(line: str) -> bool:
    words = line.removeprefix("\ufeff").strip()
    return not words or words.startswith("#")


def _logical_end(lines: list[str], number: int, offset: int, escape: str) -> tuple[int, int]:
    """The line and offset behind an instruction that begins at line ``number``."""
    while True:
        line = lines[number]
        is_continued = line.rstrip().endswith(escape)
        offset += len(line) + 1
        number += 1
        # Comments and empty lines between continued ones belong to the instruction.
        while is_continued and number < len(lines) - 1 and _is_nothing(lines[number]):
            offset += len(lines[number]) + 1
            number += 1
        if not is_continued or number >= len(lines):
            return number, offset


def _heredocs(text: str) -> list[tuple[bool, str]]:
    return [(match[1] == "-", match[3]) for match in _HEREDOC.finditer(text)]


def _heredoc(
    lines: list[str], number: int, offset: int, marker: tuple[bool, str], where: str
) -> tuple[str, int, int]:
    has_tabs, name = marker
    body: list[str] = []
    while number < len(lines):
        line = lines[number]
        offset += len(line) + 1
        number += 1
        bare = line.removesuffix("\r")
        if (bare.lstrip("\t") if has_tabs else bare) == name:
            return "\n".join(body), number, offset
        body.append(bare)
    raise ImageError(f"{where}: the here-document {name} has no end")


_COMMENT: Final = re.compile(r"[ \t]*#")
_BLANK: Final = re.compile(r"[ \t\r]*(?=\n|\Z)")
_TOKEN: Final = re.compile(r"&&|\|\||[;|&()]")


def _words(text: str, start: int, stop: int, escape: str) -> Iterator[Word]:
    """The words between two offsets, with quotes, escapes and continued lines."""
    place = start
    while place < stop:
        character = text[place]
        if character == "\n" or character.isspace():
            place += 1
            if character == "\n" and _COMMENT.match(text, place, stop):
                place = _line_end(text, place, stop)
            continue
        continued = _continuation(text, place, stop, escape)
        if continued:
            place = continued
            continue
        token = _TOKEN.match(text, place, stop)
        if token is not None:
            yield Word(token[0], place, token.end())
            place = token.end()
            continue
        word, end = _word(text, place, stop, escape)
        yield Word(word, place, end)
        place = end


def _line_end(text: str, place: int, stop: int) -> int:
    found = text.find("\n", place, stop)
    return stop if found < 0 else found


def _continuation(text: str, place: int, stop: int, escape: str) -> int:
    """The offset of the line end that an escape at ``place`` takes away; 0 if it takes none."""
    if text[place] != escape:
        return 0
    blank = _BLANK.match(text, place + 1, stop)
    return blank.end() if blank is not None else 0


def _word(text: str, place: int, stop: int, escape: str) -> tuple[str, int]:
    characters: list[str] = []
    quote = ""
    while place < stop:
        character = text[place]
        continued = _continuation(text, place, stop, escape)
        if continued:
            if not quote:
                break
            place = continued + 1
        elif quote:
            if character == quote:
                quote = ""
            else:
                characters.append(character)
            place += 1
        elif character in "\"'":
            quote = character
            place += 1
        elif character.isspace() or _TOKEN.match(character):
            break
        else:
            if character == "\\" and place + 1 < stop:
                place += 1
            characters.append(text[place])
            place += 1
    return "".join(characters), place
