"""Reads the ``config_hash`` of ``/c/{config_hash}/…``: a config as lz-string's URI encoding.

lz-string (pieroxy.net/blog/pages/lz-string) is an LZW whose codes grow with its dictionary,
written least significant bit first in characters of six bits. Only decompression is needed, and
it is bounded: an LZW dictionary makes a short text expand quadratically.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-$"
BITS_PER_CHARACTER = 6
OUTPUT_CHARACTERS_MAX = 64 * 1024

LITERAL_BITS = {0: 8, 1: 16}
END = 2
FIRST_FREE_CODE = 3


class BadConfigHash(ValueError):
    """Not the lz-string form of a JSON object."""


class _Bits:
    """Reads numbers, least significant bit first, from characters, most significant first."""

    def __init__(self, text: str) -> None:
        try:
            self._values = [ALPHABET.index(character) for character in text]
        except ValueError as error:
            raise BadConfigHash from error
        self._position = 0

    def number(self, bits: int) -> int:
        """The next number of ``bits`` bits."""
        value = 0
        for power in range(bits):
            index, offset = divmod(self._position, BITS_PER_CHARACTER)
            if index >= len(self._values):
                raise BadConfigHash
            bit = self._values[index] >> (BITS_PER_CHARACTER - 1 - offset) & 1
            value |= bit << power
            self._position += 1
        return value


def decompress(text: str) -> str:
    """The text of which ``text`` is lz-string's ``compressToEncodedURIComponent``.

    Raises BadConfigHash for anything else, and above 64 Ki characters.
    """
    bits = _Bits(text)
    first = bits.number(2)
    if first == END:
        return ""
    if first not in LITERAL_BITS:
        raise BadConfigHash
    previous = chr(bits.number(LITERAL_BITS[first]))
    entries: dict[int, str] = {FIRST_FREE_CODE: previous}
    pieces, length = [previous], 1
    code_bits = 3
    # lz-string widens its codes when a countdown ends, not when the dictionary reaches a power.
    widen_in = 4
    next_code = FIRST_FREE_CODE + 1
    while True:
        code = bits.number(code_bits)
        if code == END:
            return _from_utf16_units("".join(pieces))
        if code in LITERAL_BITS:
            entries[next_code] = chr(bits.number(LITERAL_BITS[code]))
            code, next_code = next_code, next_code + 1
            widen_in -= 1
            if widen_in == 0:
                widen_in, code_bits = 1 << code_bits, code_bits + 1
        if code in entries:
            piece = entries[code]
        elif code == next_code:
            piece = previous + previous[0]
        else:
            raise BadConfigHash
        length += len(piece)
        if length > OUTPUT_CHARACTERS_MAX:
            raise BadConfigHash
        pieces.append(piece)
        entries[next_code] = previous + piece[0]
        next_code += 1
        previous = piece
        widen_in -= 1
        if widen_in == 0:
            widen_in, code_bits = 1 << code_bits, code_bits + 1


def _from_utf16_units(text: str) -> str:
    # JavaScript's characters are UTF-16 units: what lies beyond the BMP came as two of them.
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")


def config_of(text: str) -> Mapping[str, Any]:
    """The config behind a hash; an empty hash is an empty config. Raises BadConfigHash."""
    try:
        config = msgspec.json.decode(decompress(text).encode()) if text else {}
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise BadConfigHash from error
    if not isinstance(config, dict):
        raise BadConfigHash
    return config
