"""From the configuration to what the scheduler and the client need to know.

A public model name is served in one dialect or in several; units wait by dialect and name
together, because a call in one dialect cannot go to a deployment that does not speak it. Two
kinds of calls wait apart: a response that continues another goes where that one is kept, so such
deployments are also served by their own name; and tokens are counted under limits of their own,
so a deployment that counts has a second, unlimited pool for that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from penstock.config.model import Config, DeploymentTable, TenantTable
from penstock.config.secrets import Secrets
from penstock.dispatch.calls import Target
from penstock.dispatch.prices import Price, prices_of
from penstock.dispatch.upstream import Timeouts
from penstock.limits.pool import LimitsPlan
from penstock.providers.base import Endpoint
from penstock.providers.registry import ADAPTERS
from penstock.scheduler.plan import ClassPlan, DeploymentPlan, Plan
from penstock.units import PERIOD_SECONDS, Estimate, LimitName

COUNTING = " count_tokens"
"""What is added to a deployment's name for the counting of tokens; no configured name has it."""


def queue_name(dialect: str, model: str, deployment: str | None = None) -> str:
    """The name under which units for a public model wait, or those for one deployment of it."""
    name = f"{dialect}/{model}"
    return name if deployment is None else f"{name} {deployment}"


def plan_of(config: Config) -> Plan:
    """The scheduler's part of a configuration."""
    costs = typical_costs(config)
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
            plan
            for name, table in config.deployments.items()
            for plan in _deployment_plans(name, table, config, costs[name])
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
    """How each deployment is reached, also under the name that it counts tokens by."""
    targets = {}
    for name, table in config.deployments.items():
        provider = config.providers[table.provider]
        targets[name] = targets[name + COUNTING] = Target(
            deployment=name,
            base_url=provider.base_url.rstrip("/"),
            api_version=provider.api_version,
            model=table.model or name,
            adapter=ADAPTERS[provider.kind],
            timeouts=Timeouts(
                connect_seconds=provider.connect_timeout_seconds,
                first_byte_seconds=provider.first_byte_timeout_seconds,
                idle_seconds=provider.idle_timeout_seconds,
                total_seconds=provider.total_timeout_seconds,
            ),
            key=secrets.providers.get(table.provider),
            service_tiers=frozenset(table.service_tiers),
        )
    return targets


def dearest_prices(config: Config, prices: Mapping[str, Price]) -> Mapping[str, Price]:
    """For each model, as units name it, the price of its dearest deployment: what is reserved."""
    found: dict[str, Price] = {}
    for name, table in config.deployments.items():
        price = prices.get(name)
        if price is None:
            continue
        for model in _queues(name, table, config):
            before = found.get(model)
            if before is None or before.expected(_TYPICAL) < price.expected(_TYPICAL):
                found[model] = price
    return found


def typical_costs(config: Config) -> Mapping[str, float]:
    """What a typical call costs on each deployment, in nano-dollars, to choose between them.

    One without a known price counts as the dearest: it is not preferred for what is not known.
    """
    prices = prices_of(config)
    known = {name: float(price.expected(_TYPICAL)) for name, price in prices.items()}
    dearest = max(known.values(), default=0.0)
    return {name: known.get(name, dearest) for name in config.deployments}


_TYPICAL = Estimate(tokens_input=3_000, tokens_output=1_000)
"""A call by which prices are compared: of input and output, most is input."""


def public_models(name: str, table: DeploymentTable) -> tuple[str, ...]:
    """The names under which callers ask for a deployment."""
    return tuple(table.serves) if table.serves else (table.model or name,)


def catalogue_of(table: DeploymentTable, kind: str) -> dict[LimitName, float]:
    """The limits that a provider publishes for everybody; none beside those that are configured."""
    if table.pool is not None or any(
        getattr(table, limit.value) is not None for limit in LimitName
    ):
        return {}
    return ADAPTERS[kind].catalogue(table.model or "")


def _queues(name: str, table: DeploymentTable, config: Config) -> tuple[str, ...]:
    """The names that units of a deployment wait under, those that count tokens left out."""
    adapter = ADAPTERS[config.providers[table.provider].kind]
    counted, responses = Endpoint.COUNT_TOKENS.dialect, Endpoint.RESPONSES.dialect
    # The wire's own dialect first: it is the one that a deployment is known by.
    others = {endpoint.dialect for endpoint in adapter.endpoints} - {adapter.wire, counted}
    models = public_models(name, table)
    queues = [queue_name(one, model) for one in (adapter.wire, *sorted(others)) for model in models]
    if responses in others:
        queues += [queue_name(responses, model, name) for model in models]
    return tuple(queues)


def _deployment_plans(
    name: str, table: DeploymentTable, config: Config, cost: float
) -> Iterator[DeploymentPlan]:
    kind = config.providers[table.provider].kind
    adapter = ADAPTERS[kind]
    rates = {limit: getattr(table, limit.value) for limit in PERIOD_SECONDS}
    published = catalogue_of(table, kind)
    rates |= {limit: rate for limit, rate in published.items() if limit in PERIOD_SECONDS}
    slots = published.get(LimitName.CONCURRENCY)
    yield DeploymentPlan(
        name=name,
        models=_queues(name, table, config),
        limits=LimitsPlan(
            rates={LimitName(limit): rate for limit, rate in rates.items() if rate is not None},
            concurrency=table.concurrency if slots is None else int(slots),
            burst_seconds=table.burst_seconds,
            algorithm=table.algorithm,
            request_window_seconds=table.request_window_seconds,
            source="catalogue" if published else "configured",
        ),
        pool=table.pool,
        charge=adapter.charge,
        cost=cost,
    )
    if Endpoint.COUNT_TOKENS in adapter.endpoints:
        counted = Endpoint.COUNT_TOKENS.dialect
        yield DeploymentPlan(
            name=name + COUNTING,
            models=tuple(queue_name(counted, model) for model in public_models(name, table)),
            charge=adapter.charge,
            pool=None if table.pool is None else table.pool + COUNTING,
        )
