"""What the scheduler is told of a deployment."""

from __future__ import annotations

from penstock.config.model import Config, DeploymentTable, ProviderTable
from penstock.dispatch.planning import plan_of
from penstock.limits.pool import LimitsPlan
from penstock.units import LimitName


def limits(model: str, **table: int) -> LimitsPlan:
    config = Config(
        providers={
            "router": ProviderTable(kind="openrouter", base_url="https://openrouter.ai/api/v1")
        },
        deployments={"one": DeploymentTable(provider="router", model=model, **table)},
    )
    return plan_of(config).deployments[0].limits


def test_published_limits_are_said_to_be_from_the_catalogue() -> None:
    found = limits("meta/llama:free")

    assert (found.rates, found.source) == ({LimitName.RPM: 20}, "catalogue")


def test_configured_limits_take_the_place_of_published_ones() -> None:
    found = limits("meta/llama:free", rpm=7)

    assert (found.rates, found.source) == ({LimitName.RPM: 7}, "configured")


def test_where_nothing_is_published_nothing_comes_from_the_catalogue() -> None:
    assert limits("meta/llama").source == "configured"
