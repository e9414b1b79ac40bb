"""What a Dockerfile has to know of a project: its installer, its files, what it starts.

Read from files alone; nothing of the project is run. Whatever goes into a Dockerfile is checked
against a narrow grammar first: a name with a line break in it would be an instruction.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from penstock.errors import ImageError
from penstock.image.files import Table, canonical_name, plain, read_text
from penstock.image.locks.find import find, read
from penstock.image.locks.project import NAME as PYPROJECT
from penstock.image.locks.project import project_table
from penstock.image.model import Lock, Source

_PATH: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+/-]{0,254}")
_WORD: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{1,500}")
_INCLUDED: Final = re.compile(
    r"^\s*(?:-r|--requirement|-c|--constraint)[ =]?\s*(\S+)", re.MULTILINE
)
_FILES_MAX: Final = 20


class Facts(msgspec.Struct, frozen=True):
    """A project as far as its image is concerned.

    ``installer``: ``uv`` (uv.lock), ``pdm``, ``poetry`` or ``requirements`` (a flat list, pylock
    included). ``files`` are what it needs to install the dependencies, relative to the project.
    ``is_package``: there is something to build; otherwise the sources are run as they lie.
    """

    installer: str
    lock: Lock
    lock_file: str
    files: tuple[str, ...]
    is_hashed: bool
    is_package: bool
    name: str | None = None
    version: str | None = None
    description: str | None = None
    license: str | None = None
    source: str | None = None
    scripts: tuple[str, ...] = ()


def facts(project: Path, lock_name: str | None = None) -> Facts:
    """Read the project at ``project``. Raises ``ImageError`` if no image can be made of it."""
    if not project.is_dir():
        raise ImageError(f"{plain(project)} is no directory of a project")
    path = project / safe_path(lock_name) if lock_name is not None else find(project)[0]
    lock = read(path)
    if not lock.is_locked:
        raise ImageError(
            f"{plain(path.name)} names no versions, so every build could be another: lock them "
            "first (uv lock; pdm lock; poetry lock; uv pip compile --generate-hashes)"
        )
    relative = path.relative_to(project).as_posix()
    top = project_table(project)
    described = _described(top) if top is not None else {}
    _refuse_local(lock, described.get("name"))
    installer = {"uv.lock": "uv", "pdm.lock": "pdm", "poetry.lock": "poetry"}.get(
        lock.format, "requirements"
    )
    files = list(_requirement_files(project, relative) if path.suffix != ".toml" else [relative])
    if installer != "requirements":
        files = [relative, PYPROJECT]
    return Facts(
        installer=installer,
        lock=lock,
        lock_file=relative,
        files=tuple(files),
        is_hashed=all(package.hashes for package in lock.packages),
        is_package=top is not None and _is_package(top),
        **described,
    )


def _refuse_local(lock: Lock, own_name: str | None) -> None:
    """Refuse packages that are directories; the project itself may stand in its tool's own lock.

    Their sources would have to be copied before any dependency is installed, so that each change
    of one installs everything again: the opposite of what is written for.
    """
    has_itself = lock.format in {"uv.lock", "pdm.lock", "poetry.lock"}
    local = [
        each.name
        for each in lock.packages
        if each.source is Source.PATH and not (has_itself and each.name == own_name)
    ]
    if local:
        raise ImageError(
            f"{plain(lock.path)} has packages that are directories ({plain(', '.join(local))}), "
            "which are not there yet when dependencies are installed. Export it without them "
            "(`uv export --no-emit-local -o requirements.txt`), write the Dockerfile from that "
            "(--lock requirements.txt), and add their directories to the `--no-deps .` of its "
            "stage `project`; or publish them"
        )


def safe_path(text: str) -> str:
    """A relative path without anything that a Dockerfile or a shell reads."""
    if not _PATH.fullmatch(text) or ".." in text.split("/"):
        raise ImageError(
            f"{plain(text)!r} cannot stand in a Dockerfile: a path within the project of letters, "
            "digits and . _ + - is needed"
        )
    return text


def one_line(text: str | None) -> str | None:
    """A text that fits into one line of a label; None for one that does not."""
    return text if text is not None and _WORD.fullmatch(text) else None


def _requirement_files(project: Path, first: str) -> Iterator[str]:
    """A requirements file and those that it includes, all of the project."""
    waiting, seen = [first], list[str]()
    while waiting:
        name = safe_path(waiting.pop())
        if name in seen:
            continue
        seen.append(name)
        if len(seen) > _FILES_MAX:
            raise ImageError(f"{first} includes more than {_FILES_MAX} files")
        yield name
        folder = Path(name).parent
        for included in _INCLUDED.findall(read_text(project / name, project)):
            waiting.append((folder / included).as_posix())


def _is_package(top: Table) -> bool:
    tool = top.table("tool")
    if tool.table("uv").values.get("package") is False:
        return False
    if tool.table("poetry").values.get("package-mode") is False:
        return False
    if tool.table("pdm").values.get("distribution") is False:
        return False
    return "build-system" in top


def _described(top: Table) -> dict[str, Any]:
    project, poetry = top.table("project"), top.table("tool").table("poetry")
    table = project if "name" in project else poetry
    name = table.text("name")
    # A version that is computed when the project is built is left out rather than guessed.
    found: dict[str, Any] = {
        "name": canonical_name(name, PYPROJECT) if name is not None else None,
        "version": one_line(table.text("version")),
        "description": one_line(table.text("description")),
    }
    license_ = table.values.get("license")
    found["license"] = one_line(license_) if isinstance(license_, str) else None
    urls = {key.lower(): value for key, value in project.items("urls")}
    source = next((urls[key] for key in ("source", "repository", "homepage") if key in urls), None)
    is_url = isinstance(source, str) and re.fullmatch(r"https?://[\w.:/~%-]{1,300}", source)
    found["source"] = source if is_url else None
    scripts = [*project.table("scripts").values, *poetry.table("scripts").values]
    found["scripts"] = tuple(script for script in scripts if _PATH.fullmatch(script))
    return found
