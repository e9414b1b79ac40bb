"""Reading a request body strictly, and touching as little of it as possible.

A body is somebody else's: what the provider will read must be what was judged here. So it is
refused where two readers could see two things (a field given twice, ``Model`` beside ``model``,
bytes that are not UTF-8), where a reader could choke (values nested deeper than 64, more than
256 top-level fields, numbers that no float holds) and where a control field has a wrong type.
Everything else stays as the bytes that came: unknown fields are never looked into.

Cost: one pass of msgspec over the body, which skips what it need not build (2 µs for 2 kB), and
for bodies with many brackets or uncommon spacing one more pass at C speed over their skeleton.
Rejected: a whole decode (6 times the cost, and re-encoding would change bytes; and msgspec needs
10 µs for a number near either end of what a float holds, so that 8 MiB of ``1e300`` stood the
service still for 13 s), a struct that drops the other fields (nothing would be left to splice),
a recursive check of depth.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import msgspec

from penstock.errors import InvalidRequest

DEPTH_MAX = 64
FIELDS_MAX = 256
NODES_MAX = 200_000
"""Brackets and colons outside strings: what a walk of the skeleton may cost (about 15 ms)."""
COLONS_UNWALKED = 5000
"""With fewer, decoding so many fields costs no more than 6 ms: they are counted afterwards."""

_FIELDS_DECODER = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENCODE = msgspec.json.Encoder().encode
_NOT_STRUCTURE = bytes(set(range(256)) - set(b'[]{}:"'))
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1, ord(":"): 0}
_COLON = ord(":")
_TEXT = b"abcdfghijklmnopqrstuvwxyz "
"""What is taken away before anything is looked for: most of a prompt. Exponents need their ``e``;
numbers that come to stand together only seem to be large, and are looked at again."""
_ALL_SQUARE = bytes.maketrans(b"{}", b"[]")
_NUMERALS = bytes.maketrans(b"123456789E", b"000000000e")
_HUGE_NUMBERS = (b"0e000", b"0e+000", b"0" * 200)
"""What a number over 1.8e308 must contain once its digits are all written as 0: one of these,"""
_THREE_DIGITS = b"000"
"""and this in any case, which most prompts have nowhere."""
_EXPONENT = re.compile(rb"[eE]\+?[0-9]{2,}")
_DIGITS_MAX = 308
EXPONENTS_MAX = 10_000
"""Numbers over 1e10 in the form with an exponent: what looking at each may cost (about 10 ms)."""


def split_fields(body: bytes, control: frozenset[str]) -> dict[str, msgspec.Raw]:
    """The top-level fields of a JSON object as raw JSON, in order.

    ``control`` are the names that are read: a field that a careless reader could take for one
    of them (other letter case) is refused. Raises InvalidRequest; time is linear in the body.
    """
    _check_text(body)
    signs = body.translate(None, _TEXT)
    colons = signs.count(b":")
    skeleton = b""
    if colons > COLONS_UNWALKED or signs.count(b"[") + signs.count(b"{") > DEPTH_MAX:
        skeleton = _skeleton(body)
        if len(skeleton) > NODES_MAX:
            raise InvalidRequest(f"The body must hold at most {NODES_MAX} brackets and colons.")
        if colons > COLONS_UNWALKED and _count_fields(skeleton) > FIELDS_MAX:
            raise _too_many_fields()
    fields = _decode_fields(body)
    if len(fields) > FIELDS_MAX:
        raise _too_many_fields()
    if skeleton:
        _check_depth(skeleton)
    # Spaces, escapes in names and repeated names each make a body longer than this.
    if len(body) != len(_ENCODE(fields)) and _count_fields(_skeleton(body)) != len(fields):
        raise InvalidRequest("Each top-level field must be given once: one is repeated.")
    for name in fields:
        if name not in control and name.casefold() in control:
            raise InvalidRequest(
                f"'{name.casefold()}' must be written in lower case.", param=name.casefold()
            )
    numerals = signs.translate(_NUMERALS)
    if numerals.find(_THREE_DIGITS) >= 0 and any(map(numerals.count, _HUGE_NUMBERS)):
        _check_numbers(body)
    return fields


def join_fields(fields: Mapping[str, bytes | msgspec.Raw]) -> bytes:
    """The JSON object with these fields in their order, their raw bytes untouched."""
    return b"{" + b",".join([_ENCODE(k) + b":" + bytes(v) for k, v in fields.items()]) + b"}"


def read_field(
    fields: Mapping[str, msgspec.Raw], name: str, decoder: msgspec.json.Decoder[Any], rule: str
) -> Any:
    """One control field, or None where it is absent. ``rule`` completes "'name' must be …"."""
    raw = fields.get(name)
    if raw is None:
        return None
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidRequest(f"'{name}' must be {rule}.", param=name) from None


def require_kind(fields: Mapping[str, msgspec.Raw], name: str, openers: bytes, rule: str) -> None:
    """Check that a field is there and that its JSON starts as one of ``openers`` does."""
    raw = fields.get(name)
    if raw is None:
        raise InvalidRequest(f"'{name}' is missing: it must be {rule}.", param=name)
    if memoryview(raw)[0] not in openers:
        raise InvalidRequest(f"'{name}' must be {rule}.", param=name)


def _check_text(body: bytes) -> None:
    if body.isascii():
        return
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"The body must be JSON in UTF-8: byte {error.start} is not."
        ) from None


def _decode_fields(body: bytes) -> dict[str, msgspec.Raw]:
    try:
        return _FIELDS_DECODER.decode(body)
    except RecursionError:
        raise _too_deep() from None
    except msgspec.ValidationError:
        raise InvalidRequest("The body must be a JSON object.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        # msgspec's text names a place and a rule, never a value.
        text = str(error)
        if "truncated" in text and b"\\ud" in body.lower():
            text += ", or a string ends in half of a surrogate pair"
        raise InvalidRequest(f"The body must be valid JSON. {text}.") from None


def outside_strings(body: bytes) -> bytes:
    """The JSON without its strings."""
    return b"".join(_without_escapes(body).split(b'"')[::2])


def _skeleton(body: bytes) -> bytes:
    """Brackets and colons outside strings."""
    return b"".join(_without_escapes(body).translate(None, _NOT_STRUCTURE).split(b'"')[::2])


def _without_escapes(body: bytes) -> bytes:
    """Where nothing escapes a quote, each of them begins or ends a string."""
    return body.replace(b"\\\\", b"").replace(b'\\"', b"")


def _count_fields(skeleton: bytes) -> int:
    """How many top-level fields are written, repeated ones counted each time."""
    depths = accumulate(map(_STEP.__getitem__, skeleton))
    return sum(
        1 for depth, byte in zip(depths, skeleton, strict=True) if byte == _COLON and depth == 1
    )


def _check_depth(skeleton: bytes) -> None:
    """Each round takes away the innermost brackets, so depth is the number of rounds."""
    brackets = skeleton.translate(_ALL_SQUARE, b":")
    for _ in range(DEPTH_MAX):
        brackets = brackets.replace(b"[]", b"")
        if not brackets:
            return
    raise _too_deep()


def _check_numbers(body: bytes) -> None:
    """Look at each number that may be over 1.8e308: it has digits or an exponent to be that."""
    outside = outside_strings(body)
    if b"0" * (_DIGITS_MAX + 1) in outside.translate(_NUMERALS):
        raise _not_finite()
    for count, exponent in enumerate(_EXPONENT.finditer(outside)):
        # With at most 308 digits in a row, a mantissa cannot be longer than two such rows.
        before = outside[max(0, exponent.start() - 2 * _DIGITS_MAX - 2) : exponent.start()]
        mantissa = before[len(before.rstrip(b"0123456789.")) :]
        if math.isinf(float(mantissa + exponent[0])):
            raise _not_finite()
        if count == EXPONENTS_MAX:
            raise InvalidRequest(f"The body must hold at most {EXPONENTS_MAX} numbers over 1e10.")


def _not_finite() -> InvalidRequest:
    return InvalidRequest("Numbers in the body must be finite 64-bit floats.")


def _too_many_fields() -> InvalidRequest:
    return InvalidRequest(f"The body must have at most {FIELDS_MAX} top-level fields.")


def _too_deep() -> InvalidRequest:
    return InvalidRequest(f"Values in the body must be nested at most {DEPTH_MAX} deep.")
