"""The suite: every trace under every load, burst and charge model; disturbances; beyond; days.

Each cell is played by every policy and by the bounds; ours is held to the gates. Cells are
independent, so they are played in several processes; the result does not depend on how many.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from itertools import product
from multiprocessing.connection import wait
from pathlib import Path
from statistics import median
from typing import Any, Literal

import msgspec

from penstock.errors import ConfigError
from penstock.simulate.disturbances import NAMED
from penstock.simulate.policies.table import BOUND, OURS
from penstock.simulate.report import Figures, Gate, gates, play
from penstock.simulate.rows import Row, read_rows
from penstock.simulate.workloads import (
    DAY_LIMITS,
    SYNTHETIC,
    Shape,
    scenario_of,
    synthetic_rows,
)
from penstock.units import PERIOD_SECONDS

LOADS = (0.8, 1.2, 3.0)
BURSTS: tuple[float | None, ...] = (60.0, 10.0, 2.0, None)
CHARGES: tuple[Literal["anthropic", "openai"], ...] = ("anthropic", "openai")
PROCESSES_MAX = 8
"""Each holds a trace or two and one cell: some 150 MB."""

SPECIAL_LOAD = 1.2
SPECIAL_BURSTS = (60.0, 10.0)
BEYOND_BURST = 10.0
BEYOND: dict[str, dict[str, Any]] = {
    "requests-by-second": {"binding": "requests", "request_window_seconds": 1.0},
    "requests-by-10s": {"binding": "requests", "request_window_seconds": 10.0},
    "slots": {"binding": "slots"},
    "two-accounts": {"accounts": 2},
    "shared-account": {"deployments": 3},
    "accounts-and-deployments": {"accounts": 2, "deployments": 2},
}
"""What is unlike the grid, by name."""

DAY_WORKLOAD = "diurnal"
DAYS: tuple[Literal["day's requests", "day's tokens"], ...] = ("day's requests", "day's tokens")
DAY_SLOWER = 100.0
"""A day is as many rows as a quarter of an hour of the other cells."""

REQUESTS_BIND = "mooncake"
"""Where a trace of that name is played, requests bind, not tokens: its prompts are the largest."""

TRACES = ("azure2023_code", "azure2023_conv", "mooncake_conv", "ragpulse", "servegen_tenants")
"""The traces that a directory is expected to hold; others in it are played, too."""


class Cell(msgspec.Struct, frozen=True):
    """One world of the suite: a file or the name of a synthetic pattern, and a shape.

    ``special`` says what is unlike the cells of the grid: a disturbance, or other limits.
    """

    workload: str
    special: str
    shape: Shape

    @property
    def name(self) -> str:
        """For people."""
        burst_seconds = self.shape.burst_seconds
        burst = "window" if burst_seconds is None else f"{burst_seconds:g}s"
        trace = Path(self.workload).stem
        words = [trace, f"{self.shape.load:g}x", burst, self.shape.charge]
        return " ".join([*words, self.special] if self.special else words)


class CellResult(msgspec.Struct, frozen=True):
    """What each policy came to in a cell, and the gates of ours."""

    name: str
    figures: list[Figures]
    gates: list[Gate]


def samples() -> Path:
    """The directory of the sample traces: beside the package in a wheel, else in a checkout."""
    package = Path(__file__).resolve().parents[1]
    shipped = package / "traces"
    return shipped if shipped.is_dir() else package.parents[1] / "tests" / "data" / "traces"


def cells(traces: Path, base: Shape) -> list[Cell]:
    """All cells for the traces in a directory. Raises ConfigError where there are none.

    ``base`` says from where in each trace, with which seed and for how long.
    """
    files = sorted(traces.glob("*.csv"))
    if not files:
        raise ConfigError([f"{traces}: there is no trace (*.csv) in it"])
    return [
        *_grid(files, base),
        *_disturbed(files[0], base),
        *_beyond(files[0], base),
        *_days(base),
    ]


def _grid(files: Sequence[Path], base: Shape) -> Iterator[Cell]:
    """Every trace, load, burst and charge model."""
    for file, load, burst, charge in product(files, LOADS, BURSTS, CHARGES):
        shape = msgspec.structs.replace(
            _bound_by(file.stem, base), load=load, burst_seconds=burst, charge=charge
        )
        yield Cell(str(file), "", shape)


def _disturbed(file: Path, base: Shape) -> Iterator[Cell]:
    """What goes wrong, on a trace and on bursts."""
    disturbed = [name for name in NAMED if name != "none"]
    workloads = [str(file), "bursts"]
    for workload, name, burst, charge in product(workloads, disturbed, SPECIAL_BURSTS, CHARGES):
        shape = msgspec.structs.replace(
            _bound_by(Path(workload).stem, base),
            load=SPECIAL_LOAD,
            burst_seconds=burst,
            charge=charge,
            disturbances=NAMED[name],
        )
        yield Cell(workload, name, shape)


def _beyond(file: Path, base: Shape) -> Iterator[Cell]:
    """Limits of other kinds, and several accounts and deployments behind one name."""
    for workload, (name, changes), charge in product(
        (str(file), "bursts"), BEYOND.items(), CHARGES
    ):
        shape = msgspec.structs.replace(
            base, load=SPECIAL_LOAD, burst_seconds=BEYOND_BURST, charge=charge, **changes
        )
        yield Cell(workload, name, shape)


def _days(base: Shape) -> Iterator[Cell]:
    """A whole day against a limit of the day."""
    for binding, charge in product(DAYS, CHARGES):
        shape = msgspec.structs.replace(
            base,
            load=SPECIAL_LOAD,
            charge=charge,
            binding=binding,
            seconds=PERIOD_SECONDS[DAY_LIMITS[binding]],
            slower=DAY_SLOWER,
        )
        yield Cell(DAY_WORKLOAD, binding, shape)


def _bound_by(trace: str, shape: Shape) -> Shape:
    if trace.startswith(REQUESTS_BIND):
        return msgspec.structs.replace(shape, binding="requests")
    return shape


@lru_cache(maxsize=8)
def rows_of(workload: str, seconds: float, seed: int) -> Sequence[Row]:
    """The rows of a file or of a synthetic pattern. Raises ConfigError."""
    if workload in SYNTHETIC:
        return synthetic_rows(workload, seconds, seed)
    path = Path(workload)
    if not path.exists() and (samples() / f"{workload}.csv").exists():
        path = samples() / f"{workload}.csv"
    return read_rows(path)


def play_cell(cell: Cell, policies: Sequence[str]) -> CellResult:
    """Play one cell; ours and the bound are among the policies."""
    rows = rows_of(cell.workload, cell.shape.rows_seconds, cell.shape.seed)
    scenario = scenario_of(cell.name, rows, cell.shape)
    figures = {policy: play(scenario, policy) for policy in policies}
    return CellResult(cell.name, list(figures.values()), gates(figures, scenario))


def play_all(chosen: Sequence[Cell], policies: Sequence[str]) -> Iterator[tuple[int, CellResult]]:
    """Play cells side by side; gives the number of each with its result, as they end."""
    context = multiprocessing.get_context("spawn")
    processes = min(PROCESSES_MAX, os.cpu_count() or 1)
    with ProcessPoolExecutor(processes, context, initializer=_end_with_parent) as pool:
        pending = {
            pool.submit(play_cell, cell, policies): number for number, cell in enumerate(chosen)
        }
        try:
            for future in as_completed(pending):
                yield pending.pop(future), future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _end_with_parent() -> None:
    """Let no player outlive the command: one that is killed cannot tell its processes."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def cell_table(results: Sequence[CellResult]) -> list[list[str]]:
    """A row for each cell: ours beside the bound, and the gates that do not hold."""
    head = ["cell", "wait p99", "bound", "chain mean", "bound", "chain p99", "bound", "use",
            "lost", "429s", "jain", "goodput", "does not hold"]  # fmt: skip
    lines = [head]
    for result in results:
        by_policy = {each.policy: each for each in result.figures}
        ours, bound = by_policy[OURS], by_policy[BOUND]
        broken = [f"{gate.name} {gate.value:.3g} for {gate.bound:.3g}"
                  for gate in result.gates if not gate.holds]  # fmt: skip
        lines.append(
            [
                result.name,
                f"{ours.wait_single.p99:.2f}",
                f"{bound.wait_single.p99:.2f}",
                f"{ours.chain.mean:.2f}",
                f"{bound.chain.mean:.2f}",
                f"{ours.chain.p99:.2f}",
                f"{bound.chain.p99:.2f}",
                f"{ours.use:.3f}",
                f"{ours.lost:.3f}",
                str(ours.answers_429),
                "-" if ours.jain is None else f"{ours.jain:.3f}",
                "-" if ours.goodput is None else f"{ours.goodput:.3f}",
                "; ".join(broken) or "-",
            ]
        )
    return lines


