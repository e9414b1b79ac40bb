"""A request's head as it was read, kept for the next request that has the same.

A client keeps its connection, and what it sends on it begins with the same head again and again,
but for a few fields that are new each time. So a connection compares what came with its last head,
and where only those differ it takes what was read of that one: the fields by name, the rules that
the head keeps, the door that it leads to, whose key it holds. That was a tenth of what a plain
call cost. It is one head a connection, compared as a whole with what the same caller sent before:
nothing is looked up by what somebody sends, no caller meets another's, and nothing grows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

Fields: TypeAlias = Sequence[tuple[bytes, bytes]]
RequestLine: TypeAlias = tuple[bytes, bytes, str]
"""Method, target and version."""

VARYING: Final = frozenset(
    {
        b"baggage",
        b"content-length",
        b"idempotency-key",
        b"penstock-run",
        b"traceparent",
        b"tracestate",
        b"x-request-id",
        b"x-stainless-retry-count",
    }
)
"""What differs from one request to the next of the same client. None of it says who asks, which
door, or how the message is framed, but for the length of its body, which the parser keeps."""

_FRAMING: Final = ("expect", "transfer-encoding", "upgrade")

FIELDS_KEPT_MAX: Final = 64
BYTES_KEPT_MAX: Final = 8 * 1024
"""A head with more is read anew each time: what is kept stays with a connection while it is idle,
in several forms, and anybody may have a connection."""


class Head:
    """What is the same in all requests with this head. ``fields`` have lower-case names.

    ``door``, ``principal`` and ``wish`` (class and seconds) are what they led to, each beside what
    it was decided by: whoever uses one looks whether that still holds. That is something small: a
    table of keys that was replaced must not stay for as long as a connection idles. ``scope`` is
    ASGI's, without the fields.
    """

    __slots__ = ("_raw", "_varying_at", "door", "expects_continue", "fields", "keeps_alive",
                 "line", "named", "principal", "scope", "wish")  # fmt: skip

    def __init__(self, fields: Fields, line: RequestLine = (b"", b"", "")) -> None:
        self.fields = fields
        self.line = line
        self.scope: dict[str, Any] = {}
        self.keeps_alive = self.expects_continue = False
        self.named = by_name(fields)
        self.door: tuple[object, Any] | None = None
        self.principal: tuple[object, Any] | None = None
        self.wish: tuple[object, object, str, float] | None = None
        self._raw: list[tuple[bytes, bytes]] = []
        self._varying_at: list[tuple[int, bytes]] = []

    @classmethod
    def read(cls, raw: Fields, line: RequestLine) -> tuple[Head, Fields]:
        """The head of fields as they came, and those of them that vary."""
        lowered = [(name.lower(), value) for name, value in raw]
        head = cls([field for field in lowered if field[0] not in VARYING], line)
        head._raw = [*raw]
        varying = [(at, field) for at, field in enumerate(lowered) if field[0] in VARYING]
        for at, (name, _) in varying:
            head._varying_at.append((at, name))
            head._raw[at] = (raw[at][0], b"")
        return head, [field for _, field in varying]

    def varying_of(self, raw: Fields) -> Fields | None:
        """Those of the fields that vary, where all others are as in this head; else None."""
        if len(raw) != len(self._raw):
            return None
        others = [*raw]
        varying = []
        for at, name in self._varying_at:
            if raw[at][0] != self._raw[at][0]:
                return None
            varying.append((name, raw[at][1]))
            others[at] = self._raw[at]
        return varying if others == self._raw else None

    @property
    def is_worth_keeping(self) -> bool:
        """Whether it is small, and no field bears on how the message is framed, whatever stands
        beside it.
        """
        return (
            max(len(self.fields), len(self._raw)) <= FIELDS_KEPT_MAX
            and len(self.line[1]) + sum(len(name) + len(value) for name, value in self.fields)
            <= BYTES_KEPT_MAX
            and self.named.keys().isdisjoint(_FRAMING)
        )

    def headers(self, varying: Fields) -> Mapping[str, str]:
        """All fields by name; where a name came several times, the first one counts."""
        return self.named | by_name(varying) if varying else self.named


def by_name(fields: Fields) -> dict[str, str]:
    """Fields as text. Of several with one name the first counts."""
    # Backwards, so that the first of several stands in the end.
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(fields)}
