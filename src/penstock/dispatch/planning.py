"""From the configuration to what the scheduler and the client need to know.

A public model name is served under one protocol or under several; units wait by protocol and
name together, because a call in one protocol cannot go to a deployment of the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from penstock.config.model import Config, DeploymentTable, TenantTable
from penstock.config.secrets import Secrets
from penstock.dispatch.calls import Target
from penstock.dispatch.prices import Price
from penstock.dispatch.upstream import Timeouts
from penstock.limits.pool import LimitsPlan
from penstock.providers.registry import ADAPTERS
from penstock.scheduler.plan import ClassPlan, DeploymentPlan, Plan
from penstock.units import PERIOD_SECONDS, Estimate, LimitName


def queue_name(kind: str, model: str) -> str:
    """The name under which units for a public model wait: protocol and model."""
    return f"{kind}/{model}"


def plan_of(config: Config) -> Plan:
    """The scheduler's part of a configuration."""
    return Plan(
        classes=tuple(
            ClassPlan(
                name=name,
                rank=table.rank,
                reserve=table.reserve,
                min_share=table.min_share,
                order=table.order,
                seniority_seconds=table.seniority_seconds or math.inf,
                quantum_seconds=table.quantum_seconds,
                queue_max=table.queue_max,
                queue_tenant_share=table.queue_tenant_share,
            )
            for name, table in config.classes.items()
        ),
        deployments=tuple(
            _deployment_plan(name, table, config.providers[table.provider].kind)
            for name, table in config.deployments.items()
        ),
        tenant_weights={name: table.weight for name, table in config.tenants.items()},
        tenant_limits={
            name: limits
            for name, table in config.tenants.items()
            if (limits := tenant_limits(table)) != LimitsPlan()
        },
    )


def tenant_limits(table: TenantTable) -> LimitsPlan:
    """A tenant's own limits, beside those of the deployments."""
    rates = {LimitName.RPM: table.rpm, LimitName.TPM: table.tpm}
    return LimitsPlan(
        rates={limit: rate for limit, rate in rates.items() if rate is not None},
        concurrency=table.concurrency,
    )


def targets_of(config: Config, secrets: Secrets) -> Mapping[str, Target]:
    """How each deployment is reached."""
    targets = {}
    for name, table in config.deployments.items():
        provider = config.providers[table.provider]
        targets[name] = Target(
            deployment=name,
            base_url=_prefix(provider.kind, provider.base_url),
            model=table.model or name,
            adapter=ADAPTERS[provider.kind],
            timeouts=Timeouts(
                connect_seconds=provider.connect_timeout_seconds,
                first_byte_seconds=provider.first_byte_timeout_seconds,
                idle_seconds=provider.idle_timeout_seconds,
                total_seconds=provider.total_timeout_seconds,
            ),
            key=secrets.providers.get(table.provider),
        )
    return targets


def dearest_prices(config: Config, prices: Mapping[str, Price]) -> Mapping[str, Price]:
    """For each model, as units name it, the price of its dearest deployment: what is reserved."""
    found: dict[str, Price] = {}
    for name, table in config.deployments.items():
        price = prices.get(name)
        if price is None:
            continue
        kind = config.providers[table.provider].kind
        for model in public_models(name, table):
            before = found.get(queue_name(kind, model))
            if before is None or before.expected(_TYPICAL) < price.expected(_TYPICAL):
                found[queue_name(kind, model)] = price
    return found


_TYPICAL = Estimate(tokens_input=3_000, tokens_output=1_000)
"""A call by which prices are compared: of input and output, most is input."""


def public_models(name: str, table: DeploymentTable) -> tuple[str, ...]:
    """The names under which callers ask for a deployment."""
    return tuple(table.serves) if table.serves else (table.model or name,)


def _deployment_plan(name: str, table: DeploymentTable, kind: str) -> DeploymentPlan:
    rates = {limit: getattr(table, limit.value) for limit in PERIOD_SECONDS}
    return DeploymentPlan(
        name=name,
        models=tuple(queue_name(kind, model) for model in public_models(name, table)),
        limits=LimitsPlan(
            rates={LimitName(limit): rate for limit, rate in rates.items() if rate is not None},
            concurrency=table.concurrency,
            burst_seconds=table.burst_seconds,
            algorithm=table.algorithm,
            request_window_seconds=table.request_window_seconds,
        ),
        pool=table.pool,
        charge=ADAPTERS[kind].charge,
    )


def _prefix(kind: str, base_url: str) -> str:
    """What stands before an endpoint's path behind its ``/v1``.

    ``base_url`` is given as each SDK takes it: OpenAI's ends where the calls begin
    (``https://host/v1``), Anthropic's before its ``/v1``.
    """
    trimmed = base_url.rstrip("/")
    return f"{trimmed}/v1" if kind == "anthropic" else trimmed
