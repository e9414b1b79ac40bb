"""A simulation as a picture: levels with the reserve above, waits by class below. SVG as text.

Its colours follow the reader's light or dark theme, its shapes differ without colour, and it
needs neither a font nor a script.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from penstock.simulate.engine import Simulation
from penstock.simulate.report import Figures, wait_so_far
from penstock.units import LimitName

WIDTH, LEFT, RIGHT = 900, 60, 20
LEVEL_TOP, LEVEL_HEIGHT = 50, 190
WAIT_TOP, WAIT_HEIGHT = 300, 190
HEIGHT = 550
BINS = 90
GAP_BINS = 4

STYLE = """
  :root { color-scheme: light dark; }
  svg { background: #ffffff; }
  text { font: 12px system-ui, sans-serif; fill: #1c2128; }
  .soft { fill: #59636e; } .frame { stroke: #d9dde3; fill: none; }
  .level { stroke: #1f6feb; } .reserve { stroke: #1c2128; stroke-dasharray: 6 4; }
  .rank0 { stroke: #1f6feb; } .rank1 { stroke: #b35900; stroke-dasharray: 8 3; }
  .rank2 { stroke: #6e4aa6; stroke-dasharray: 2 3; }
  .line { fill: none; stroke-width: 1.5; }
  .point { fill: none; stroke-width: 2; stroke-dasharray: none; }
  @media (prefers-color-scheme: dark) {
    svg { background: #0f1318; }
    text { fill: #e6eaef; } .soft { fill: #9aa5b1; } .frame { stroke: #2c343e; }
    .level { stroke: #4c9aff; } .reserve { stroke: #e6eaef; }
    .rank0 { stroke: #4c9aff; } .rank1 { stroke: #f0a35e; } .rank2 { stroke: #b79cf0; }
  }
"""


def draw(
    simulation: Simulation, figures: Figures, reserves: Mapping[LimitName, float] | None
) -> str:
    """The picture of a simulation that was run with its samples taken.

    ``reserves``: what the least urgent class leaves of each limit of the first site, where the
    policy has a reserve.
    """
    scenario = simulation.scenario
    limit = LimitName(figures.binding)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(figures.policy)}: {escape(scenario.name)}</title>",
        f"<style>{STYLE}</style>",
        _text(LEFT, 20, f"{figures.policy}: {scenario.name}"),
        _text(LEFT, 38, f"level of {limit.value}, share of its capacity", "soft"),
        *_levels(simulation, limit, (reserves or {}).get(limit)),
        _text(
            LEFT,
            WAIT_TOP - 24,
            "wait by arrival, or so far at the end; 95th percentile, seconds",
            "soft",
        ),
        *_waits(simulation),
        *_minutes(scenario.seconds),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _levels(simulation: Simulation, limit: LimitName, reserve: float | None) -> list[str]:
    capacity = _capacity(simulation, limit)
    seconds = simulation.scenario.seconds
    points = [
        (_x(sample.at, seconds), _level_y(sample.levels[0][limit] / capacity))
        for sample in simulation.record.samples
    ]
    parts = [_frame(LEVEL_TOP, LEVEL_HEIGHT), _polyline(points, "level")]
    for share in (0.0, 0.5, 1.0):
        parts.append(_text(LEFT - 8, _level_y(share) + 4, f"{share:.0%}", "soft", anchor="end"))
    if reserve is not None:
        y = _level_y(reserve / capacity)
        parts.append(_polyline([(LEFT, y), (WIDTH - RIGHT, y)], "reserve"))
        # Named in the head: at the line itself the level would run through the words.
        said = "kept back for urgent calls"
        parts.append(_text(WIDTH - RIGHT, LEVEL_TOP - 12, said, anchor="end"))
        sample = WIDTH - RIGHT - 6 * len(said) - 6
        parts.append(
            _polyline([(sample - 24, LEVEL_TOP - 16), (sample, LEVEL_TOP - 16)], "reserve")
        )
    return parts


def _capacity(simulation: Simulation, limit: LimitName) -> float:
    world = simulation.worlds[0]
    if limit is LimitName.CONCURRENCY:
        return float(world.limits.concurrency or 1)
    return world.account(simulation.now, limit).capacity


def _waits(simulation: Simulation) -> list[str]:
    scenario = simulation.scenario
    seconds = scenario.seconds
    names = [each.name for each in sorted(scenario.classes, key=lambda each: each.rank)]
    bins: dict[str, list[list[float]]] = {name: [[] for _ in range(BINS)] for name in names}
    for call in simulation.record.calls:
        if call.ready_at < seconds:
            place = int(call.ready_at / seconds * BINS)
            bins[call.run.class_name][place].append(wait_so_far(call, scenario))
    highest = max((max(found) for each in bins.values() for found in each if found), default=1.0)
    top = 10 ** math.ceil(math.log10(max(1.0, highest)))
    parts = [_frame(WAIT_TOP, WAIT_HEIGHT)]
    for mark in (0.0, *(10.0**power for power in range(int(math.log10(top)) + 1))):
        y = _wait_y(mark, top)
        parts.append(_text(LEFT - 8, y + 4, f"{mark:g}", "soft", anchor="end"))
    for rank, name in enumerate(names):
        kind = f"rank{min(rank, 2)}"
        for stretch in _stretches(bins[name]):
            points = [
                (_x((place + 0.5) * seconds / BINS, seconds), _wait_y(p95, top))
                for place, p95 in stretch
            ]
            parts.append(_polyline(points, kind) if len(points) > 1 else _point(*points[0], kind))
        x, y = LEFT + 8 + 140 * rank, WAIT_TOP - 8
        parts.append(_polyline([(x, y - 4), (x + 24, y - 4)], kind))
        parts.append(_text(x + 30, y, name))
    return parts


def _stretches(bins: Sequence[list[float]]) -> list[list[tuple[int, float]]]:
    """Bins and their percentiles, apart where for longer nobody came: no line bridges that."""
    stretches: list[list[tuple[int, float]]] = []
    for place, found in enumerate(bins):
        if found:
            if not stretches or place - stretches[-1][-1][0] > GAP_BINS:
                stretches.append([])
            stretches[-1].append((place, _percentile(found)))
    return stretches


def _minutes(seconds: float) -> list[str]:
    y = WAIT_TOP + WAIT_HEIGHT + 18
    minutes = seconds / 60
    step = next((each for each in (1, 2, 5, 10, 30, 60) if minutes <= 10 * each), 240)
    return [
        _text(_x(mark * 60, seconds), y, str(mark), anchor="middle")
        for mark in range(0, int(minutes) + 1, step)
    ] + [_text(WIDTH / 2, y + 20, "minutes", "soft", anchor="middle")]


def _percentile(values: Sequence[float]) -> float:
    return sorted(values)[math.ceil(0.95 * len(values)) - 1]


def _x(at: float, seconds: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * at / seconds


def _level_y(share: float) -> float:
    return LEVEL_TOP + LEVEL_HEIGHT * (1 - min(1.0, max(0.0, share)))


def _wait_y(wait_seconds: float, top: float) -> float:
    """Nearly linear up to a second, logarithmic above."""
    share = math.log1p(wait_seconds) / math.log1p(top)
    return WAIT_TOP + WAIT_HEIGHT * (1 - share)


def _frame(top: float, height: float) -> str:
    return (
        f'<rect class="frame" x="{LEFT}" y="{top}" width="{WIDTH - LEFT - RIGHT}" '
        f'height="{height}"/>'
    )


def _polyline(points: Sequence[tuple[float, float]], kind: str) -> str:
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline class="line {kind}" points="{places}"/>'


def _point(x: float, y: float, kind: str) -> str:
    return f'<circle class="point {kind}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'


def _text(x: float, y: float, text: str, kind: str = "", *, anchor: str = "start") -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )
