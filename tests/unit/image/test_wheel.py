"""Sizes are read from a directory that may lie: a clear error, never a wrong sum."""

from __future__ import annotations

import io
import struct
import zipfile

import pytest

from penstock.image.wheel import read_sizes


def archive(*names: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name in names:
            wheel.writestr(name, b"x" * 1000)
    return content.getvalue()


def changed(content: bytes, mark: bytes, offset: int, value: int) -> bytes:
    """The archive with another number of four bytes, counted from a record's mark."""
    place = content.rfind(mark) + offset
    return content[:place] + struct.pack("<L", value) + content[place + 4 :]


def test_the_sizes_of_an_honest_directory_are_added_up() -> None:
    content = archive("a/__init__.py", "a/b.so", "a.libs/libc.so.1")
    sizes = read_sizes(len(content), content)

    assert (sizes.unpacked, sizes.shared_objects, sizes.strippable) == (3000, 2000, 1000)
    assert [each.offset > 0 for each in sizes.vendored] == [True]


def test_a_file_that_stands_before_the_archive_is_refused() -> None:
    content = archive("a.libs/libc.so.1")
    start = content.rfind(b"PK\x01\x02")

    with pytest.raises(ValueError, match="before the archive"):
        read_sizes(len(content), changed(content, b"PK\x05\x06", 16, start + 1))


def test_sizes_that_no_disk_holds_are_refused() -> None:
    content = archive(*(f"{number}.py" for number in range(2)))
    huge = struct.pack("<HHQ", 1, 8, (1 << 64) - 1)  # an extra field with a size of 64 bits
    start = content.find(b"PK\x01\x02")
    entry = bytearray(content[start : start + 46 + 4])
    entry[24:28] = b"\xff" * 4
    entry[30:32] = struct.pack("<H", len(huge))
    lying = content[:start] + bytes(entry) + huge
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, len(entry) + len(huge), start, 0)

    with pytest.raises(ValueError, match="no disk holds"):
        read_sizes(len(lying + end), lying + end)


def test_a_directory_of_too_many_files_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.image.wheel.ENTRIES_MAX", 1)
    content = archive("a.py", "b.py")

    with pytest.raises(ValueError, match="more than 1 files"):
        read_sizes(len(content), content)
