"""``penstock image strip``: takes the debug symbols out of an installed prefix, safely.

Wheels carry them to everybody: of LangChain, OpenAI's SDK, FastAPI, numpy and spaCy on glibc
(346.9 MB) half are symbols that nothing reads at run time. How an object is cut, and why that
cannot break it, stands in ``elf``. Around that, this module promises:

- A file is replaced only by a copy that was read back from the disk and compared with it. When
  anything fails the original stays.
- Nothing outside the prefix is read or written: symbolic links are not followed, and a file is
  replaced rather than written to, so that a hard link into an installer's cache keeps what it
  had. Hard links within the prefix stay links to one another.
- What auditwheel or delvewheel put into ``*.libs/`` is left alone: it is stripped already.
- ``RECORD`` of each package tells the new hashes and sizes, so that tools which check an
  installation still find it whole.
- A second run changes nothing.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import hashlib
import io
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from penstock.errors import ImageError
from penstock.image.elf import MAGIC, differences, without_symbols

OBJECT_BYTES_MAX: Final = 4 * 2**30
"""Objects are held in memory, and twice for a moment: larger ones are left alone."""

RECORD_BYTES_MAX: Final = 32 * 2**20

VENDORED: Final = ".libs"
"""How the folders end that auditwheel and delvewheel put libraries into."""


@dataclass
class StripReport:
    """What was, or would be, stripped. Paths are relative to the prefix."""

    prefix: Path
    files: int = 0
    """Regular files in the prefix."""
    bytes_before: int = 0
    """Their size; one of several hard links counts."""
    bytes_after: int = 0
    objects: int = 0
    """ELF objects among them, vendored ones not counted."""
    stripped: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Bytes before and after."""
    left: dict[str, str] = field(default_factory=dict)
    """Objects that have to stay as they are, and why."""
    failed: dict[str, str] = field(default_factory=dict)
    """Files that could not be read or replaced, and why. They are as they were."""
    records: int = 0
    """``RECORD`` files that were brought up to date."""


def strip_prefix(prefix: Path, *, dry_run: bool = False) -> StripReport:
    """Strip every object below ``prefix``; with ``dry_run`` only say what that would save.

    Raises ImageError when the prefix is no directory, or is the root of the file system.
    """
    root = _checked_prefix(prefix)
    report = StripReport(root)
    twins: dict[tuple[int, int], Path] = {}
    changed: dict[Path, tuple[str, int]] = {}
    records: list[Path] = []
    for path, status in _regular_files(root, report):
        report.files += 1
        if path.name == "RECORD" and path.parent.suffix == ".dist-info":
            records.append(path)
        inode = (status.st_dev, status.st_ino)
        first = twins.setdefault(inode, path)
        if first is not path:
            if first in changed:
                _link_again(first, path, report, changed)
            continue
        size = _strip_file(path, status, report, changed, dry_run=dry_run)
        report.bytes_before += status.st_size
        report.bytes_after += size
    if changed and not dry_run:
        _update_records(records, report, changed)
    return report


def _checked_prefix(prefix: Path) -> Path:
    root = prefix.resolve()
    if not root.is_dir():
        raise ImageError(
            f"{prefix} is no directory: name the prefix that packages are installed in, "
            "as .venv or /app/.venv"
        )
    if root == Path(root.anchor):
        raise ImageError(f"{prefix} is the whole file system: name the prefix of one installation")
    return root


def _regular_files(root: Path, report: StripReport) -> Iterator[tuple[Path, os.stat_result]]:
    """Every file below ``root`` on its own file system, without following a symbolic link."""

    def unreadable(problem: OSError) -> None:
        report.failed[_relative(root, Path(problem.filename))] = problem.strerror or str(problem)

    for folder, folders, names in os.walk(root, onerror=unreadable):
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            try:
                status = path.lstat()
            except OSError as problem:
                unreadable(problem)
                continue
            if stat.S_ISREG(status.st_mode):
                yield path, status


