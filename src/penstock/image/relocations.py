"""Packed relative relocations: a wheel that fits Alpine 3.17 by its tags and crashes there.

Wheels for musllinux bundle libraries from Alpine (``NAME.libs/``: libgcc, libstdc++, libgfortran),
and those of newer releases are linked with packed relative relocations (``DT_RELR``). musl applies
them since 1.2.4; before, they are left out without a word, and the first call through such a
pointer crashes. Seen with numpy, spacy, thinc, preshed and tiktoken on musl 1.2.3.

No tag says so, and no list of packages would stay true, so the libraries are read: each is a
member of the wheel that can be fetched alone, and its dynamic section has the entry or not.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

DT_RELR: Final = 36
DT_NULL: Final = 0
PT_DYNAMIC: Final = 2
MUSL_FIRST: Final = (1, 2, 4)
MEMBER_BYTES_MAX: Final = 4 * 1024 * 1024
UNPACKED_BYTES_MAX: Final = 32 * 1024 * 1024
HEADER_BYTES: Final = 30
SLACK_BYTES: Final = 1024
"""For the name and the extra field of a member's own header, whose lengths stand in it alone."""


def member(content: bytes, compressed: int) -> bytes:
    """A member of a ZIP archive from the bytes at its header. Raises ``ValueError``."""
    try:
        head = struct.unpack_from("<4s5H3I2H", content)
    except struct.error:
        raise ValueError("a member that is cut short") from None
    if head[0] != b"PK\x03\x04":
        raise ValueError("no member where one should be")
    start = HEADER_BYTES + head[9] + head[10]
    data = content[start : start + compressed]
    if head[3] == 0:
        return data
    if head[3] != zlib.DEFLATED:
        raise ValueError("a member that is packed in another way")
    try:
        return zlib.decompressobj(wbits=-15).decompress(data, UNPACKED_BYTES_MAX)
    except zlib.error:
        raise ValueError("a member that is damaged") from None


def has_packed_relocations(library: bytes) -> bool:
    """Whether an ELF library has ``DT_RELR``. Raises ``ValueError`` for what is none."""
    if library[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a 64-bit little-endian ELF file")
    try:
        (table,) = struct.unpack_from("<Q", library, 32)
        entry_bytes, entries = struct.unpack_from("<HH", library, 54)
        for number in range(entries):
            at = table + number * entry_bytes
            kind, _, offset, _, _, size = struct.unpack_from("<IIQQQQ", library, at)
            if kind == PT_DYNAMIC:
                return _holds_relr(library, offset, size)
    except struct.error:
        raise ValueError("an ELF file that is cut short") from None
    return False


def _holds_relr(library: bytes, offset: int, size: int) -> bool:
    for at in range(offset, min(offset + size, len(library) - 15), 16):
        (tag,) = struct.unpack_from("<q", library, at)
        if tag == DT_NULL:
            return False
        if tag == DT_RELR:
            return True
    return False
