"""``penstock usage``: what was used, by whom, and what it cost."""

from __future__ import annotations

import csv
import json
import math
import sys
from pathlib import Path

import click
import msgspec

from penstock.cli.shared import MOMENT, config_option, configured, opened_store
from penstock.config.model import Config
from penstock.errors import PenstockError
from penstock.store.database import DATABASE_FILE, Database
from penstock.store.usage import (
    CALL_COLUMNS,
    GROUPS,
    UsageSum,
    calls,
    sums_csv,
)
from penstock.store.usage import usage as usage_sums


@click.command()
@click.option(
    "--group-by", type=click.Choice(GROUPS), default="tenant", show_default=True,
    help="One line for each.",
)  # fmt: skip
@click.option(
    "--since", type=MOMENT, default="30d", show_default=True,
    help="2026-11-01, 2026-11-01T12:00 (UTC), or how long ago: 30m, 12h, 7d.",
)  # fmt: skip
@click.option("--until", type=MOMENT, default=None, help="The same; default: now.")
@click.option("--csv", "form", flag_value="csv", help="Print CSV.")
@click.option("--json", "form", flag_value="json", help="Print a JSON array.")
@click.option(
    "--calls", "form", flag_value="calls",
    help="Print each call as CSV for `penstock simulate`: no prompt, no key.",
)  # fmt: skip
@config_option
def usage(
    group_by: str, since: float, until: float | None, form: str | None, config_file: Path | None
) -> None:
    """Sum up the calls of the ledger.

    A call of a deployment without a known price counts in the last column but one, and not in
    the dollars.
    """
    config = configured(config_file)
    file = Path(config.store.path) / DATABASE_FILE
    if not file.exists():
        raise PenstockError(
            f"{file}: there is no store yet; it is made with the first call to a running service"
        )
    until = math.inf if until is None else until
    database = Database(file)
    try:
        with database.read() as connection:
            if form == "calls":
                writer = csv.writer(sys.stdout)
                writer.writerow(CALL_COLUMNS)
                writer.writerows(calls(connection, since, until))
                return
            sums = usage_sums(connection, group_by, since, until)
    finally:
        database.close()
    if form == "csv":
        click.echo(sums_csv(sums), nl=False)
    elif form == "json":
        click.echo(json.dumps(msgspec.to_builtins(sums), indent=2))
    elif not sums:
        click.echo("There was no call in that time.", err=True)
    else:
        _print_table(group_by, _with_names(config, sums) if group_by == "key" else sums)


def _with_names(config: Config, sums: list[UsageSum]) -> list[UsageSum]:
    """The same with a stored key's name before its id, by which the ledger knows it."""
    with opened_store(config) as store:
        names = {key.key_id: key.name for key in store.all()}
    return [
        msgspec.structs.replace(one, name=f"{names[one.name]} ({one.name})")
        if one.name in names
        else one
        for one in sums
    ]


def _print_table(group_by: str, sums: list[UsageSum]) -> None:
    head = (
        group_by, "calls", "succeeded", "input", "cached", "output", "dollars", "no price", "wait",
    )  # fmt: skip
    rows = [
        (
            one.name or "-",
            f"{one.calls:,}",
            f"{one.calls_succeeded:,}",
            f"{one.tokens_input:,}",
            f"{one.tokens_input_cached:,}",
            f"{one.tokens_output:,}",
            f"{one.dollars:,.4f}",
            f"{one.calls_without_price:,}",
            f"{one.wait_seconds_mean:.2f} s",
        )
        for one in sums
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        first, *others = (
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        click.echo("  ".join([first, *others]))
