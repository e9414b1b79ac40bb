"""Reads ``multipart/form-data`` as it comes, without ever holding more than a piece of it.

RFC 7578 and RFC 2046 section 5.1, as strictly as HTTP clients write it: a delimiter is CRLF, two
hyphens and the boundary; nothing is repaired. A library for this would bring more than these
hundred lines, and the known one has had a row of denials of service from what it repairs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from email.message import Message
from typing import Final

import msgspec

from penstock.errors import InvalidRequest

PARTS_MAX: Final = 16
HEAD_BYTES_MAX: Final = 8192
_BOUNDARY: Final = re.compile(r"[A-Za-z0-9'()+_,\-./:=? ]{0,69}[A-Za-z0-9'()+_,\-./:=?]\Z")


class Part(msgspec.Struct, frozen=True):
    """A part begins: its field's name, and the file's where it is one. Its bytes follow."""

    name: str
    filename: str | None


def boundary_of(content_type: str) -> bytes:
    """The boundary that a request's Content-Type names. Raises InvalidRequest."""
    message = Message()
    message["content-type"] = content_type
    boundary = message.get_param("boundary")
    if message.get_content_type() != "multipart/form-data" or not isinstance(boundary, str):
        raise InvalidRequest("An upload must be 'multipart/form-data' with a boundary.", status=415)
    if not _BOUNDARY.match(boundary):
        raise InvalidRequest("The boundary of the upload must be as RFC 2046 has it.")
    return boundary.encode("ascii")


class Multipart:
    """Takes one body apart. ``is_complete`` once its last delimiter has come."""

    def __init__(self, boundary: bytes) -> None:
        self.is_complete = False
        self._delimiter = b"\r\n--" + boundary
        # As if a line had ended before: then the first delimiter looks like all others.
        self._held = bytearray(b"\r\n")
        self._within = "preamble"
        self._parts = 0

    def feed(self, piece: bytes) -> Iterator[Part | bytes]:
        """Parts and their bytes, in order. Raises InvalidRequest."""
        self._held += piece
        while not self.is_complete:
            if self._within == "head":
                head, found, _ = self._held.partition(b"\r\n\r\n")
                if len(head) > HEAD_BYTES_MAX:
                    raise _malformed(f"a part's head has more than {HEAD_BYTES_MAX} bytes")
                if not found:
                    return
                del self._held[: len(head) + 4]
                self._within = "data"
                yield _part(bytes(head))
            elif self._within == "delimiter":
                if len(self._held) < 2:
                    return
                mark = bytes(self._held[:2])
                del self._held[:2]
                self._after_delimiter(mark)
            else:
                end = self._held.find(self._delimiter)
                whole = end >= 0
                if not whole:
                    end = len(self._held) - len(self._delimiter) + 1
                data = bytes(self._held[: max(0, end)])
                del self._held[: max(0, end) + (len(self._delimiter) if whole else 0)]
                if data and self._within == "data":
                    yield data
                if not whole:
                    return
                self._within = "delimiter"

    def _after_delimiter(self, mark: bytes) -> None:
        if mark == b"--":
            self.is_complete = True
        elif mark == b"\r\n":
            self._within = "head"
            self._parts += 1
            if self._parts > PARTS_MAX:
                raise _malformed(f"it has more than {PARTS_MAX} parts")
        else:
            raise _malformed("a delimiter is followed by something else than a line's end")


def _part(head: bytes) -> Part:
    message = Message()
    for line in head.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if colon and name.strip().lower() == b"content-disposition":
            message["content-disposition"] = value.decode("utf-8", "replace").strip()
    field = message.get_param("name", header="content-disposition")
    if message.get_content_disposition() != "form-data" or not isinstance(field, str):
        raise _malformed("a part has no name")
    filename = message.get_param("filename", header="content-disposition")
    return Part(field, filename if isinstance(filename, str) else None)


def _malformed(why: str) -> InvalidRequest:
    return InvalidRequest(f"The upload is no multipart/form-data that can be read: {why}.")
