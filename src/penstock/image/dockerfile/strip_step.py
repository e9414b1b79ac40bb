"""The step of a Dockerfile that strips debug symbols, where no Penstock is installed.

``elf.without_symbols`` uses the standard library alone, so its text goes into the Dockerfile, as
the arguments of a ``printf`` that writes it to a file: heredocs, which would read better, are
unknown to builders that are still about (buildah before 1.33, Docker without BuildKit's newer
front end). Comments and docstrings are left out; the step says where they stand.

In the image a file is replaced only when it became smaller; ``penstock image strip`` also reads
everything back and compares, and brings ``RECORD`` up to date. That its result is the same is
tested.
"""

from __future__ import annotations

import ast
from functools import cache
from importlib.resources import files
from typing import Final

_FUNCTIONS: Final = ("without_symbols", "check_ending")

_MAIN: Final = """
for folder, folders, names in os.walk(sys.argv[1]):
    for path in [os.path.join(folder, name) for name in names if not folder.endswith(".libs")]:
        if os.path.islink(path) or not os.path.isfile(path):
            continue
        try:
            with open(path, "rb") as file:
                before = file.read(4)
                before += file.read() if before == b"\\x7fELF" else b""
            after = without_symbols(before)
        except ValueError:
            continue
        if len(after) < len(before):
            with open(path + ".new", "wb") as file:
                file.write(after)
            shutil.copystat(path, path + ".new")
            os.replace(path + ".new", path)
"""


@cache
def strip_program() -> str:
    """The program: it takes the prefix to strip as its argument."""
    source = files("penstock.image").joinpath("elf.py").read_text("utf-8")
    lines = source.splitlines()
    functions = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name in _FUNCTIONS:
            docstring = node.body[0]
            kept = [
                *lines[node.lineno - 1 : docstring.lineno - 1],
                *lines[docstring.end_lineno : node.end_lineno],
            ]
            functions.append("\n".join(line for line in kept if line.strip()))
    head = "import os, shutil, struct, sys"
    return "\n".join([head, *functions, _MAIN.strip("\n")])


def strip_lines(path: str) -> list[str]:
    """The lines of a RUN instruction that writes the program to ``path``."""
    program = strip_program().splitlines()
    # Each line is one argument in single quotes, so that neither shell nor Dockerfile reads it.
    assert not any("'" in line or line.endswith("\\") for line in program)
    return ["printf '%s\\n' \\", *(f"    '{line}' \\" for line in program), f"    >{path}"]
