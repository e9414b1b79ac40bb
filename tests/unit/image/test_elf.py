"""An object loses its symbols and nothing that is loaded."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.image.elf import differences, without_symbols

Section = tuple[str, int, int, bytes]
"""Name, type, flags, content."""

TEXT: Section = (".text", 1, 2, b"code" * 64)
DEBUG: Section = (".debug_info", 1, 0, b"debug" * 4000)
SYMBOLS: Section = (".symtab", 2, 0, b"s" * 2400)


def build(
    *sections: Section, behind: bytes = b"", link: dict[int, int] | None = None, kind: int = 3
) -> bytes:
    """A little-endian object: its loaded sections must come first, as linkers put them."""
    names = b"\0"
    body = bytearray(64 + 56)
    rows = [(0,) * 10]
    loaded = len(body)
    for index, (name, type_, flags, content) in enumerate((*sections, (".shstrtab", 3, 0, b"")), 1):
        place = len(names)
        names += name.encode() + b"\0"
        data = content or names
        address = len(body) if flags & 2 else 0
        rows.append(
            (
                place,
                type_,
                flags,
                address,
                len(body),
                len(data),
                (link or {}).get(index, 0),
                0,
                1,
                0,
            )
        )
        body += data
        if flags & 2:
            loaded = len(body)
    table = len(body)
    for row in rows:
        body += struct.pack("<IIQQQQIIQQ", *row)
    body[:64] = (
        b"\x7fELF\2\1\1".ljust(16, b"\0")
        + struct.pack("<HHIQQQI", kind, 62, 1, 0, 64, table, 0)
        + struct.pack("<HHHHHH", 64, 56, 1, 64, len(rows), len(rows) - 1)
    )
    body[64:120] = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, loaded, loaded, 4096)
    return bytes(body) + behind


def test_symbols_go_and_what_is_loaded_stays() -> None:
    before = build(TEXT, DEBUG, SYMBOLS)

    after = without_symbols(before)

    assert len(after) < 1000 < len(before)
    assert b"debug" * 2 not in after
    assert differences(before, after) == []


def test_a_second_time_changes_nothing() -> None:
    once = without_symbols(build(TEXT, DEBUG, SYMBOLS))

    assert without_symbols(once) == once


def test_a_section_that_is_not_known_is_kept() -> None:
    """A compiler's own metadata may be what somebody reads from the file."""
    after = without_symbols(build(TEXT, (".rustc", 1, 0, b"metadata" * 9), DEBUG, SYMBOLS))

    assert b"metadata" * 9 in after


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (build(TEXT, DEBUG, behind=b"a frozen application's files"), "behind its sections"),
        (build(TEXT, SYMBOLS, (".rela.text", 4, 0, b"r" * 48), link={3: 2}), "for a linker"),
        (build(TEXT, DEBUG, kind=1), "no executable"),
        (build(TEXT, DEBUG)[:-70], "cut short"),
        (b"\x7fELF\1\1\1" + bytes(100), "no 64-bit"),
        (b"#!/bin/sh\n", "no 64-bit"),
    ],
)
def test_what_has_to_stay_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        without_symbols(data)


def test_debug_sections_between_segments_are_no_gain() -> None:
    """patchelf puts what it adds at the end: cutting nothing is better than moving anything."""
    before = build(TEXT, DEBUG, (".dynstr", 3, 2, b"moved here"))

    after = without_symbols(before)

    assert len(before) - len(after) < 100
    assert differences(before, after) == []


@pytest.mark.parametrize(
    ("place", "value", "found"),
    [
        (24, b"\1", "other header"),
        (64 + 8, b"\1", "other segments"),
        (130, b"\xff", "another content of the segment"),
        (-64 * 4 + 24, b"\1", "other loaded sections"),
    ],
)
def test_every_change_of_what_is_loaded_is_found(place: int, value: bytes, found: str) -> None:
    before = build(TEXT, DEBUG, SYMBOLS)
    after = bytearray(before)
    after[place : (place + 1) or None] = value

    assert any(line.startswith(found) for line in differences(before, bytes(after)))


def test_a_layout_that_no_loader_takes_is_found() -> None:
    broken = bytearray(build(TEXT))
    broken[64 + 16 : 64 + 24] = struct.pack("<Q", 8)

    assert any("not page-aligned" in line for line in differences(bytes(broken), bytes(broken)))


@given(st.data())
def test_a_damaged_object_is_refused_or_still_loads_the_same(data: st.DataObject) -> None:
    """Whatever stands in the headers: no other error, no endless work, no other memory image."""
    damaged = bytearray(build(TEXT, DEBUG, SYMBOLS))
    for _ in range(data.draw(st.integers(1, 4))):
        tables = st.one_of(st.integers(0, 119), st.integers(len(damaged) - 320, len(damaged) - 1))
        damaged[data.draw(tables)] = data.draw(st.integers(0, 255))
    before = bytes(damaged)
    try:
        after = without_symbols(before)
    except ValueError:
        return

    assert [line for line in differences(before, after) if "not page-aligned" not in line] == []


def test_real_extension_modules_still_load(
    installed_objects: Callable[[str], list[Path]], tmp_path: Path
) -> None:
    """Those of numpy were edited by patchelf: stripped in the ordinary way they do not load."""
    saved = 0
    for path in installed_objects("numpy") + installed_objects("msgspec"):
        before = path.read_bytes()
        after = without_symbols(before)

        assert differences(before, after) == []
        saved += len(before) - len(after)
    (tmp_path / "parser.so").write_bytes(
        without_symbols(installed_objects("httptools")[0].read_bytes())
    )
    ctypes.PyDLL(str(tmp_path / "parser.so"))

    assert saved > 0
