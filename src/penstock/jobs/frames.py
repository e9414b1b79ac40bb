"""Takes a stream of server-sent events apart, as our own doors write it: ``\\n`` ends a line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

_END: Final = b"\n\n"


class Frames:
    """Reads one stream. ``too_large``: an event passed the bound, and nothing is read any more."""

    def __init__(self, bytes_max: int) -> None:
        self.too_large = False
        self._bytes_max = bytes_max
        self._held = bytearray()

    def feed(self, piece: bytes) -> Iterator[tuple[str | None, bytes]]:
        """Name and data of each event that is whole now; comments are left out."""
        if self.too_large:
            return
        search_from = max(0, len(self._held) - 1)
        self._held += piece
        begin = 0
        while (end := self._held.find(_END, max(begin, search_from))) >= 0:
            event = _event(bytes(self._held[begin:end]))
            begin = end + len(_END)
            if event is not None:
                yield event
        del self._held[:begin]
        if len(self._held) > self._bytes_max:
            self.too_large = True
            self._held.clear()


def _event(text: bytes) -> tuple[str | None, bytes] | None:
    name: str | None = None
    data: list[bytes] = []
    for line in text.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            name = value.decode("utf-8", "replace")
        elif field == b"data":
            data.append(value)
    if name is None and not data:
        return None
    return name, b"\n".join(data)
