"""The documents say what is there: rooms, dependencies, commands; their links lead somewhere."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def rooms(package: Path) -> set[str]:
    """The parts of the house: packages with code in them, and modules of the ground floor."""
    folders = {
        f"{folder.name}/"
        for folder in package.iterdir()
        if any(path.name != "__init__.py" for path in folder.glob("*.py"))
    }
    return folders | {path.name for path in package.glob("*.py") if path.name[0] != "_"}


def commands(section: str) -> list[str]:
    """The command lines in a document's fenced shell blocks."""
    blocks = re.findall(r"^```(?:sh|console|bash)\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    return [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]


def section(document: str, title: str) -> str:
    return document.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def dead_links(root: Path, document: Path) -> list[str]:
    """Links to files of the checkout that are not there."""
    text = re.sub(
        r"^```.*?^```", "", (root / document).read_text("utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    targets = re.findall(r"\]\(([^)\s#]+)[^)]*\)|(?:src|srcset)=\"([^\"]+)\"", text)
    return [
        f"{document}: {target}"
        for target in filter(None, (a or b for a, b in targets))
        if "://" not in target and not (root / document.parent / target).exists()
    ]


def declared(project: dict[str, object]) -> set[str]:
    """Every package that pyproject.toml asks for, in any extra or group."""
    tables = project["project"]
    assert isinstance(tables, dict)
    asked = [*tables["dependencies"], *project["build-system"]["requires"]]  # type: ignore[index]
    for group in (tables["optional-dependencies"], project["dependency-groups"]):
        asked += [requirement for requirements in group.values() for requirement in requirements]
    return {Requirement(requirement).name for requirement in asked}


def test_the_architecture_names_every_room(root: Path) -> None:
    architecture = (root / "ARCHITECTURE.md").read_text("utf-8")
    there = rooms(root / "src" / "penstock")

    assert "scheduler/" in there
    assert "units.py" in there
    assert [room for room in sorted(there) if f"`{room}`" not in architecture] == []


def test_two_commands_start_everything(root: Path) -> None:
    start = section((root / "README.md").read_text("utf-8"), "Start")

    assert commands(start) == ["./dev serve", "./dev test"]


def test_every_dependency_has_its_reason(root: Path) -> None:
    """docs/dependencies.md has one row for each package that pyproject.toml names, and no other."""
    document = (root / "docs" / "dependencies.md").read_text("utf-8")
    rows = re.findall(r"^\| `([\w.-]+)", document, re.MULTILINE)

    assert len(rows) == len(set(rows))
    assert set(rows) == declared(tomllib.loads((root / "pyproject.toml").read_text("utf-8")))


def test_links_lead_to_files_that_are_there(root: Path, tracked: list[Path]) -> None:
    documents = [path for path in tracked if path.suffix == ".md"]

    assert [dead for document in documents for dead in dead_links(root, document)] == []


def test_the_checks_see_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "here.md").write_text("[a](there.md) [b](here.md#x) [c](https://x.test/y)")
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "wall.py").touch()
    (tmp_path / "units.py").touch()

    assert dead_links(tmp_path, Path("here.md")) == ["here.md: there.md"]
    assert rooms(tmp_path) == {"room/", "units.py"}
    assert commands("```sh\n./dev serve   # one\n```\n") == ["./dev serve"]
    assert section("# T\n\n## A\nx\n## B\ny\n", "A") == "x"
    project = {
        "project": {"dependencies": ["a>=1"], "optional-dependencies": {"x": ["b[y]<2"]}},
        "build-system": {"requires": ["c"]},
        "dependency-groups": {"dev": ["d"]},
    }
    assert declared(project) == {"a", "b", "c", "d"}


def test_the_index_lists_every_page(root: Path) -> None:
    index = (root / "docs" / "index.md").read_text("utf-8")
    pages = {path.name for path in (root / "docs").glob("*.md")} - {"index.md"}

    assert {page for page in pages if f"]({page})" not in index} == set()
