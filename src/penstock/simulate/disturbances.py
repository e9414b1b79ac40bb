"""What goes wrong in a simulated world, apart from too much work.

A disturbance changes what is known (estimates, configured bursts), what the provider does
(hidden consumers, 429 storms, outages) or how its answers come back (late, out of order, with
a clock that is off). ``NAMED`` holds those that the suite tries.
"""

from __future__ import annotations

import msgspec


class Span(msgspec.Struct, frozen=True):
    """A time during which something is wrong, in seconds of virtual time."""

    begin_seconds: float
    end_seconds: float

    def holds(self, now: float) -> bool:
        """Whether it is wrong now."""
        return self.begin_seconds <= now < self.end_seconds


class Disturbances(msgspec.Struct, frozen=True):
    """What goes wrong.

    - ``estimate_noise``: standard deviation of the logarithm of estimated over true input.
    - ``hidden_share``: the share of every limit that somebody else takes, unknown to us.
    - ``burst``: what is configured of the burst: as it is, nothing, or wrong by ``burst_factor``.
    - ``reorder_seconds``: up to so much later does the head of an answer arrive.
    - ``clock_skew_seconds``: how far the provider's clock, and so its reset times, is off.
    - ``storm``: a 429 without reason or delay for ``storm_share`` of the calls.
    - ``outage``: every call is answered 503.
    """

    estimate_noise: float = 0.0
    hidden_share: float = 0.0
    burst_is_configured: bool = True
    burst_factor: float = 1.0
    reorder_seconds: float = 0.0
    clock_skew_seconds: float = 0.0
    storm: Span | None = None
    storm_share: float = 0.5
    outage: Span | None = None

    def broken_seconds(self) -> float:
        """How long the provider answers with nothing but refusals, or many without reason."""
        spans = [span for span in (self.storm, self.outage) if span is not None]
        return sum(span.end_seconds - span.begin_seconds for span in spans)


NONE = Disturbances()

NAMED: dict[str, Disturbances] = {
    "none": NONE,
    "burst-unknown": Disturbances(burst_is_configured=False),
    "burst-6x": Disturbances(burst_factor=6.0),
    "burst-sixth": Disturbances(burst_factor=1 / 6),
    "noise": Disturbances(estimate_noise=0.3),
    "hidden": Disturbances(hidden_share=0.1),
    "all": Disturbances(burst_is_configured=False, estimate_noise=0.3, hidden_share=0.1),
    "skew": Disturbances(reorder_seconds=2.0, clock_skew_seconds=30.0),
    "storm": Disturbances(storm=Span(240.0, 270.0)),
    "outage": Disturbances(outage=Span(240.0, 270.0)),
}
"""By the name that the command line takes."""
