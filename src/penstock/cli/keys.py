"""``penstock keys``: the API keys that stand in the store, beside those of the file."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from penstock.config.load import checked_key, load_tables
from penstock.config.model import Config
from penstock.store.keys import KeyStore, StoredKey, granted
from penstock.store.usage import span_seconds

_config_option = click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    default=None,
    help="The configuration file. Default: penstock.toml where it exists, else none.",
)


class _Span(click.ParamType[float]):
    name = "span"

    def convert(
        self, value: str | float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        try:
            return float(span_seconds(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.group()
def keys() -> None:
    """Create, list, rotate and revoke API keys.

    They stand in the store that [store] path names, as digests. A running service sees a change
    within a second.
    """


@contextmanager
def _store(config: Config) -> Iterator[KeyStore]:
    store = KeyStore(Path(config.store.path))
    try:
        yield store
    finally:
        store.close()


def _config(file: Path | None) -> Config:
    default = Path("penstock.toml")
    return load_tables(default if file is None and default.exists() else file)


@keys.command()
@click.argument("name")
@click.option("--tenant", required=True, help="Who the key belongs to.")
@click.option(
    "--class", "class_default", default="standard", show_default=True,
    help="Class of a call that asks for none.",
)  # fmt: skip
@click.option(
    "--ceiling", default="interactive", show_default=True,
    help="The most urgent class that a call may ask for.",
)  # fmt: skip
@click.option("--model", "models", multiple=True, help="A model it may call; may be repeated.")
@click.option("--chain", "chains", multiple=True, help="A chain it may run; may be repeated.")
@click.option("--admin", is_flag=True, help="It may see and change what every tenant may do.")
@click.option("--expires-in", type=_Span(), default=None, help="It ends after 12h, 90d, ...")
@click.option("--budget-day-usd", type=float, help="Dollars that it may spend in a day (UTC).")
@click.option("--budget-month-usd", type=float, help="Dollars that it may spend in a month.")
@click.option("--budget-day-tokens", type=int, help="Tokens that it may use in a day.")
@click.option("--budget-month-tokens", type=int, help="Tokens that it may use in a month.")
@click.option(
    "--budget-hard/--budget-soft", default=True, show_default=True,
    help="Over a budget: refuse, or only warn.",
)  # fmt: skip
@_config_option
def create(name: str, config_file: Path | None, **options: Any) -> None:
    """Create the key NAME and print it: the only time that it is shown.

    Without --model or --chain it may use all of them.
    """
    config = _config(config_file)
    fields = {
        "tenant": options["tenant"],
        "class": options["class_default"],
        "ceiling": options["ceiling"],
        "admin": options["admin"],
    }
    for scope in ("models", "chains"):
        if options[scope]:
            fields[scope] = list(options[scope])
    fields |= {
        option: value
        for option, value in options.items()
        if option.startswith("budget_") and value is not None
    }
    grant = granted(checked_key(name, fields, config))
    expires_in = options["expires_in"]
    with _store(config) as store:
        expires_at = None if expires_in is None else time.time() + expires_in
        key = store.create(name, grant, expires_at=expires_at)
    click.echo(key)
    click.echo(_KEEP_IT, err=True)


_KEEP_IT = "Keep it now: only a digest is stored, and it cannot be shown again."


@keys.command()
@click.argument("name")
@click.option(
    "--overlap", type=_Span(), default=0.0,
    help="How long the secret before works, too: 30m, 12h, 7d.  [default: not at all]",
)  # fmt: skip
@_config_option
def rotate(name: str, config_file: Path | None, overlap: float) -> None:
    """Give the key NAME a new secret and print it: the only time that it is shown.

    Its rights, its id and what it has spent stay.
    """
    with _store(_config(config_file)) as store:
        key = store.rotate(name, overlap)
    click.echo(key)
    click.echo(_KEEP_IT, err=True)


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
@_config_option
def list_(config_file: Path | None, as_json: bool) -> None:  # noqa: FBT001 - click passes by name
    """List the stored keys, revoked ones too. Their values cannot be shown."""
    with _store(_config(config_file)) as store:
        rows = [_row(key) for key in store.all()]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        click.echo("There is no stored key; `penstock keys create` makes one.", err=True)
        return
    table = [tuple(rows[0])] + [tuple(_cell(value) for value in row.values()) for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    for cells in table:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        click.echo("  ".join(padded).rstrip())


@keys.command()
@click.argument("name")
@_config_option
def revoke(name: str, config_file: Path | None) -> None:
    """End the key NAME. Running calls are finished, new ones are refused."""
    with _store(_config(config_file)) as store:
        store.revoke(name)
    click.echo(f"The key {name} is revoked.", err=True)


def _row(key: StoredKey) -> dict[str, Any]:
    return {
        "name": key.name,
        "id": key.key_id,
        "tenant": key.grant.tenant,
        "class": key.grant.class_default,
        "ceiling": key.grant.ceiling,
        "models": key.grant.models,
        "chains": key.grant.chains,
        "admin": key.grant.admin,
        "created": _moment(key.created_at),
        "expires": None if key.expires_at is None else _moment(key.expires_at),
        "revoked": None if key.revoked_at is None else _moment(key.revoked_at),
    }


def _moment(unix_seconds: float) -> str:
    return datetime.fromtimestamp(unix_seconds, UTC).isoformat(timespec="seconds")


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(value) if isinstance(value, tuple) else str(value)
