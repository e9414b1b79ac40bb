"""What if: a configuration's own limits and classes under a workload, before and after a change.

The providers of the simulated world enforce what the configuration says of their limits; a
burst that is not configured is taken to be a minute. Rows keep their times, classes, tenants
and models; a row that names none is interactive, of tenant ``people``, for the first model.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Any

import msgspec

from penstock.config.model import Config, DeploymentTable
from penstock.errors import ConfigError
from penstock.scheduler.plan import Plan
from penstock.simulate.provider_world import ProviderLimits
from penstock.simulate.rows import Row
from penstock.simulate.runs import Run, Step
from penstock.simulate.scenario import Scenario, Site, Timing
from penstock.simulate.workloads import (
    CHAIN_STEPS_MAX,
    TOOL_SECONDS,
    Shape,
    output_maximum,
)
from penstock.units import PERIOD_SECONDS

CHANGEABLE = ("deployments", "classes", "tenants")
BURST_SECONDS_UNKNOWN = 60.0


def changed(config: Config, change: str) -> Config:
    """``config`` after a change such as ``deployments.gpt.tpm=2x`` or ``tenants.a.weight=3``.

    Raises ConfigError with the value, the rule and the way out.
    """
    path, equals, text = change.partition("=")
    table, _, rest = path.strip().partition(".")
    name, _, field = rest.rpartition(".")
    if not equals or table not in CHANGEABLE or not name:
        form = f"write TABLE.NAME.FIELD=VALUE, TABLE being one of {', '.join(CHANGEABLE)}"
        raise ConfigError([f"--change {change!a}: {form}"])
    tables: dict[str, Any] = msgspec.to_builtins(config)
    names = tables[table]
    if name not in names and table != "tenants":
        there = ", ".join(names) or "none"
        raise ConfigError([f"--change {change!a}: no {table}.{name}; there are {there}"])
    found = names.setdefault(name, {})
    found[field] = _value(change, text.strip(), found.get(field))
    try:
        after = msgspec.convert(tables, Config)
    except msgspec.ValidationError as error:
        raise ConfigError([f"--change {change!a}: {error}"]) from None
    ranks = [each.rank for each in after.classes.values()]
    if len(set(ranks)) < len(ranks):
        raise ConfigError([f"--change {change!a}: no two classes may share a rank"])
    return after


def _value(change: str, text: str, before: Any) -> Any:
    if text.endswith("x"):
        try:
            factor = float(text[:-1])
        except ValueError:
            factor = 0.0
        if factor <= 0 or isinstance(before, bool) or not isinstance(before, int | float):
            raise ConfigError(
                [f"--change {change!a}: a factor above 0 on a number that is set; it is {before!a}"]
            )
        return int(before * factor) if isinstance(before, int) else before * factor
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def scenario_of_config(config: Config, plan: Plan, rows: Sequence[Row], shape: Shape) -> Scenario:
    """The world of a configuration: of ``shape`` count its times and its seed.

    Raises ConfigError where a row does not fit it.
    """
    if not plan.deployments:
        raise ConfigError(["the configuration names no deployment: there is nothing to simulate"])
    stated: dict[str, ProviderLimits] = {}
    for deployment in plan.deployments:
        limits = _limits(config.deployments[deployment.name])
        if not _has_rates(stated.get(deployment.pool_name)):
            stated[deployment.pool_name] = limits
    sites = tuple(Site(deployment, stated[deployment.pool_name]) for deployment in plan.deployments)
    if not any(site.rates() or site.limits.concurrency for site in sites):
        raise ConfigError(["no deployment states a limit (rpm, tpm ...): nothing would ever wait"])
    return Scenario(
        name="the configuration",
        sites=sites,
        classes=plan.classes,
        runs=_runs(plan, rows, shape),
        seconds=shape.seconds,
        settling_seconds=min(120.0, shape.seconds / 5),
        seed=shape.seed,
        tenant_weights=plan.tenant_weights,
    )


def _has_rates(limits: ProviderLimits | None) -> bool:
    return limits is not None and any(
        getattr(limits, name.value) is not None for name in PERIOD_SECONDS
    )


def _limits(table: DeploymentTable) -> ProviderLimits:
    burst_seconds = table.burst_seconds
    return ProviderLimits(
        rpm=table.rpm,
        tpm=table.tpm,
        itpm=table.itpm,
        otpm=table.otpm,
        rpd=table.rpd,
        tpd=table.tpd,
        concurrency=table.concurrency,
        burst_seconds=BURST_SECONDS_UNKNOWN if burst_seconds is None else burst_seconds,
        quantum_seconds=table.request_window_seconds,
        fixed_window=table.algorithm == "window",
    )


def _runs(plan: Plan, rows: Sequence[Row], shape: Shape) -> list[Run]:
    models: dict[str, str] = {}
    for deployment in plan.deployments:
        for model in deployment.models:
            models.setdefault(model.partition("/")[2], model)
    default_model = plan.deployments[0].models[0]
    classes = {each.name for each in plan.classes}
    default_class = min(plan.classes, key=lambda each: each.rank).name
    for row in rows:
        if row.model and row.model not in models:
            served = ", ".join(sorted(models))
            raise ConfigError([f"the workload names the model {row.model!a}; served are {served}"])
        if row.class_name and row.class_name not in classes:
            known = ", ".join(sorted(classes))
            raise ConfigError([f"the workload names the class {row.class_name!a}, not {known}"])
    first = rows[0].at + shape.begin_seconds
    found = [row for row in rows if first <= row.at < first + shape.seconds]
    if not found:
        hours = (rows[-1].at - rows[0].at) / 3600
        begin = f"{shape.begin_seconds / 3600:g} h"
        raise ConfigError([f"the workload has no calls after {begin}; it has {hours:.2f} h"])
    runs = []
    for number, group in enumerate(_groups(found)):
        row = group[0]
        runs.append(
            Run(
                name=f"r{number}",
                model=models.get(row.model, default_model),
                tenant=row.tenant or "people",
                class_name=row.class_name or default_class,
                arrival=row.at - first,
                steps=tuple(_steps(group)),
                patience_seconds=row.deadline_seconds or None,
            )
        )
    return runs


def _steps(group: Sequence[Row]) -> Sequence[Step]:
    """The calls of a chain, one after the other, and the time of the tools between them."""
    steps: list[Step] = []
    for number, row in enumerate(group):
        output_max = row.tokens_output_max or output_maximum(row.tokens_output)
        step = Step(row.tokens_input, min(row.tokens_output, output_max), output_max)
        if number:
            step = step._replace(tool_seconds=_tool_seconds(group[number - 1], row, steps[-1]))
        steps.append(step)
    return steps


def _tool_seconds(before: Row, row: Row, step: Step) -> float:
    """What passed between a call's end and the next call of the same run.

    A ledger says how long a call was busy; else it is taken to have gone at once. Of sessions,
    whose calls are a person's, only the calls are known: a tool's usual time stands for it.
    """
    if not row.run:
        return sum(TOOL_SECONDS) / 2
    busy_seconds = before.busy_seconds or Timing().answer_seconds(step)
    return max(0.0, row.at - before.at - busy_seconds)


def _groups(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows of one run are one chain; so are those of one session, up to five; others are alone."""
    groups: list[list[Row]] = []
    open_groups: dict[tuple[str, str, str, str], list[Row]] = {}
    for row in rows:
        key = (row.run, row.session, row.tenant, row.class_name)
        group = open_groups.get(key) if row.run or row.session else None
        if group is None or (not row.run and len(group) == CHAIN_STEPS_MAX):
            group = []
            open_groups[key] = group
            groups.append(group)
        group.append(row)
    return groups
