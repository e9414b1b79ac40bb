"""Server-sent events as bytes. Source: WHATWG HTML, "Server-sent events", section 9.2.6."""

from __future__ import annotations

import re
from typing import Final

_LINE_ENDS: Final = re.compile(rb"\r\n|\r|\n")
MEDIA_TYPE: Final = "text/event-stream"
CONTENT_TYPE: Final = f"{MEDIA_TYPE}; charset=utf-8"


def event(name: str | None, data: bytes) -> bytes:
    """One event; ``name`` None leaves the event field out. Data may have several lines."""
    head = b"" if name is None else b"event: " + name.encode("utf-8") + b"\n"
    if b"\n" not in data and b"\r" not in data:
        return b"%bdata: %b\n\n" % (head, data)
    lines = b"".join(b"data: %b\n" % line for line in _LINE_ENDS.split(data))
    return head + lines + b"\n"


def comment(text: str) -> bytes:
    """A comment, which every client skips; line ends in ``text`` become spaces."""
    return b": " + _LINE_ENDS.sub(b" ", text.encode("utf-8")) + b"\n\n"
