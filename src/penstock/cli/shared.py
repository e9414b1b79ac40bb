"""What several commands take and print: times, the configuration's file, the store, tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from penstock.config.load import load_tables
from penstock.config.model import Config
from penstock.store.keys import KeyStore
from penstock.store.usage import moment, span_seconds

config_option = click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    default=None,
    help="The configuration file. Default: penstock.toml where it exists, else none.",
)


class Parsed(click.ParamType[float]):
    """A text that becomes a number; ``parse`` raises ValueError with the rule that it breaks."""

    def __init__(self, name: str, parse: Callable[[str], float]) -> None:
        self.name = name
        self._parse = parse

    def convert(
        self, value: str | float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number."""
        if isinstance(value, float):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


SPAN: Final = Parsed("span", lambda text: float(span_seconds(text)))
"""``12h`` as 43200.0."""
MOMENT: Final = Parsed("time", lambda text: moment(text, time.time()))
"""``2026-11-01`` as that day's first second (UTC), ``7d`` as a week ago, in Unix seconds."""


class Nothing(Enum):
    """What an option says with the word ``none``."""

    NONE = "none"


class OrNone(click.ParamType[Any]):
    """What another type takes, or ``none``: the value is then ``Nothing.NONE``."""

    def __init__(self, other: click.ParamType[Any]) -> None:
        self._other = other
        self.name = f"{other.name}|none"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """``none`` as that, everything else as the other type has it."""
        is_none = value in ("none", Nothing.NONE)
        return Nothing.NONE if is_none else self._other.convert(value, param, ctx)


_BUDGETS: Final[dict[str, tuple[click.ParamType[Any], str]]] = {
    "budget_day_usd": (click.FLOAT, "Dollars that it may spend in a day (UTC)."),
    "budget_month_usd": (click.FLOAT, "Dollars that it may spend in a month."),
    "budget_day_tokens": (click.INT, "Tokens that it may use in a day."),
    "budget_month_tokens": (click.INT, "Tokens that it may use in a month."),
}
_Command = TypeVar("_Command", bound=Callable[..., Any])


def budget_options(command: _Command) -> _Command:
    """The options of a budget; one that is not named is not changed."""
    hard = click.option(
        "--budget-hard/--budget-soft", default=None,
        help="Over a budget: refuse (which is the default), or only warn.",
    )  # fmt: skip
    command = hard(command)
    for name, (kind, words) in reversed(_BUDGETS.items()):
        option = f"--{name.replace('_', '-')}"
        command = click.option(option, type=OrNone(kind), help=words)(command)
    return command


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that stand on the command line, ``none`` as None."""
    return {
        name: None if value is Nothing.NONE else value
        for name, value in options.items()
        if value is not None and value != ()
    }


def configured(file: Path | None) -> Config:
    """The configuration that a command goes by. Raises ConfigError."""
    default = Path("penstock.toml")
    return load_tables(default if file is None and default.exists() else file)


@contextmanager
def opened_store(config: Config) -> Iterator[KeyStore]:
    """The store of that configuration. Raises StoreError."""
    store = KeyStore(Path(config.store.path))
    try:
        yield store
    finally:
        store.close()


def print_table(rows: Sequence[Mapping[str, object]]) -> None:
    """One line for each, under the names of the first one's fields."""
    table = [tuple(rows[0])] + [tuple(cell(value) for value in row.values()) for row in rows]
    widths = [max(len(text) for text in column) for column in zip(*table, strict=True)]
    for cells in table:
        padded = (text.ljust(width) for text, width in zip(cells, widths, strict=True))
        click.echo("  ".join(padded).rstrip())


def cell(value: object) -> str:
    """A value in a table."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}" if abs(value) < 1e6 else f"{value:.0f}"
    return (",".join(value) or "none") if isinstance(value, list) else str(value)


def iso_time(unix_seconds: float | None) -> str | None:
    """A time as RFC 3339 has it, in UTC."""
    if unix_seconds is None:
        return None
    return datetime.fromtimestamp(unix_seconds, UTC).isoformat(timespec="seconds")
