"""What a call costs, in nano-dollars: integers, so that a million of them add up exactly.

The prices stand in ``prices.json``, converted from the genai-prices package by ``./dev prices``,
with its version and the day. A provider is known by its address and a model by the package's own
rules, so a private server or an unknown model has no price: its cost is unknown, not nothing.
What the configuration states for a deployment stands above the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from typing import Any, Final, TypeAlias

import msgspec

from penstock.config.model import Config, DeploymentTable
from penstock.units import Estimate, Usage

NANO_DOLLARS: Final = 1_000_000_000
_MILLION: Final = 1_000_000

Rate: TypeAlias = int | list[tuple[int, int]]
"""Nano-dollars for a million tokens; or steps of them, each above so many tokens of input."""


class Price(msgspec.Struct, frozen=True):
    """What the tokens of one deployment cost. A kind without a rate of its own costs as input.

    ``tiers`` are multiples of all that for the service tiers that cost otherwise.
    """

    input: Rate
    input_cached: Rate | None = None
    input_written: Rate | None = None
    output: Rate | None = None
    tiers: Mapping[str, float] = {}

    def nano_dollars(self, usage: Usage) -> int:
        """The cost of what a call used, in the tier that answered it. Reasoning is output."""
        prompt = usage.tokens_input
        cached = min(usage.tokens_input_cached, prompt)
        written = min(usage.tokens_input_written, prompt - cached)
        base = _at(self.input, prompt)
        total = (prompt - cached - written) * base
        if cached:
            total += cached * (
                base if self.input_cached is None else _at(self.input_cached, prompt)
            )
        if written:
            rate = self.input_written
            total += written * (base if rate is None else _at(rate, prompt))
        if self.output is not None:
            total += usage.tokens_output * _at(self.output, prompt)
        cost = (total + _MILLION // 2) // _MILLION
        factor = self.tiers.get(usage.service_tier)
        return cost if factor is None else round(cost * factor)

    def expected(self, estimate: Estimate, service_tier: str | None = None) -> int:
        """The cost of what a call is expected to use, in the tier that it asks for."""
        tokens = estimate.tokens_input, estimate.tokens_output
        return self.nano_dollars(Usage(*tokens, service_tier=service_tier or ""))


def _at(rate: Rate, tokens_input: int) -> int:
    """The rate for a prompt of that size: the whole call costs what its step says."""
    if isinstance(rate, int):
        return rate
    found = rate[0][1]
    for above, price in rate:
        if tokens_input > above:
            found = price
    return found


class _Model(msgspec.Struct, array_like=True, frozen=True):
    rule: Any
    input: Rate
    input_cached: Rate | None
    input_written: Rate | None
    output: Rate | None


class _Provider(msgspec.Struct, frozen=True):
    id: str
    url: str
    models: list[_Model]
    falls_back_to: list[str] = []


class PriceList(msgspec.Struct, frozen=True):
    """The shipped prices: where they come from, of which day, and the prices."""

    source: str
    version: str
    date: str
    providers: list[_Provider]

    def price(self, base_url: str, model: str) -> Price | None:
        """The price of a model at a provider; None where either is not known."""
        name = model.lower()
        for provider in self.providers:
            if re.match(provider.url, base_url) is None:
                continue
            others = [one for one in self.providers if one.id in provider.falls_back_to]
            for one in (provider, *others):
                for entry in one.models:
                    if _holds(entry.rule, name):
                        return Price(
                            entry.input, entry.input_cached, entry.input_written, entry.output
                        )
        return None


def _holds(rule: Any, name: str) -> bool:
    if isinstance(rule, list):
        return any(_holds(one, name) for one in rule)
    if isinstance(rule, dict):
        return all(_holds(one, name) for one in rule["all"])
    return _SIGNS[rule[0]](name, rule[1:])


_SIGNS: Final[Mapping[str, Callable[[str, str], bool]]] = {
    "=": str.__eq__,
    "^": str.startswith,
    "$": str.endswith,
    "~": str.__contains__,
    "/": lambda name, pattern: re.search(pattern, name) is not None,
}
"""How a name must stand to the text behind each sign."""


@cache
def shipped() -> PriceList:
    """The prices in the package."""
    content = resources.files("penstock.dispatch").joinpath("prices.json").read_bytes()
    return msgspec.json.decode(content, type=PriceList)


def prices_of(config: Config) -> Mapping[str, Price]:
    """The price of each deployment that has a known one."""
    found = {}
    for name, table in config.deployments.items():
        price = _stated(table)
        if price is None:
            price = shipped().price(config.providers[table.provider].base_url, table.model or name)
        if price is not None and table.service_tiers:
            price = msgspec.structs.replace(price, tiers=table.service_tiers)
        if price is not None:
            found[name] = price
    return found


def _stated(table: DeploymentTable) -> Price | None:
    if table.price_input is None or table.price_output is None:
        return None
    cached = table.price_input_cached
    return Price(
        input=_rate(table.price_input),
        input_cached=None if cached is None else _rate(cached),
        output=_rate(table.price_output),
    )


def _rate(dollars: float) -> int:
    return round(dollars * NANO_DOLLARS)


def dollars(nano_dollars: int) -> str:
    """As a decimal number with nine places, which is exact."""
    whole, rest = divmod(nano_dollars, NANO_DOLLARS)
    return f"{whole}.{rest:09d}"
