"""Packed relocations are found in a library as it stands in a wheel."""

from __future__ import annotations

import io
import struct
import zipfile

import pytest

from penstock.image.relocations import DT_RELR, has_packed_relocations, member
from penstock.image.wheel import NotThere, read_sizes


def library(*tags: int) -> bytes:
    """An ELF library with one program header, for a dynamic section of these tags."""
    dynamic = b"".join(struct.pack("<qQ", tag, 0) for tag in (*tags, 0))
    header = b"\x7fELF\x02\x01" + bytes(26) + struct.pack("<Q", 64) + bytes(14)
    header += struct.pack("<HH", 56, 1) + bytes(6)
    program = struct.pack("<IIQQQQ", 2, 0, 120, 0, 0, len(dynamic)) + bytes(16)
    return header + program + dynamic


def wheel(**files: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name.replace("__", "/"), data)
    return content.getvalue()


def test_the_entry_is_found_where_it_is() -> None:
    assert has_packed_relocations(library(1, DT_RELR))
    assert not has_packed_relocations(library(1, 7))
    assert not has_packed_relocations(library())


@pytest.mark.parametrize("content", [b"", b"\x7fELF\x01\x01" + bytes(99), library(DT_RELR)[:40]])
def test_what_is_no_library_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="ELF"):
        has_packed_relocations(content)


def test_a_bundled_library_is_read_out_of_a_wheel_alone() -> None:
    files = {"a.libs__libgcc_s-1.so.1": library(DT_RELR), "a__x.so": b"x" * 100, "a__y.py": b"yy"}
    content = wheel(**files)
    sizes = read_sizes(len(content), content[-400:])
    [place] = sizes.vendored

    assert sizes.unpacked == sum(map(len, files.values()))
    assert (sizes.strippable, sizes.shared_objects) == (100, 100 + len(library(DT_RELR)))
    assert has_packed_relocations(member(content[place.offset :], place.compressed))


def test_a_directory_that_is_larger_than_what_is_held_says_from_where() -> None:
    content = wheel(**{f"a__{number}.py": b"" for number in range(100)})
    with pytest.raises(NotThere) as wanted:
        read_sizes(len(content), content[-100:])

    assert read_sizes(len(content), content[wanted.value.start :]).unpacked == 0


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06" + bytes(10), b"x" * 1000])
def test_what_is_no_wheel_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="ZIP"):
        read_sizes(len(content), content)
