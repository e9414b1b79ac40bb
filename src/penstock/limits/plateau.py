"""Notices that a bucket is smaller than believed, from a level that should rise and does not.

Between two readings of ``remaining`` a bucket grows by its refill less what was sent. Where it
grows by much less, for long enough, it is full: its capacity is the level that it stands at.
Somebody else who uses the same limit slows the growth too, but by his share of it, and only
one who takes most of the limit looks like a full bucket; then the lower capacity is right as
well, because that is what can be counted on.
"""

from __future__ import annotations

MISSING_SHARE = 0.6
"""Growth that is missing, of the growth predicted, from which on the bucket counts as full."""

EVIDENCE_SECONDS = 2.0
"""Refill that must have been watched before anything is concluded."""

EVIDENCE_ROUNDINGS = 3.0
"""And at least so many times the unit to which the provider rounds."""

MEMORY_SECONDS = 10.0
"""Older evidence fades with this time constant."""


class Plateau:
    """Evidence about one bucket; amounts in the bucket's own units, times in seconds."""

    __slots__ = ("_missing", "_peak", "_predicted")

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew: the capacity has been changed."""
        self._predicted = 0.0
        self._missing = 0.0
        self._peak = 0.0

    def watch(
        self,
        *,
        predicted_growth: float,
        missing: float,
        level: float,
        rate: float,
        rounding: float,
    ) -> float | None:
        """Take one more pair of readings; the capacity, once it is evident, else None.

        ``predicted_growth`` is the refill between the two, ``missing`` how much lower the second
        was than the first one predicts (negative: higher), ``level`` what the bucket held before
        the second send. What rounding and jitter add to one pair they take from the next.
        """
        seconds = predicted_growth / rate
        kept = max(0.0, 1.0 - seconds / MEMORY_SECONDS)
        self._predicted = self._predicted * kept + predicted_growth
        self._missing = self._missing * kept + missing
        peak = self._peak * (1.0 - 0.5 * (1.0 - kept))
        self._peak = peak if peak > level else level
        predicted = self._predicted
        if predicted < EVIDENCE_SECONDS * rate or predicted < EVIDENCE_ROUNDINGS * rounding:
            return None
        if self._missing < MISSING_SHARE * self._predicted:
            return None
        return self._peak
