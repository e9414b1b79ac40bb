"""One word, one meaning: names keep to the glossary; and nothing names a place of one machine."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

# Put together here, so that this file does not find itself.
HOSTS = ["py" + "pi.org", "python" + "hosted.org", "npm" + "js.org", "npm" + "js.com"]
PLACES = re.compile("|".join(["/wo" + r"rk/\w", "/ro" + r"ot/[\w.]", "/ho" + r"me/\w"]))

SHORTENED = {"cfg", "cnt", "idx", "mgr", "msg", "num", "req", "resp", "tmp", "val"}


def forbidden_words(architecture: str) -> set[str]:
    """Words that the glossary's last column sets in code: these are kept out of every name."""
    glossary = architecture.partition("\n## Words")[2].partition("\n## ")[0]
    rows = [line for line in glossary.splitlines() if line.startswith("|")]
    return {word for row in rows for word in re.findall(r"`(\w+)`", row.split("|")[-2])}


def names_given(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Names that a module chooses itself: functions, classes, arguments, variables."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.lineno, node.name
            case ast.arg():
                yield node.lineno, node.arg
            case ast.Name(ctx=ast.Store()):
                yield node.lineno, node.id
            case ast.Attribute(ctx=ast.Store()):
                yield node.lineno, node.attr


def words(name: str) -> set[str]:
    """``HTTPTicketOffice_max`` holds http, ticket, office, max; a plural counts as its word."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", name)
    return {form for part in parts for form in (part.lower(), part.lower().removesuffix("s"))}


def misnamed(tree: ast.Module, forbidden: set[str]) -> Iterator[str]:
    for line, name in names_given(tree):
        # service_tier is a field of the providers' protocol and keeps their word.
        if name != "service_tier" and words(name) & forbidden:
            yield f"{line}: {name}"


def test_names_keep_to_the_glossary(root: Path, modules: Mapping[Path, ast.Module]) -> None:
    forbidden = forbidden_words((root / "ARCHITECTURE.md").read_text("utf-8")) | SHORTENED
    found = [
        f"{path}:{name}"
        for path, tree in modules.items()
        if path.is_relative_to("src")
        for name in misnamed(tree, forbidden)
    ]

    assert {"backend", "ticket"} < forbidden
    assert found == []


def test_no_file_names_a_registry_or_a_place_of_one_machine(
    root: Path, tracked: list[Path]
) -> None:
    found = [
        f"{path}:{number}"
        for path in tracked
        for number, line in enumerate((root / path).read_bytes().splitlines(), 1)
        if names_a_place(line.decode("utf-8", "replace"))
    ]

    assert found == []


def names_a_place(line: str) -> bool:
    return any(host in line for host in HOSTS) or PLACES.search(line) is not None


@pytest.mark.parametrize(
    ("sample", "finds"),
    [
        ("class TicketOffice: ...", 1),
        ("def open_ticket(quotas): ...", 2),
        ("self.tickets = 1", 1),
        ("ticketed = response.ticket", 0),
        ("service_tier = 'flex'", 0),
    ],
)
def test_the_check_finds_a_word_that_the_glossary_replaces(sample: str, finds: int) -> None:
    glossary = "# House\n## Words\n| grant | may be sent | `ticket`, token |\n| x | y | `quota` |\n"

    assert forbidden_words(glossary) == {"ticket", "quota"}
    assert len(list(misnamed(ast.parse(sample), {"ticket", "quota"}))) == finds


@pytest.mark.parametrize("line", [f"https://{HOSTS[0]}/simple", "cd /wo" + "rk/x", "/ro" + "ot/.x"])
def test_the_check_finds_a_place(line: str) -> None:
    assert names_a_place(line)
    assert not names_a_place("the network and /homeless/x")
