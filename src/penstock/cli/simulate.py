"""``penstock simulate``: the scheduler in virtual time, beside what others do."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import click
import msgspec

from penstock.config.load import load_tables
from penstock.config.model import Config
from penstock.dispatch.planning import plan_of
from penstock.errors import ConfigError
from penstock.simulate import suite as suites
from penstock.simulate.disturbances import NAMED
from penstock.simulate.picture import draw
from penstock.simulate.policies.ours import Ours
from penstock.simulate.policies.table import BOUND, NEEDED, OURS, POLICIES
from penstock.simulate.report import (
    Figures,
    Gate,
    binding_limit,
    class_table,
    figures,
    gates,
    play,
    table,
)
from penstock.simulate.scenario import Scenario
from penstock.simulate.whatif import changed, scenario_of_config
from penstock.simulate.workloads import Shape, scenario_of

JSON_VERSION = 1
EXIT_GATES = 1
SECONDS_MAX = 86_400.0
HOURS_MAX = 10_000.0


class Wish(msgspec.Struct, frozen=True):
    """What the command line asks for."""

    workload: str
    policies: tuple[str, ...]
    seconds: float
    begin_hours: float
    seed: int
    load: float
    burst: str
    charge: Literal["anthropic", "openai"]
    disturbance: str
    as_json: bool
    picture: Path | None

    def shape(self) -> Shape:
        """The part of it that shapes a world, and is the same in all cells of the suite."""
        return Shape(seconds=self.seconds, begin_seconds=self.begin_hours * 3600.0, seed=self.seed)


@click.command()
@click.option(
    "--workload",
    default="bursts",
    show_default=True,
    metavar="NAME|FILE",
    help="A CSV file, the name of a sample trace, or poisson, bursts, diurnal, flood.",
)
@click.option("--load", default=1.2, show_default=True, type=click.FloatRange(min=0.1, max=100),
              help="All work together, as a multiple of the limit.")  # fmt: skip
@click.option("--burst", default="60", show_default=True, metavar="SECONDS|window",
              help="What the provider's buckets hold, or fixed windows of a minute.")  # fmt: skip
@click.option("--charge", default="anthropic", show_default=True,
              type=click.Choice(["anthropic", "openai"]), help="How it charges calls.")  # fmt: skip
@click.option("--disturbance", default="none", show_default=True, type=click.Choice(list(NAMED)),
              help="What goes wrong.")  # fmt: skip
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Use this configuration's limits, classes and tenants; the workload as it is.",
)
@click.option("--change", "changes", multiple=True, metavar="TABLE.NAME.FIELD=VALUE",
              help="With --config: play it changed, too; as deployments.gpt.tpm=2x.")  # fmt: skip
@click.option("--policy", "policies", multiple=True, type=click.Choice(list(POLICIES)),
              help="Only these; may be repeated.")  # fmt: skip
@click.option("--seconds", default=600.0, show_default=True,
              type=click.FloatRange(min=60, max=SECONDS_MAX), help="Virtual time.")  # fmt: skip
@click.option("--begin-hours", default=0.0, show_default=True,
              type=click.FloatRange(min=0, max=HOURS_MAX),
              help="So much of the workload is left out before it begins.")  # fmt: skip
@click.option("--seed", default=0, show_default=True, help="The same seed, the same result.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--picture", type=click.Path(path_type=Path, dir_okay=False, writable=True),
              help="Write an SVG of levels and waits.")  # fmt: skip
@click.option("--suite", is_flag=True,
              help="Every trace, load, burst and charge model, and the disturbances.")  # fmt: skip
@click.option("--traces", type=click.Path(path_type=Path, exists=True, file_okay=False),
              help="With --suite: the directory of the traces.")  # fmt: skip
def simulate(**options: Any) -> int:
    """Play a workload in virtual time: what if, and beside others.

    Without options: an interactive service with bursts, deadlines and batch jobs, at 120 % of a
    provider's limit. The exit code is 1 where this scheduler misses one of its bounds.
    """
    wish = Wish(
        workload=options["workload"],
        policies=tuple(options["policies"]),
        seconds=options["seconds"],
        begin_hours=options["begin_hours"],
        seed=options["seed"],
        load=options["load"],
        burst=options["burst"],
        charge=options["charge"],
        disturbance=options["disturbance"],
        as_json=options["as_json"],
        picture=options["picture"],
    )
    if options["suite"]:
        return _suite(wish, options["traces"] or suites.samples())
    if options["config_path"] is not None:
        return _what_if(wish, load_tables(options["config_path"]), options["changes"])
    if options["changes"]:
        raise click.UsageError("--change goes with --config")
    return _one(wish)


def _one(wish: Wish) -> int:
    """One workload, side by side."""
    shape = msgspec.structs.replace(
        wish.shape(),
        load=wish.load,
        burst_seconds=_burst_seconds(wish.burst),
        charge=wish.charge,
        disturbances=NAMED[wish.disturbance],
    )
    rows = suites.rows_of(wish.workload, wish.seconds, wish.seed)
    scenario = scenario_of(wish.workload, rows, shape)
    policies = wish.policies or tuple(POLICIES)
    found, cpu_seconds = _play(scenario, policies, wish.picture)
    by_policy = {each.policy: each for each in found}
    held: list[Gate] = []
    if by_policy.keys() >= set(NEEDED):
        held = gates(by_policy, scenario)
    if wish.as_json:
        _print_json({"figures": found, "gates": held, "cpu_seconds": cpu_seconds})
    else:
        _say_world(scenario)
        _print_table(table(found))
        click.echo(f"hash {_digest(found)}")
        _print_gates(held)
    return EXIT_GATES if any(not gate.holds for gate in held) else 0


def _what_if(wish: Wish, config: Config, changes: Sequence[str]) -> int:
    """A configuration, before and after its changes."""
    after = config
    for change in changes:
        after = changed(after, change)
    rows = suites.rows_of(wish.workload, wish.seconds, wish.seed)
    states = [("before", config), (f"after: {', '.join(changes)}", after)]
    document: dict[str, Any] = {}
    for name, one in states if changes else states[:1]:
        scenario = scenario_of_config(one, plan_of(one), rows, wish.shape())
        picture = wish.picture if one is after else None
        found, _ = _play(scenario, wish.policies or (OURS, BOUND), picture)
        document[name.partition(":")[0]] = found
        if wish.as_json:
            continue
        if changes:
            click.echo(name)
        _say_what_came_of_it(scenario, found, by_class=not wish.policies)
    if wish.as_json:
        _print_json(document)
    return 0


def _say_what_came_of_it(scenario: Scenario, found: Sequence[Figures], *, by_class: bool) -> None:
    _say_world(scenario)
    if not by_class:
        _print_table(table(found))
        return
    ours, bound = found
    _print_table(class_table(ours, bound))
    click.echo(
        f"{ours.binding} binds: {ours.use:.1%} used, {ours.lost:.1%} lost while calls waited; "
        f"{ours.answers_429} of {ours.attempts} sends answered 429"
    )


def _suite(wish: Wish, traces: Path) -> int:
    chosen = suites.cells(traces, wish.shape())
    policies = list(dict.fromkeys((*NEEDED, *(wish.policies or POLICIES))))
    results: dict[int, suites.CellResult] = {}
    started = time.monotonic()
    for number, result in suites.play_all(chosen, policies):
        results[number] = result
        misses = sum(not gate.holds for gate in result.gates)
        elapsed = time.monotonic() - started
        click.echo(
            f"{len(results)}/{len(chosen)} {elapsed:.0f}s {result.name}"
            + (f": {misses} missed" if misses else ""),
            err=True,
        )
    ordered = [results[number] for number in sorted(results)]
    missed = [each.name for each in ordered if any(not gate.holds for gate in each.gates)]
    digest = _digest([each for cell in ordered for each in cell.figures])
    if wish.as_json:
        _print_json({"cells": ordered, "missed": missed, "hash": digest})
        return EXIT_GATES if missed else 0
    for cell in ordered:
        click.echo(cell.name)
        _print_table(table(cell.figures))
        click.echo()
    _print_table(suites.cell_table(ordered))
    click.echo()
    _print_table(suites.policy_table(ordered))
    click.echo(f"hash {digest}")
    click.echo(f"{len(ordered) - len(missed)} of {len(ordered)} cells hold")
    return EXIT_GATES if missed else 0


def _play(
    scenario: Scenario, policies: Sequence[str], picture: Path | None
) -> tuple[list[Figures], dict[str, float]]:
    found, cpu_seconds = [], {}
    for policy in policies:
        began = time.process_time()
        if picture is not None and policy == (OURS if OURS in policies else policies[0]):
            found.append(_drawn(scenario, policy, picture))
        else:
            found.append(play(scenario, policy))
        cpu_seconds[policy] = round(time.process_time() - began, 3)
    return found, cpu_seconds


def _drawn(scenario: Scenario, policy: str, picture: Path) -> Figures:
    simulation = POLICIES[policy].simulation(scenario, with_picture=True)
    digest = simulation.run()
    found = figures(simulation, policy, digest, binding_limit(scenario))
    driver = simulation.policy
    reserves = driver.reserves(0) if isinstance(driver, Ours) else None
    try:
        picture.write_text(draw(simulation, found, reserves), "utf-8")
    except OSError as error:
        raise ConfigError([f"{picture}: {error.strerror}"]) from None
    return found


def _burst_seconds(text: str) -> float | None:
    if text == "window":
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1.0 <= seconds <= 3600.0:
        raise click.BadParameter(
            f"{text!a} is neither a number of seconds from 1 to 3600 nor 'window'",
            param_hint="'--burst'",
        )
    return seconds


def _say_world(scenario: Scenario) -> None:
    calls = sum(len(run.steps) for run in scenario.runs)
    click.echo(f"{scenario.name}: {calls} calls in {scenario.seconds:g} s")
    for name, number in scenario.pools().items():
        limits = msgspec.to_builtins(scenario.sites[number].limits)
        said = [
            name if value is True else f"{name} {value:,.10g}"
            for name, value in limits.items()
            if value is not None and value is not False
        ]
        click.echo(f"{name}: {', '.join(said)}")


def _print_table(lines: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [
            cell.ljust(width) if number == 0 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        click.echo("  ".join(cells).rstrip())


def _print_gates(held: Sequence[Gate]) -> None:
    for gate in held:
        if not gate.holds:
            click.echo(f"does not hold: {gate.name} is {gate.value:.4g} for {gate.bound:.4g}")
    if held and all(gate.holds for gate in held):
        click.echo(f"all {len(held)} bounds hold")


def _digest(found: Sequence[Figures]) -> str:
    """The hashes of several simulations in one."""
    import hashlib  # noqa: PLC0415 - only here

    return hashlib.sha256("".join(each.digest for each in found).encode()).hexdigest()


def _print_json(document: dict[str, Any]) -> None:
    content = cast("dict[str, Any]", msgspec.to_builtins(document))
    click.echo(json.dumps({"version": JSON_VERSION, **content}, indent=2))
