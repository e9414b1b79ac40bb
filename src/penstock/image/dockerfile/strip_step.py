"""The step of a Dockerfile that strips debug symbols, where no Penstock is installed.

``elf.without_symbols`` uses the standard library alone, so its text goes into the Dockerfile, as
the arguments of a ``printf`` that writes it to a file: heredocs, which would read better, are
unknown to builders that are still about (buildah before 1.33, Docker without BuildKit's newer
front end). Comments and docstrings are left out; the step says where they stand.

It promises what ``penstock image strip`` promises of a file: what was written is read back and
compared with the original, which stays where they differ, and ``RECORD`` tells the new hashes and
sizes. It leaves out what an image's own step does not need: a report, hard links, other file
systems. That its result is the same is tested.
"""

from __future__ import annotations

import ast
from functools import cache
from importlib.resources import files
from typing import Final

_FUNCTIONS: Final = ("without_symbols", "check_ending", "differences", "layout")

_MAIN: Final = """
changed = {}
for folder, folders, names in os.walk(sys.argv[1]):
    for path in [os.path.join(folder, name) for name in names if ".libs/" not in folder + "/"]:
        if os.path.islink(path) or not os.path.isfile(path):
            continue
        with open(path, "rb") as file:
            before = file.read(4)
            before += file.read() if before == b"\\x7fELF" else b""
        try:
            after = without_symbols(before)
        except ValueError:
            continue
        if len(after) >= len(before):
            continue
        with open(path + ".new", "wb") as file:
            file.write(after)
        with open(path + ".new", "rb") as file:
            found = differences(before, file.read())
        if found:
            print("left as it is:", path, *found)
            os.remove(path + ".new")
            continue
        shutil.copystat(path, path + ".new")
        os.replace(path + ".new", path)
        digest = base64.urlsafe_b64encode(hashlib.sha256(after).digest()).decode().rstrip("=")
        changed[os.path.normpath(path)] = ["sha256=" + digest, len(after)]
for record in glob.glob(sys.argv[1] + "/**/*.dist-info/RECORD", recursive=True):
    site = os.path.dirname(os.path.dirname(record))
    with open(record, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.reader(file) if row]
    told = {row[0]: os.path.normpath(os.path.join(site, row[0])) for row in rows}
    if any(path in changed for path in told.values()):
        with open(record, "w", newline="", encoding="utf-8") as file:
            for row in rows:
                row[1:] = changed.get(told[row[0]], row[1:])
                csv.writer(file, lineterminator=chr(10)).writerow(row)
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
            functions.append(
                "\n".join(line for line in kept if line.strip(" ")[:1] not in {"", "#"})
            )
    head = "import base64, csv, glob, hashlib, os, shutil, struct, sys\nfrom typing import Any"
    return "\n".join([head, *functions, _MAIN.strip("\n")])


def strip_lines(path: str) -> list[str]:
    """The lines of a RUN instruction that writes the program to ``path``."""
    program = strip_program().splitlines()
    # Each line is one argument in single quotes, so that neither shell nor Dockerfile reads it.
    assert not any("'" in line or line.endswith("\\") for line in program)
    return ["printf '%s\\n' \\", *(f"    '{line}' \\" for line in program), f"    >{path}"]
