"""No module lies dead: each is imported by another, or is where a process starts."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import grimp


def named(trees: Iterable[ast.Module]) -> set[str]:
    """Modules started by their name, as ``-m`` or lazily: it stands in a text, whole or in two."""
    texts = {
        node.value
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    packages = {text for text in texts if text.startswith("penstock.") and text.endswith(".")}
    whole = {text for text in texts if text.startswith("penstock")}
    return (
        whole
        | {f"{text}.__main__" for text in whole}
        | {package + text for package in packages for text in texts}
    )


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
    entries |= named(tree for path, tree in modules.items() if path.is_relative_to("src"))
    entries.add("penstock.__main__")
    importers = {
        module: graph.find_modules_that_directly_import(module) for module in graph.modules
    }

    assert dead(importers, entries) == []


def test_the_check_finds_a_dead_module() -> None:
    importers = {"p": set(), "p.main": set(), "p.used": {"p.main"}, "p.left": set()}

    assert dead(importers, {"p.main"}) == ["p.left"]
    assert "penstock.cli.keys" in named([ast.parse("load(f'penstock.cli.{n}', ['keys'])")])
    assert "penstock.worker.__main__" in named([ast.parse("run('-m', 'penstock.worker')")])
