"""``pyproject.toml``: the project's own requirements, for locks that do not say what wants what.

Nothing is built to learn them: requirements that the project computes (``dynamic``) cannot be
read, and the error says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from penstock.errors import ImageError
from penstock.image.files import Table, plain, read_toml
from penstock.image.locks.parts import need_of_requirement
from penstock.image.locks.poetry import need_of_poetry
from penstock.image.model import Need

NAME = "pyproject.toml"
INCLUDES_MAX = 50


def project_table(root: Path) -> Table | None:
    """The tables of the project's ``pyproject.toml``; None where there is none."""
    path = root / NAME
    if not path.is_file():
        return None
    return Table(read_toml(path, root)[0], NAME)


def requirements_of(top: Table, extras: Iterable[str], groups: Iterable[str]) -> list[str]:
    """The project's requirements as it writes them, for resolving. Raises ``ImageError``."""
    needs_of(top)  # what cannot be read is refused there
    project = top.table("project")
    poetry = top.table("tool").table("poetry")
    if "dependencies" in poetry:
        raise ImageError(f"{NAME}: its requirements are written Poetry's way; run poetry lock")
    found = list(project.texts("dependencies"))
    for extra in extras:
        found += project.table("optional-dependencies").texts(extra)
    for group in groups:
        found += _group_texts(top.table("dependency-groups"), group)
    return found


def _group_texts(groups: Table, name: str) -> list[str]:
    """A group's requirements and those of the groups it includes, which end (``needs_of``)."""
    found: list[str] = []
    for entry in groups.values[name]:
        if isinstance(entry, str):
            found.append(entry)
        else:
            found += _group_texts(groups, str(entry.get("include-group")))
    return found


def needs_of(top: Table) -> dict[str, tuple[Need, ...]]:
    """The edges from the project, as ``Lock.needs`` has them. Raises ``ImageError``."""
    project = top.table("project")
    poetry = top.table("tool").table("poetry")
    if "dependencies" in project.texts("dynamic") and "dependencies" not in poetry:
        raise ImageError(
            f"{NAME}: the dependencies are dynamic, so only a build would tell them; nothing of a "
            "project is run here: write them down, or check a lock file"
        )
    needs: dict[str, tuple[Need, ...]] = {"": _requirements(project, "dependencies")}
    optional = project.table("optional-dependencies")
    for extra in optional.values:
        needs[f"extra:{extra}"] = _requirements(optional, extra)
    for group in top.table("dependency-groups").values:
        needs[f"group:{group}"] = _group(top.table("dependency-groups"), group, ())
    return _with_poetry(poetry, needs)


def _requirements(table: Table, key: str) -> tuple[Need, ...]:
    return tuple(need_of_requirement(text, table.where) for text in table.texts(key))


def _group(groups: Table, name: str, above: tuple[str, ...]) -> tuple[Need, ...]:
    """A dependency group (PEP 735) with those it includes."""
    if name in above or len(above) > INCLUDES_MAX:
        raise ImageError(f"{NAME}: the dependency group {plain(name)!r} includes itself")
    if name not in groups:
        raise ImageError(f"{NAME}: there is no dependency group {plain(name)!r}")
    entries = groups.values[name]
    if not isinstance(entries, list):
        raise ImageError(f"{NAME}: the dependency group {plain(name)!r} is not a list")
    needs: list[Need] = []
    for entry in entries:
        if isinstance(entry, str):
            needs.append(need_of_requirement(entry, groups.where))
            continue
        included = Table(entry, groups.where).text("include-group") or ""
        needs += _group(groups, included, (*above, name))
    return tuple(needs)


def _with_poetry(poetry: Table, needs: dict[str, tuple[Need, ...]]) -> dict[str, tuple[Need, ...]]:
    """Add what ``[tool.poetry]`` says, in its own way of writing."""
    found: dict[str, list[Need]] = {key: list(value) for key, value in needs.items()}
    optional: dict[str, list[Need]] = {}
    for need, is_optional in _poetry_needs(poetry, "dependencies"):
        if is_optional:
            optional.setdefault(need.name, []).append(need)
        else:
            found[""].append(need)
    extras = poetry.table("extras")
    for extra in extras.values:
        wanted = [need_of_requirement(each, extras.where) for each in extras.texts(extra)]
        for need in wanted:
            found.setdefault(f"extra:{extra}", []).extend(optional.get(need.name, [need]))
    groups = poetry.table("group")
    for group in groups.values:
        listed = [need for need, _ in _poetry_needs(groups.table(group), "dependencies")]
        found.setdefault(f"group:{group}", []).extend(listed)
    return {key: tuple(value) for key, value in found.items()}


def _poetry_needs(table: Table, key: str) -> list[tuple[Need, bool]]:
    found: list[tuple[Need, bool]] = []
    for name, value in table.items(key):
        if name.lower() == "python":
            continue
        values: list[Any] = value if isinstance(value, list) else [value]
        found += [need_of_poetry(name, each, table.where) for each in values]
    return found
