"""No module lies dead: each is imported by another, or is where a process starts."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import grimp


def texts(trees: Iterable[ast.Module]) -> set[str]:
    """Every text constant: a module started by its name (``-m``, lazily) stands in one."""
    return {
        node.value
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def dead(importers: Mapping[str, Collection[str]], entries: Collection[str]) -> list[str]:
    """Modules that nothing imports, other than from inside themselves, and nothing starts.

    A package lives by any of its modules.
    """
    return sorted(
        module
        for module, by in importers.items()
        if module not in entries
        and not by
        and not any(other.startswith(f"{module}.") for other in importers)
    )


def test_no_module_is_dead(root: Path, modules: Mapping[Path, ast.Module]) -> None:
    graph = grimp.build_graph("penstock", cache_dir=None)
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    entries = {target.partition(":")[0] for target in project["scripts"].values()}
    entries |= texts(tree for path, tree in modules.items() if path.is_relative_to("src"))
    entries.add("penstock.__main__")
    importers = {
        module: graph.find_modules_that_directly_import(module) for module in graph.modules
    }

    assert dead(importers, entries) == []


def test_the_check_finds_a_dead_module() -> None:
    importers = {"p": set(), "p.main": set(), "p.used": {"p.main"}, "p.left": set()}

    assert dead(importers, {"p.main"}) == ["p.left"]
