"""Server-sent events as they pass: cut into events without changing a byte.

Three ends of a line are known (CRLF, LF, CR), comments, names and data over several lines; a
chunk of the network may end anywhere. What is passed on is what came: an event leaves as the
bytes it arrived in, whole, so that one can be left out and an error event of ours never lands
inside a torn one. The same bytes give the same events however they are cut (tested).

An event is held back until its blank line has come. Caps: a line of 1 MiB, an event of 4 MiB;
the work is linear in the bytes whatever their cut, because the held part is searched only once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from penstock.errors import UpstreamOversized

LINE_BYTES_MAX = 1024 * 1024
EVENT_BYTES_MAX = 4 * 1024 * 1024

CR: Final = ord("\r")
_LF: Final = ord("\n")
_END_OF_LINE = rb"(?>\r\n|\n|\r(?!\Z))"  # a CR that comes last may be half of a CRLF
_BLANK_LINE = re.compile(_END_OF_LINE + _END_OF_LINE)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_OVERLAP = 3  # a blank line of up to four bytes may have begun in what is held


class Event(NamedTuple):
    """One event: its ``event:`` name ("" where it has none) and its data; None without data."""

    name: str
    data: bytes | None


class EventBuffer:
    """Gives whole events, holds the part that is not whole yet."""

    __slots__ = ("_event_bytes_max", "_held", "_line_bytes_max", "_line_start")

    def __init__(
        self, line_bytes_max: int = LINE_BYTES_MAX, event_bytes_max: int = EVENT_BYTES_MAX
    ) -> None:
        self._line_bytes_max = line_bytes_max
        self._event_bytes_max = event_bytes_max
        self._held = bytearray()
        self._line_start = 0  # where the last, unfinished line begins in what is held

    @property
    def is_empty(self) -> bool:
        """Whether no part of an event is held."""
        return not self._held

    def take(self, chunk: bytes) -> bytes:
        """All whole events so far, as they came. Raises UpstreamOversized over a cap."""
        cut = _end_of_last_event(chunk, 0) if not self._held else None
        if cut == len(chunk):
            ready = chunk
        elif cut:
            ready = chunk[:cut]
            self._hold(chunk[cut:])
        else:
            start = max(0, len(self._held) - _OVERLAP)
            self._hold(chunk)
            if cut is None:
                cut = _end_of_last_event(self._held, start)
            ready = bytes(self._held[:cut])
            if cut:
                rest = bytes(self._held[cut:])
                self._held.clear()
                self._line_start = 0
                self._hold(rest)
        if len(ready) > self._line_bytes_max:
            self._check_lines(ready)
        self._check_held()
        return ready

    def rest(self) -> bytes:
        """What is still held, given up: the buffer is empty afterwards."""
        rest = bytes(self._held)
        self._held.clear()
        self._line_start = 0
        return rest

    def _hold(self, part: bytes) -> None:
        end_of_line = max(part.rfind(b"\n"), part.rfind(b"\r"))
        if end_of_line >= 0:
            self._line_start = len(self._held) + end_of_line + 1
        self._held += part

    def _check_held(self) -> None:
        if len(self._held) - self._line_start > self._line_bytes_max:
            raise _over_line(self._line_bytes_max)
        if len(self._held) > self._event_bytes_max:
            raise _over_event(self._event_bytes_max)

    def _check_lines(self, ready: bytes) -> None:
        if max(map(len, ready.splitlines())) > self._line_bytes_max:
            raise _over_line(self._line_bytes_max)
        split_events(ready, self._event_bytes_max)


def split_events(ready: bytes, event_bytes_max: int = EVENT_BYTES_MAX) -> list[bytes]:
    """Cut whole events apart; each keeps its blank line. Raises UpstreamOversized over a cap."""
    events: list[bytes] = []
    start = 0
    for end in _ends_of_events(ready):
        events.append(ready[start:end])
        start = end
    if start < len(ready):
        events.append(ready[start:])
    if any(len(event) > event_bytes_max for event in events):
        raise _over_event(event_bytes_max)
    return events


def _ends_of_events(ready: bytes) -> Iterator[int]:
    """Where each whole event ends."""
    if CR in ready:
        for blank_line in _BLANK_LINE.finditer(ready):
            yield blank_line.end()
        return
    end = ready.find(b"\n\n") + 2
    while end >= 2:
        yield end
        end = ready.find(b"\n\n", end) + 2


def read_event(raw: bytes) -> Event:
    """What one event says. Fields other than ``event`` and ``data`` are of no use here."""
    is_line = raw.startswith(b"data: ") and raw.find(b"\n") == len(raw) - 2 and raw[-1] == _LF
    if is_line and CR not in raw:
        return Event("", raw[6:-2])
    name = ""
    data: list[bytes] = []
    for line in raw.removeprefix(_BYTE_ORDER_MARK).splitlines():
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode("utf-8", "replace")
    return Event(name, b"\n".join(data) if data else None)


def _end_of_last_event(buffer: bytes | bytearray, start: int) -> int:
    """Where the last whole event from ``start`` on ends; 0 where none does.

    Ends are counted from the left, so that a run of blank lines is cut the same way however
    it arrived; the quick way is right where no CR and no third line feed can make a difference.
    """
    if buffer.find(b"\r", start) < 0:
        end = buffer.rfind(b"\n\n", start) + 2
        if end < 2:
            return 0
        if end - 3 < start or buffer[end - 3] != _LF:
            return end
    end = 0
    for blank_line in _BLANK_LINE.finditer(buffer, start):
        end = blank_line.end()
    return end


def _over_line(bytes_max: int) -> UpstreamOversized:
    return UpstreamOversized(f"The provider's stream has a line of more than {bytes_max} bytes.")


def _over_event(bytes_max: int) -> UpstreamOversized:
    return UpstreamOversized(f"The provider's stream has an event of more than {bytes_max} bytes.")
