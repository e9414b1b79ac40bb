"""The part of a stream's reader that both kinds share: pass on, count, look where it matters.

A run of ordinary deltas is recognised by its frame alone (each event exactly the shape in which
the provider writes a delta) and leaves untouched after a handful of searches at C speed, about
1 µs a chunk; every other event is decoded, so that an error, a usage report, an end or an event
that is none is never missed. An event that carries the provider's error is not passed on: it
sets ``failure``, and what follows it is dropped, so that the dispatcher may still try again
where nothing was sent, and so that a caller never gets two errors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypeAlias

import msgspec

from penstock.errors import UpstreamInvalid
from penstock.providers.base import Failure
from penstock.providers.failures import ErrorText
from penstock.providers.sse import (
    CR,
    EVENT_BYTES_MAX,
    LINE_BYTES_MAX,
    Event,
    EventBuffer,
    read_event,
    split_events,
)
from penstock.units import Usage

BYTES_PER_TOKEN = 4

ENDS_MIN, ENDS_MAX = 2, 3
"""How many events behind a run of deltas are looked at apart from it: finish, usage, end. Nearly
always the run ends before the last two."""

Classify: TypeAlias = Callable[[int, Mapping[str, str], ErrorText], Failure]
"""A provider's ``classify_error``: status 0 stands for an error inside a stream."""

_ITEMS = re.compile(rb"\[\s*+[^\s\]]")


class EventReader:
    """Reads one answer's events. A kind says what is ordinary, and reads the rest.

    ``overhead_bytes`` is what an event weighs beside its text: events count as one token each,
    or as the text that exceeds this where a provider puts many tokens into one event.
    """

    overhead_bytes: int
    line_bytes_max: int = LINE_BYTES_MAX
    event_bytes_max: int = EVENT_BYTES_MAX

    def __init__(self) -> None:
        self._buffer = EventBuffer(self.line_bytes_max, self.event_bytes_max)
        self._begun = False
        self._deltas = 0
        self._delta_bytes = 0
        self._usage: Usage | None = None
        # Attributes, not properties: they are looked at for every piece.
        self.finished = False
        self.failure: Failure | None = None
        self._failure_event = b""

    @property
    def usage(self) -> Usage | None:
        """What the provider reported so far; None while it has reported nothing."""
        return self._usage

    @property
    def tokens_output_seen(self) -> int:
        """An estimate of the output tokens that have passed."""
        text_bytes = self._delta_bytes - self._deltas * self.overhead_bytes
        return max(self._deltas, text_bytes // BYTES_PER_TOKEN)

    @property
    def failure_event(self) -> bytes:
        """That error's event as it came: it was not passed on."""
        return self._failure_event

    @property
    def failure_body(self) -> bytes:
        """The same as the body of an answer that has not begun."""
        return read_event(self._failure_event).data or b""

    @property
    def response_id(self) -> str | None:
        """Only a response has an id that matters."""
        return None

    @property
    def events_seen(self) -> int:
        """Only the events of a response are numbered."""
        return 0

    def feed(self, chunk: bytes) -> bytes:
        """Take what came, give what goes to the caller. Raises UpstreamInvalid."""
        if self.failure is not None:
            return b""
        # What is ordinary has the ends of its events, unless a CR ends a line, too.
        is_cut = not self._buffer.is_empty or CR in chunk or len(chunk) > self.line_bytes_max
        ready = self._buffer.take(chunk) if is_cut else chunk
        if self._begun and self._are_deltas(ready):
            return self._trimmed(ready)
        if not is_cut:
            ready = self._buffer.take(chunk)
        if ready.find(b"data") < 0:
            return ready  # comments and blank lines, however many: not worth a look at each
        passed = self._pass_ends(ready) if CR not in ready else self._pass_events(ready)
        return self._trimmed(passed)

    def flush(self) -> bytes:
        """What is still held when the provider has closed.

        A last event without its blank line is passed on where the stream has its end; what is
        torn is not, so that an error event of ours begins at the beginning of an event.
        """
        rest = self._buffer.rest()
        if not rest or self.failure is not None:
            return b""
        try:
            passed = self._pass_events(rest)
        except UpstreamInvalid:
            return b""  # torn in the middle: `finished` says that the end is missing
        return self._trimmed(passed) if self.finished else b""

    def _are_deltas(self, ready: bytes) -> bool:
        """Whether these bytes are a run of ordinary deltas; they are counted then."""
        deltas = self._ordinary_deltas(ready)
        self._deltas += deltas
        self._delta_bytes += len(ready) if deltas else 0
        return deltas > 0

    def _pass_ends(self, ready: bytes) -> bytes:
        """Look at the first event of a stream and at its last few, where what is between them is
        a run of deltas: much of a short stream comes at once.
        """
        passed = b""
        if not self._begun:
            end = ready.find(b"\n\n") + 2
            passed, ready = self._pass_events(ready[:end]), ready[end:]
        start = len(ready)
        for ends in range(1, ENDS_MAX + 1):
            start = ready.rfind(b"\n\n", 0, max(0, start - 2)) + 2
            if start < 2 or not self._begun or self.failure is not None:
                break
            if ends >= ENDS_MIN and self._are_deltas(ready[:start]):
                return passed + ready[:start] + self._pass_events(ready[start:])
        return passed + self._pass_events(ready)

    def _pass_events(self, ready: bytes) -> bytes:
        """Look at each event."""
        passed: list[bytes] = []
        for raw in split_events(ready, self.event_bytes_max):
            if self.failure is not None:
                break
            event = read_event(raw)
            if event.data is not None:
                self._begun = True
                deltas_before = self._deltas
                keep = self._read(event)
                if self.failure is not None:
                    self._failure_event = raw
                    break
                self._delta_bytes += len(raw) * (self._deltas - deltas_before)
                if not keep:
                    continue
            passed.append(raw)
        return b"".join(passed)

    def _ordinary_deltas(self, ready: bytes) -> int:
        """How many deltas these bytes are if they are nothing else, else 0."""
        raise NotImplementedError

    def _read(self, event: Event) -> bool:
        """Take note of one event with data; whether it goes to the caller."""
        raise NotImplementedError

    def _trimmed(self, passed: bytes) -> bytes:
        """Take out what only our own wish has brought into the stream."""
        return passed


def invalid_event() -> UpstreamInvalid:
    """An event whose data is not what the protocol puts there."""
    return UpstreamInvalid("The provider's stream has an event that is not of its protocol.")


def is_list(raw: msgspec.Raw) -> bool:
    """Whether a JSON value is a list."""
    return bytes(memoryview(raw)[:1]) == b"["


def has_items(raw: msgspec.Raw) -> bool:
    """Whether it is a list with something in it.

    The items are never built: a hostile answer of 64 MiB has room for 32 million zeros, which
    as objects take 2.3 GiB.
    """
    return _ITEMS.match(memoryview(raw)) is not None
