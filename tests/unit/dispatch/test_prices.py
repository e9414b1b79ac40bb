"""What a call costs: the shipped prices are those of the package that they come from."""

from __future__ import annotations

import importlib.util
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import genai_prices
import pytest
from genai_prices.data import providers
from hypothesis import given
from hypothesis import strategies as st

from penstock.config.model import Config, DeploymentTable, ProviderTable
from penstock.dispatch.planning import dearest_prices, plan_of
from penstock.dispatch.prices import Price, dollars, prices_of, shipped
from penstock.units import Estimate, Usage

ADDRESSES = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
    "azure": "https://example.openai.azure.com/openai/v1",
    "groq": "https://api.groq.com/openai/v1",
    "mistral": "https://api.mistral.ai/v1",
    "deepseek": "https://api.deepseek.com/v1",
    "openrouter": "https://openrouter.ai/api/v1",
    "google": "https://generativelanguage.googleapis.com/v1beta/openai",
}
USAGES = [Usage(1_000, 200), Usage(300_001, 7, 299_999, 3), Usage(12, 0, 4, 0, 5)]


@pytest.fixture(scope="module")
def converter(root: Path) -> ModuleType:
    place = root / "tools" / "prices.py"
    specification = importlib.util.spec_from_file_location("prices_converter", place)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def root() -> Path:
    return Path(__file__).parents[3]


def test_the_file_is_what_the_locked_package_gives_on_its_day(
    converter: ModuleType, root: Path
) -> None:
    """Where this fails, `./dev prices` has not been run since the package was renewed."""
    noon = datetime.fromisoformat(f"{shipped().date}T12:00:00+00:00")
    file = root / "src" / "penstock" / "dispatch" / "prices.json"

    assert file.read_text("utf-8") == converter.written(noon)


@pytest.mark.parametrize("provider_id", ADDRESSES)
def test_each_model_costs_what_the_package_says(provider_id: str, converter: ModuleType) -> None:
    provider = next(one for one in providers if one.id == provider_id)
    noon = datetime.fromisoformat(f"{shipped().date}T12:00:00+00:00").astimezone(UTC)
    compared = 0
    for model in provider.models:
        found = provider.find_model(model.id, all_providers=providers)
        ours = shipped().price(ADDRESSES[provider_id], model.id)
        if found is None or ours is None:
            continue
        prices = converter.in_force(found, noon)
        for usage in USAGES:
            if prices.output_mtok is None and usage.tokens_output:
                continue
            theirs = prices.calc_price(
                genai_prices.Usage(
                    input_tokens=usage.tokens_input,
                    cache_read_tokens=usage.tokens_input_cached,
                    cache_write_tokens=usage.tokens_input_written,
                    output_tokens=usage.tokens_output,
                )
            )["total_price"]
            assert ours.nano_dollars(usage) == pytest.approx(theirs * 10**9, abs=1), model.id
            compared += 1
    assert compared > 5


def test_an_unknown_provider_or_model_has_no_price() -> None:
    assert shipped().price("http://10.0.0.7:8000/v1", "gpt-4o") is None
    assert shipped().price(ADDRESSES["openai"], "no-such-model") is None


def config(**price: Any) -> Config:
    return Config(
        providers={"p": ProviderTable(kind="openai", base_url="https://api.openai.com/v1")},
        deployments={
            "known": DeploymentTable(provider="p", model="gpt-4o", **price),
            "own": DeploymentTable(provider="p", model="no-such-model"),
        },
    )


def test_a_deployment_has_the_price_of_its_model_unless_the_file_states_another() -> None:
    known = prices_of(config())["known"]
    stated = prices_of(config(price_input=2.0, price_output=8.0, price_input_cached=0.5))["known"]

    assert "own" not in prices_of(config())
    assert known.nano_dollars(Usage(1_000_000, 0)) > 0
    assert stated.nano_dollars(Usage(1_000_000, 500_000, 250_000)) == 5_625_000_000
    assert stated.expected(Estimate(10, 10, 4096)) == 100_000


def test_a_tier_costs_its_multiple_and_any_other_the_price_itself() -> None:
    price = prices_of(
        config(price_input=2.0, price_output=8.0, service_tiers={"flex": 0.5, "priority": 1.75})
    )["known"]
    used = {name: Usage(1_000_000, service_tier=name) for name in ("flex", "priority", "default")}

    assert [price.nano_dollars(one) for one in used.values()] == [10**9, 35 * 10**8, 2 * 10**9]
    assert price.expected(Estimate(10**6, 0), "priority") == 35 * 10**8
    assert price.expected(Estimate(10**6, 0), None) == 2 * 10**9


def test_a_long_prompt_makes_the_whole_call_dearer() -> None:
    price = Price(input=[(0, 1_000_000), (100, 3_000_000)], output=[(0, 0), (100, 5_000_000)])

    assert price.nano_dollars(Usage(100, 10)) == 100
    assert price.nano_dollars(Usage(101, 10)) == 353


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9))
def test_costs_are_exact_and_more_tokens_never_cost_less(
    tokens: int, output: int, cached: int, rate: int
) -> None:
    price = Price(input=rate, input_cached=rate // 10, output=rate * 4)
    cost = price.nano_dollars(Usage(tokens, output, cached))
    exact = Decimal(
        (tokens - min(cached, tokens)) * rate
        + min(cached, tokens) * (rate // 10)
        + output * rate * 4
    )

    assert abs(cost - exact / 10**6) <= Decimal("0.5")
    assert price.nano_dollars(Usage(tokens + 1, output, cached)) >= cost
    assert Decimal(dollars(cost)) * 10**9 == cost


def test_a_plan_knows_which_deployment_is_cheaper_and_prefers_none_of_unknown_price() -> None:
    both = config(price_input=2.0, price_output=8.0)
    cheap = DeploymentTable(provider="p", model="cheap", price_input=0.1, price_output=0.4)
    plan = plan_of(Config(providers=both.providers, deployments={**both.deployments, "c": cheap}))
    costs = {deployment.name: deployment.cost for deployment in plan.deployments}

    assert costs["c"] == 700_000
    assert costs["known"] == costs["own"] == 14_000_000


def test_what_is_reserved_is_the_price_of_the_dearest_deployment_of_a_model() -> None:
    both = config(price_input=2.0, price_output=8.0)
    cheap = DeploymentTable(
        provider="p", model="cheap", serves=["gpt-4o", "small"], price_input=0.1, price_output=0.4
    )
    whole = Config(providers=both.providers, deployments={**both.deployments, "c": cheap})
    found = dearest_prices(whole, prices_of(whole))

    assert found["openai/gpt-4o"] == prices_of(whole)["known"]
    assert found["openai/small"] == prices_of(whole)["c"]
    assert "openai/no-such-model" not in found
