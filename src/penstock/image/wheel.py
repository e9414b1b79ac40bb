"""What a wheel becomes on disk, read from the directory at its end without downloading it.

A wheel is a ZIP archive: the last bytes list every file with its size. One range request of 64 KiB
holds the directory of most wheels; for a larger one a second asks for the rest. ``zipfile`` reads
it from a stand-in for the file that holds the end alone.
"""

from __future__ import annotations

import io
import re
import zipfile
from typing import Final

import msgspec

TAIL_BYTES: Final = 64 * 1024
DIRECTORY_BYTES_MAX: Final = 8 * 1024 * 1024
"""Reading one that is full of files takes 1 s and 120 MB; that of the largest wheels has 2 MB."""
ENTRIES_MAX: Final = 100_000
UNPACKED_BYTES_MAX: Final = 1 << 44
SHARED_OBJECT: Final = re.compile(r"\.so(?:\.[0-9.]+)?$")
VENDORED: Final = re.compile(r"(?:^|/)[^/]+\.libs/[^/]+$")
"""Where auditwheel puts the libraries that it bundles: stripping these breaks some of them."""


class Member(msgspec.Struct, frozen=True):
    """Where a file stands in the archive: the place of its header, and its packed bytes."""

    offset: int
    compressed: int


class Sizes(msgspec.Struct, frozen=True):
    """What a wheel holds, in bytes; ``strippable``: shared objects outside ``*.libs``.

    ``vendored``: the libraries in ``*.libs``.
    """

    download: int
    unpacked: int
    shared_objects: int
    strippable: int
    vendored: tuple[Member, ...] = ()


class NotThere(Exception):
    """A byte before the end that is held was read; ``start``: from where it is wanted."""

    def __init__(self, start: int) -> None:
        super().__init__(start)
        self.start = start


class Tail(io.RawIOBase):
    """A file of which only the last bytes are there."""

    def __init__(self, total: int, held: bytes) -> None:
        super().__init__()
        self._total = total
        self._held = held
        self._at = 0

    def seekable(self) -> bool:
        """It is: that is how a ZIP archive is read."""
        return True

    def readable(self) -> bool:
        """It is, in the part that is there."""
        return True

    def tell(self) -> int:
        """The place, from the start of the whole file."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place of the whole file."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._total}[whence]
        if base + offset < 0:
            raise OSError("before the start")
        self._at = base + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        """What stands here; raises ``NotThere`` for what is not held."""
        first = self._total - len(self._held)
        if self._at < first:
            raise NotThere(self._at)
        end = len(self._held) if size < 0 else self._at - first + size
        found = self._held[self._at - first : end]
        self._at += len(found)
        return found


def read_sizes(total: int, held: bytes) -> Sizes:
    """The sizes of a wheel of ``total`` bytes, whose last are ``held``.

    Raises ``NotThere`` where more of it is needed, ``ValueError`` where it is no wheel.
    """
    try:
        with zipfile.ZipFile(Tail(total, held)) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, NotImplementedError, UnicodeDecodeError) as error:
        raise ValueError(f"not a ZIP archive: {type(error).__name__}") from None
    if len(entries) > ENTRIES_MAX:
        raise ValueError(f"more than {ENTRIES_MAX} files")
    unpacked = shared = strippable = 0
    vendored: list[Member] = []
    for entry in entries:
        if entry.header_offset < 0:
            raise ValueError("a file that stands before the archive")
        unpacked += entry.file_size
        if SHARED_OBJECT.search(entry.filename):
            shared += entry.file_size
            if VENDORED.search(entry.filename):
                vendored.append(Member(entry.header_offset, entry.compress_size))
            else:
                strippable += entry.file_size
    if unpacked > UNPACKED_BYTES_MAX:
        raise ValueError("sizes that no disk holds")
    return Sizes(total, unpacked, shared, strippable, tuple(vendored))
