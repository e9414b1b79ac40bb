"""Which lock file a project has, and reading it.

A lock says more than requirements, and uv's lock says more than the others, so that is the order.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from penstock.errors import ImageError
from penstock.image.files import Table, plain, read_text, read_toml
from penstock.image.locks import pdm, poetry, pylock, requirements, uv
from penstock.image.locks.project import NAME as PYPROJECT
from penstock.image.locks.project import needs_of, project_table
from penstock.image.model import Lock, Need

NAMES: Final = ("uv.lock", "pylock.toml", "pdm.lock", "poetry.lock", "requirements.txt", PYPROJECT)


def find(project: Path) -> tuple[Path, tuple[str, ...]]:
    """The file to read for ``project``, a directory or a file, and the names passed over.

    Raises ``ImageError`` where there is none.
    """
    if not project.is_dir():
        if not os.path.lexists(project):
            raise ImageError(f"there is no {plain(project)}")
        return project, ()
    there = [name for name in NAMES if (project / name).is_file() or (project / name).is_symlink()]
    if not there:
        named = sorted(path.name for path in project.glob("pylock.*.toml"))[:1]
        if not named:
            raise ImageError(
                f"{plain(project)} has none of {', '.join(NAMES)}; name the file itself"
            )
        there = named
    return project / there[0], tuple(name for name in there[1:] if name != PYPROJECT)


def read(path: Path) -> Lock:
    """Read a lock file by its name. Raises ``ImageError``."""
    root, name = path.parent, path.name
    if name.endswith((".txt", ".in")) or re.fullmatch(r"requirements[\w.-]*\.lock", name):
        return requirements.read(read_text(path, root), root / name, root)
    if name == PYPROJECT:
        return _bare(path)
    is_known = name in NAMES or (name.startswith("pylock.") and name.endswith(".toml"))
    if not is_known and not name.endswith((".lock", ".toml")):
        raise ImageError(
            f"{plain(name)}: its name says no format; known are {', '.join(NAMES)} and "
            "pylock.NAME.toml"
        )
    document, text = read_toml(path, root)
    top = Table(document, name)
    if "lock-version" in top:
        return pylock.read(document, text, name)
    if name == "pdm.lock" or "lock_version" in top.table("metadata"):
        return pdm.read(top, text, name, _needs(root))
    if name == "poetry.lock" or "lock-version" in top.table("metadata"):
        return poetry.read(top, text, name, _needs(root))
    if name == "uv.lock" or "requires-python" in top:
        return uv.read(top, text, name)
    raise ImageError(f"{plain(name)} is no lock file of uv, PDM or Poetry and no pylock.toml")


def _needs(root: Path) -> dict[str, tuple[Need, ...]] | None:
    top = project_table(root)
    return needs_of(top) if top is not None else None


def _bare(path: Path) -> Lock:
    """A project without a lock: its requirements are there, their versions are not."""
    top = Table(read_toml(path, path.parent)[0], path.name)
    needs = needs_of(top)
    return Lock(
        path=path.name,
        format=PYPROJECT,
        packages=(),
        needs=needs,
        requires_python=top.table("project").text("requires-python"),
        is_locked=False,
        extras=tuple(key[6:] for key in needs if key.startswith("extra:")),
        groups=tuple(key[6:] for key in needs if key.startswith("group:")),
    )
