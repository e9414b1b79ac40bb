"""What the sandbox answered, so that tests can assert on the provider's view.

Keys are shown by their last four characters: enough to tell them apart.
"""

from __future__ import annotations

import time
from collections import deque
from enum import StrEnum

import msgspec

RECORDS_MAX = 50_000


class AnswerClass(StrEnum):
    """How a call ended, seen from the provider."""

    SUCCESS = "success"
    DENIED = "denied"  # 429 by an enforced limit
    REJECTED = "rejected"  # 4xx: the request breaks a rule
    FAULT = "fault"  # injected
    CANCELLED = "cancelled"  # the client hung up before the end


class CallRecord(msgspec.Struct):
    """One call. ``at`` is when it arrived, Unix time; ``status`` 0 means none was sent."""

    at: float
    path: str
    stream: bool = False
    model: str | None = None
    status: int = 0
    answer: AnswerClass = AnswerClass.REJECTED
    admitted: bool = False
    fault: str | None = None
    limit: str | None = None
    tokens_input: int = 0
    tokens_output: int = 0
    duration_seconds: float = 0.0
    user_agent: str = ""
    key: str = ""


class ModelCounts(msgspec.Struct):
    """What one model did: ``tokens_input`` of the calls that were admitted."""

    calls: int = 0
    admitted: int = 0
    tokens_input: int = 0
    tokens_output: int = 0


class Statistics:
    """Counts every call, and remembers the last ones."""

    def __init__(self) -> None:
        self.records: deque[CallRecord] = deque(maxlen=RECORDS_MAX)
        self.reset()

    def reset(self) -> None:
        """Count from zero again."""
        self.since = time.time()
        self.calls = 0
        self.by_status: dict[int, int] = {}
        self.by_answer: dict[AnswerClass, int] = dict.fromkeys(AnswerClass, 0)
        self.by_model: dict[str, ModelCounts] = {}
        self.records.clear()

    def add(self, record: CallRecord) -> None:
        """A call has ended."""
        self.calls += 1
        self.by_status[record.status] = self.by_status.get(record.status, 0) + 1
        self.by_answer[record.answer] += 1
        if record.model is not None:
            counts = self.by_model.get(record.model)
            if counts is None:
                counts = self.by_model[record.model] = ModelCounts()
            counts.calls += 1
            if record.admitted:
                counts.admitted += 1
                counts.tokens_input += record.tokens_input
                counts.tokens_output += record.tokens_output
        self.records.append(record)

    def last(self, count: int) -> list[CallRecord]:
        """The last ``count`` calls, oldest first."""
        first = max(0, len(self.records) - count)
        return [record for index, record in enumerate(self.records) if index >= first]


def masked(key: str) -> str:
    """A key as it is shown."""
    return "…" + key[-4:]
