"""A Dockerfile is read into places of its own text; no byte of it is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import ImageError
from penstock.image.dockerfile.findings import Edit, apply
from penstock.image.dockerfile.parse import decode, parse
from penstock.image.dockerfile.stages import stages

WHOLE = """\
# syntax=docker/dockerfile:1
# escape=\\
ARG PYTHON=3.12
from --platform=$BUILDPLATFORM python:${PYTHON}-slim AS Builder
RUN apk add --no-cache gcc \\
    # a comment between
\\t
    musl-dev && FOO=1 pip install "a b" 'c'\\''d' # not a comment of ours
RUN <<EOT
echo "FROM nothing"
EOT
COPY <<"A" <<-B /x/
# inside
A
\tFROM inside
\tB

FROM scratch
CMD ["x"]
""".replace("\\t", "\t")


def words(text: str) -> list[list[str]]:
    return [[word.text for word in each.words] for each in parse(text).instructions]


def test_everything_has_its_place() -> None:
    file = parse(WHOLE)

    assert [each.keyword for each in file.instructions] == [
        "ARG", "FROM", "RUN", "RUN", "COPY", "FROM", "CMD"
    ]  # fmt: skip
    assert [each.line for each in file.instructions] == [3, 4, 5, 9, 12, 18, 19]
    assert all(WHOLE[each.start :].upper().startswith(each.keyword) for each in file.instructions)
    assert file.instructions[3].heredocs == ('echo "FROM nothing"',)
    assert file.instructions[4].heredocs == ("# inside", "\tFROM inside")


def test_words_are_those_of_a_shell() -> None:
    run = parse(WHOLE).instructions[2]

    assert [[word.text for word in command] for command in run.commands()] == [
        ["apk", "add", "--no-cache", "gcc", "musl-dev"],
        ["pip", "install", "a b", "c'd", "#", "not", "a", "comment", "of", "ours"],
    ]
    for word in run.words:
        assert WHOLE[word.start : word.stop].strip("\"'")[:1] == word.text[:1]


def test_a_stage_knows_its_base_through_arguments_and_names() -> None:
    text = "ARG V=3.11\nFROM reg.test:5000/python:${V}-alpine3.17 AS A\nFROM a\nFROM python:3.13\n"
    first, second, third = stages(parse(text))

    assert (first.base, first.python, first.name) == ("alpine3.17", "3.11", "a")
    assert (second.base, second.parent) == ("alpine3.17", 0)
    assert str(third.base).startswith("debian")
    assert stages(parse("FROM ubuntu:24.04\n"))[0].base is None


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_line_ends_stay_what_they_are(ending: str) -> None:
    text = "FROM python:3.11-alpine AS x\nRUN a \\\n  b && c\n# end".replace("\n", ending)
    file = parse(text)
    word = stages(file)[0].image_word

    assert words(text) == [["python:3.11-alpine", "AS", "x"], ["a", "b", "&&", "c"]]
    assert apply(text, [Edit(word.start, word.stop, "y")]) == text.replace(
        "python:3.11-alpine", "y"
    )


def test_the_escape_of_windows_is_heeded() -> None:
    assert words("# escape=`\nFROM a\nRUN b `\n c:\\d\n")[1] == ["b", "c:d"]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("FRUM python\n", "Dockerfile:1: this is no instruction"),
        ("FROM a\n\n<html>\n", "Dockerfile:3: this is no instruction"),
        ("FROM a\nRUN <<EOF\nx\n", "here-document EOF has no end"),
        ("RUN a\nFROM b\n", "RUN stands before FROM"),
        ("# nothing\n", "has no FROM"),
        ("FROM\n", "names no image"),
        ("FROM a\n" + "RUN b\n" * 6000, "more than 5000 instructions"),
    ],
)
def test_what_is_no_dockerfile_is_refused_with_its_line(text: str, rule: str) -> None:
    with pytest.raises(ImageError, match=rule):
        stages(parse(text))


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"FROM a\n\0", "zero byte"),
        (b"FROM \xff\n", "not UTF-8, from byte 5"),
        (b" " * (1024 * 1024 + 1), "more than 1 MiB"),
    ],
)
def test_what_is_no_text_is_refused(content: bytes, rule: str) -> None:
    with pytest.raises(ImageError, match=rule):
        decode(content, "Dockerfile")


@pytest.mark.parametrize("unit", ["\\", "\\ ", "\\\n", '"', "a ", "# \\\n", "<<A", "\n#\\", "$("])
def test_a_megabyte_of_anything_is_read_in_no_time(unit: str) -> None:
    """The test's time limit is the measure: work grows with the text and not with its square."""
    text = "FROM a\nRUN " + unit * (1_000_000 // len(unit))
    try:
        parse(text)
    except ImageError:
        return


@given(st.text(alphabet="FROM RUNCOPY a\\\n\r\t#'\"&;|<-EOF$`\ufeff", max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        file = parse(text)
    except ImageError:
        return
    stops = [0]
    for each in file.instructions:
        assert stops[-1] <= each.start < each.stop <= len(text)
        assert all(each.start <= word.start < word.stop <= each.stop for word in each.words)
        stops.append(each.stop)
