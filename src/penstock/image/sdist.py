"""What a source distribution says of its building, read without unpacking or running it.

Its ``pyproject.toml`` names the build system and what that needs; the names of its files say
whether there is anything to compile. The archive is read as a stream with a bound on what it
unpacks to; nothing is written.
"""

from __future__ import annotations

import io
import tarfile
import tomllib
import zipfile
import zlib
from pathlib import PurePosixPath
from typing import Final

from penstock.errors import ImageError
from penstock.image.files import Table
from penstock.image.model import Compile

SDIST_BYTES_MAX: Final = 48 * 1024 * 1024
UNPACKED_BYTES_MAX: Final = 512 * 1024 * 1024
MEMBERS_MAX: Final = 100_000
PYPROJECT_BYTES_MAX: Final = 1024 * 1024
LEGACY: Final = "setuptools.build_meta:__legacy__"
NATIVE: Final = {
    ".c", ".cc", ".cpp", ".cxx", ".cu", ".f", ".f90", ".go", ".pyx", ".rs", ".s", ".zig",
}  # fmt: skip


class _Bounded(io.RawIOBase):
    """A gzip stream that ends in an error beyond a bound."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self._inflate = zlib.decompressobj(wbits=31)
        self._rest = content
        self._left = UNPACKED_BYTES_MAX

    def readable(self) -> bool:
        """It is."""
        return True

    def read(self, size: int = -1) -> bytes:
        """The next bytes, unpacked."""
        wanted = size if 0 < size < 1 << 20 else 1 << 20
        found = self._inflate.decompress(self._rest, wanted)
        self._rest = self._inflate.unconsumed_tail
        self._left -= len(found)
        if self._left < 0:
            raise ValueError("unpacks to more than 512 MiB")
        return found


def read_sdist(filename: str, content: bytes) -> Compile:
    """What building it takes. Raises ``ValueError`` for an archive that cannot be read."""
    try:
        if filename.endswith(".zip"):
            pyproject, names = _from_zip(content)
        elif filename.endswith((".tar.gz", ".tgz")):
            pyproject, names = _from_tar(content)
        else:
            raise ValueError("not a .tar.gz or .zip")
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise ValueError(f"not an archive: {type(error).__name__}") from None
    has_native_code = any(PurePosixPath(name).suffix.lower() in NATIVE for name in names)
    build_system, requires = _build_system(pyproject)
    return Compile(build_system, requires, has_native_code)


def _from_tar(content: bytes) -> tuple[bytes | None, list[str]]:
    pyproject: bytes | None = None
    names: list[str] = []
    # The stream mode reads forward only, so a bound on the bytes is a bound on the work.
    with tarfile.open(fileobj=_Bounded(content), mode="r|") as archive:
        for member in archive:
            names.append(member.name)
            if len(names) > MEMBERS_MAX:
                raise ValueError(f"more than {MEMBERS_MAX} files")
            if _is_pyproject(member.name) and member.isreg() and pyproject is None:
                file = archive.extractfile(member)
                pyproject = file.read(PYPROJECT_BYTES_MAX) if file is not None else None
    return pyproject, names


def _from_zip(content: bytes) -> tuple[bytes | None, list[str]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()[:MEMBERS_MAX]
        found = [name for name in names if _is_pyproject(name)]
        if not found:
            return None, names
        with archive.open(found[0]) as file:
            return file.read(PYPROJECT_BYTES_MAX), names


def _is_pyproject(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return len(parts) == 2 and parts[1] == "pyproject.toml"


def _build_system(pyproject: bytes | None) -> tuple[str, tuple[str, ...]]:
    """The back-end, and what it asks for; as PEP 517 says where nothing is written."""
    if pyproject is None:
        return LEGACY, ("setuptools",)
    try:
        document = tomllib.loads(pyproject.decode("utf-8", "replace"))
        table = Table(document, "pyproject.toml").table("build-system")
        return table.text("build-backend") or LEGACY, table.texts("requires")[:50]
    except (tomllib.TOMLDecodeError, RecursionError, ValueError, ImageError):
        return "unreadable", ()