def _strip_file(
    path: Path,
    status: os.stat_result,
    report: StripReport,
    changed: dict[Path, tuple[str, int]],
    *,
    dry_run: bool,
) -> int:
    """Strip one file if it is an object; its size afterwards."""
    root = report.prefix
    relative = _relative(root, path)
    if any(part.endswith(VENDORED) for part in path.relative_to(root).parts[:-1]):
        return status.st_size
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                return status.st_size
            report.objects += 1
            file.seek(0)
            before = _bounded(file.read(OBJECT_BYTES_MAX + 1), OBJECT_BYTES_MAX)
        after = without_symbols(before)
        if len(after) >= len(before):
            return status.st_size
        _check(before, after)
        if not dry_run:
            _replace(path, before, after)
    except ValueError as reason:
        report.left[relative] = str(reason)
        return status.st_size
    except OSError as problem:
        report.failed[relative] = problem.strerror or str(problem)
        return status.st_size
    report.stripped[relative] = (len(before), len(after))
    changed[path] = (_record_hash(after), len(after))
    return len(after)


def _bounded(content: bytes, bytes_max: int) -> bytes:
    if len(content) > bytes_max:
        raise ValueError(f"it is larger than {bytes_max} bytes")
    return content


def _check(before: bytes, after: bytes) -> None:
    found = differences(before, after)
    if found:
        raise ValueError(f"stripping it would change what is loaded: {', '.join(found)}")


def _replace(path: Path, before: bytes, after: bytes) -> None:
    """Put ``after`` in the place of ``path`` once it is on the disk and reads back right."""
    handle, name = tempfile.mkstemp(prefix=".penstock-", dir=path.parent)
    new = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(after)
        _check(before, new.read_bytes())
        owner = path.stat()
        with contextlib.suppress(PermissionError):  # Somebody else's file stays ours.
            os.chown(new, owner.st_uid, owner.st_gid)
        shutil.copystat(path, new)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def _link_again(
    first: Path, path: Path, report: StripReport, changed: dict[Path, tuple[str, int]]
) -> None:
    """Make ``path`` a hard link to what ``first`` has become."""
    relative = _relative(report.prefix, path)
    changed[path] = changed[first]
    if path.samefile(first):  # a dry run
        return
    new = path.with_name(f".penstock-{path.name}")
    try:
        new.hardlink_to(first)
        new.replace(path)
    except OSError as problem:
        new.unlink(missing_ok=True)
        report.failed[relative] = problem.strerror or str(problem)
        del changed[path]


def _record_hash(content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest())
    return "sha256=" + digest.decode().rstrip("=")


def _update_records(
    records: list[Path], report: StripReport, changed: dict[Path, tuple[str, int]]
) -> None:
    """Write new hashes and sizes into each package's list of files (PEP 376, PEP 427)."""
    for path in records:
        try:
            with path.open("rb") as file:
                before = _bounded(file.read(RECORD_BYTES_MAX + 1), RECORD_BYTES_MAX)
            after = _updated_record(before.decode(), path.parent.parent, changed).encode()
            if after != before:
                _overwrite(path, after)
                report.records += 1
        except (OSError, ValueError, csv.Error) as problem:
            report.failed[_relative(report.prefix, path)] = str(problem)


def _updated_record(text: str, site: Path, changed: dict[Path, tuple[str, int]]) -> str:
    lines = []
    for line in text.splitlines(keepends=True):
        row = next(csv.reader([line]), [])
        path = Path(os.path.normpath(site / row[0])) if len(row) == 3 else None
        if path in changed:
            digest, size = changed[path]
            out = io.StringIO()
            ending = line[len(line.rstrip("\r\n")) :]
            csv.writer(out, lineterminator=ending).writerow([row[0], digest, size])
            lines.append(out.getvalue())
        else:
            lines.append(line)
    return "".join(lines)


def _overwrite(path: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(prefix=".penstock-", dir=path.parent)
    new = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        shutil.copystat(path, new)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def _relative(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
