"""Functions and modules are small enough to see whole, and every module says what it is for."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

FUNCTION_LINES_MAX = 70
MODULE_LINES_MAX = 600


def long_functions(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                yield f"{node.lineno}: {node.name} has {lines} lines"


def test_no_function_is_longer_than_a_screen(modules: Mapping[Path, ast.Module]) -> None:
    found = [f"{path}:{long}" for path, tree in modules.items() for long in long_functions(tree)]

    assert found == []


def test_no_module_is_longer_than_600_lines(root: Path, modules: Mapping[Path, ast.Module]) -> None:
    lengths = {path: len((root / path).read_text("utf-8").splitlines()) for path in modules}

    assert {path: lines for path, lines in lengths.items() if lines > MODULE_LINES_MAX} == {}


def test_every_module_opens_with_what_it_is_for(modules: Mapping[Path, ast.Module]) -> None:
    assert [str(path) for path, tree in modules.items() if not ast.get_docstring(tree)] == []


def test_the_check_finds_a_long_function() -> None:
    body = "    pass\n"

    assert list(long_functions(ast.parse("async def f():\n" + body * 69))) == []
    assert list(long_functions(ast.parse("async def f():\n" + body * 70))) == [
        "1: f has 71 lines",
    ]
