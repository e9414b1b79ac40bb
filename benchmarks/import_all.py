"""Imports every top-level module of every package that the running Python has installed.

    PYTHON benchmarks/import_all.py

Run by the Python that is to be examined, by benchmarks/image_build.py and benchmarks/musl.sh. It
prints one JSON object: how many there are, and what went wrong with which. Each is imported in a
process of its own, so that a crash (a wheel for another libc) is told and not the end.
"""

import importlib.metadata
import json
import pathlib
import subprocess
import sys


def modules():
    """Names of the packages and modules that the installed distributions bring at their top."""
    names = set()
    for distribution in importlib.metadata.distributions():
        for file in distribution.files or ():
            top = file.parts[0]
            name = top.split(".")[0]
            if not name.isidentifier() or top.endswith(".dist-info"):
                continue
            place = pathlib.Path(distribution.locate_file(top))
            if top.endswith((".py", ".so")) or (place / "__init__.py").is_file():
                names.add(name)
    return sorted(names)


def failure(name):
    """Why a module cannot be imported; None if it can."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"import {name}"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode < 0:
        return f"killed by signal {-done.returncode}"
    return done.stderr.strip()[-300:] if done.returncode else None


if __name__ == "__main__":
    found = modules()
    failed = {name: why for name in found if (why := failure(name)) is not None}
    print(json.dumps({"imported": len(found) - len(failed), "failed": failed}))
