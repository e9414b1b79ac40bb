"""Convert the prices of the genai-prices package to the one file that Penstock ships.

``./dev prices`` runs it at release time and whenever prices have changed. What is in force on the
day of the conversion is taken: no discounts by the hour, which no deployment can be chosen by.
Only text is converted, the match rules of the package included; its cliff prices, where a long
prompt makes the whole call dearer, stay as they are.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, time
from decimal import Decimal
from importlib import metadata
from pathlib import Path
from typing import Any

from genai_prices import types
from genai_prices.data import providers

FILE = Path(__file__).parents[1] / "src" / "penstock" / "dispatch" / "prices.json"
FIELDS = ("input_mtok", "cache_read_mtok", "cache_write_mtok", "output_mtok")
NANO_DOLLARS = 1_000_000_000
SIGNS = {
    types.ClauseEquals: ("=", "equals"),
    types.ClauseStartsWith: ("^", "starts_with"),
    types.ClauseEndsWith: ("$", "ends_with"),
    types.ClauseContains: ("~", "contains"),
    types.ClauseRegex: ("/", "regex"),
}


def rule(clause: Any) -> Any:
    """A match rule as data: a text behind a sign, a list of which one must hold, or ``all``."""
    if isinstance(clause, types.ClauseOr):
        return [rule(one) for one in clause.or_]
    if isinstance(clause, types.ClauseAnd):
        return {"all": [rule(one) for one in clause.and_]}
    sign, name = SIGNS[type(clause)]
    return sign + getattr(clause, name)


def nano_dollars(dollars: Decimal) -> int:
    """Dollars for a million tokens as nano-dollars for the same."""
    return int((dollars * NANO_DOLLARS).to_integral_value())


def price(value: Decimal | types.TieredPrices | None) -> Any:
    """One price, or steps by the tokens of the prompt: ``[[above, price], …]``."""
    if isinstance(value, types.TieredPrices):
        steps = [[0, nano_dollars(value.base)]]
        return steps + [[tier.start, nano_dollars(tier.price)] for tier in value.tiers]
    return None if value is None else nano_dollars(value)


def in_force(model: types.ModelInfo, now: datetime) -> types.ModelPrice:
    """The price of that day. By the hour only where there is no other."""
    if isinstance(model.prices, types.ModelPrice):
        return model.prices
    dated = [
        one for one in model.prices if not isinstance(one.constraint, types.TimeOfDateConstraint)
    ]
    for one in reversed(dated):
        if one.constraint is None or one.constraint.active(now):
            return one.prices
    return model.prices[0].prices


def converted(now: datetime) -> dict[str, Any]:
    """The whole file as data. Models whose text has no price are left out."""
    listed = []
    for provider in providers:
        models = []
        for model in provider.models:
            found = in_force(model, now)
            prices = [price(getattr(found, field)) for field in FIELDS]
            if prices[0] is not None:
                models.append([rule(model.match), *prices])
        if models:
            entry = {"id": provider.id, "url": provider.api_pattern, "models": models}
            if provider.fallback_model_providers:
                entry["falls_back_to"] = list(provider.fallback_model_providers)
            listed.append(entry)
    return {
        "source": "genai-prices (MIT)",
        "version": metadata.version("genai-prices"),
        "date": now.date().isoformat(),
        "providers": listed,
    }


def written(now: datetime) -> str:
    """The file: a line for each model, so that a change of prices can be read as one."""
    data = converted(now)
    text = json.dumps({**data, "providers": []}, indent=0, ensure_ascii=False)
    head = text.rpartition("[]")[0].replace("\n", "")
    blocks = []
    for provider in data["providers"]:
        lines = [json.dumps(model, separators=(",", ":")) for model in provider.pop("models")]
        rest = json.dumps(provider)[:-1]
        blocks.append(f'{rest}, "models": [\n' + ",\n".join(lines) + "\n]}")
    return head + "[\n" + ",\n".join(blocks) + "\n]}\n"


def main() -> None:
    """Write the file."""
    now = datetime.combine(datetime.now(UTC), time(12), UTC)
    text = written(now)
    json.loads(text)
    FILE.write_text(text, "utf-8")
    print(f"{FILE.name}: {len(text) // 1000} kB", file=sys.stderr)


if __name__ == "__main__":
    main()
