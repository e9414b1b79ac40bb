"""Lets only whole server-sent events pass, and notices the one that says the run failed.

The front must be able to append an error event of its own when a worker dies in the middle of a
stream. Behind half an event it would be read as a part of it, so a part is held back until the
rest has come.
"""

from __future__ import annotations

from typing import Final

import msgspec

from penstock.http.error_body import ErrorShape

SEPARATOR: Final = b"\n\n"
ERROR_HEADS: Final = {
    ErrorShape.PROBLEM: b"event: error\n",
    ErrorShape.OPENAI: b'data: {"type":"urn:penstock:error:',
}
"""How ``late_error`` begins; in the other shape no event of a run's own begins so."""
HELD_BYTES_MAX: Final = 4 * 1024 * 1024
"""An event larger than this passes in parts; should its worker die then, the stream breaks off."""


class ErrorEvent(msgspec.Struct, frozen=True):
    """The data of an ``error`` event."""

    status_code: int = 500
    message: str = ""
    code: str = ""


class _Error(msgspec.Struct, frozen=True):
    code: str = ""


class _Problem(msgspec.Struct, frozen=True):
    status: int = 500
    detail: str = ""
    error: _Error = _Error()


class EventFrames:
    """Reads one stream. ``error`` is its error event, once seen; ``torn``: half an event passed."""

    def __init__(self, shape: ErrorShape = ErrorShape.PROBLEM) -> None:
        self._shape = shape
        self._error_head = ERROR_HEADS[shape]
        self.error: ErrorEvent | None = None
        self.torn = False
        self._held = bytearray()

    def feed(self, chunk: bytes) -> bytes:
        """Take what came, give the whole events in it."""
        # A separator may lie across the seam of two chunks.
        search_from = max(0, len(self._held) - 1)
        self._held += chunk
        end = self._held.rfind(SEPARATOR, search_from)
        if end >= 0:
            whole = bytes(self._held[: end + len(SEPARATOR)])
            del self._held[: end + len(SEPARATOR)]
            if not self.torn and self._error_head in whole:
                self._look_for_error(whole)
            self.torn = False
            return whole
        if len(self._held) > HELD_BYTES_MAX:
            self.torn = True
            part = bytes(self._held)
            self._held.clear()
            return part
        return b""

    def _look_for_error(self, events: bytes) -> None:
        for one in events.split(SEPARATOR):
            if not one.startswith(self._error_head):
                continue
            data = one[one.index(b"data: ") + len(b"data: ") :]
            try:
                if self._shape is ErrorShape.OPENAI:
                    problem = msgspec.json.decode(data, type=_Problem)
                    self.error = ErrorEvent(problem.status, problem.detail, problem.error.code)
                else:
                    self.error = msgspec.json.decode(data, type=ErrorEvent)
            except (msgspec.DecodeError, ValueError):
                self.error = ErrorEvent()