def policy_table(results: Sequence[CellResult]) -> list[list[str]]:
    """A row for each policy over all cells: medians, and sums of what should not be."""
    head = ["policy", "wait p99 median", "worst", "chain p99 / bound median", "worst",
            "use median", "429s", "failed", "batch failed", "goodput median"]  # fmt: skip
    lines = [head]
    by_policy: dict[str, list[tuple[Figures, Figures]]] = {}
    for result in results:
        bound = next(each for each in result.figures if each.policy == BOUND)
        for each in result.figures:
            by_policy.setdefault(each.policy, []).append((each, bound))
    for policy, pairs in by_policy.items():
        found = [each for each, _ in pairs]
        waits = [each.wait.p99 for each in found]
        ratios = [each.chain.p99 / bound.chain.p99 for each, bound in pairs if bound.chain.p99]
        goodputs = [each.goodput for each in found if each.goodput is not None]
        lines.append(
            [
                policy,
                f"{median(waits):.2f}",
                f"{max(waits):.1f}",
                f"{median(ratios):.2f}" if ratios else "-",
                f"{max(ratios):.2f}" if ratios else "-",
                f"{median(each.use for each in found):.3f}",
                str(sum(each.answers_429 for each in found)),
                str(sum(each.failures for each in found)),
                str(sum(each.failures_batch for each in found)),
                f"{median(goodputs):.3f}" if goodputs else "-",
            ]
        )
    return lines
