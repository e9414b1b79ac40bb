"""``penstock tenants``: what is set of tenants while the service runs, above what the file says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from penstock.cli.shared import (
    OrNone,
    budget_options,
    config_option,
    configured,
    given,
    iso_time,
    opened_store,
    print_table,
)
from penstock.config.checked import checked_tenant
from penstock.config.model import EVERY_TENANT, Config, KeyRights, TenantTable
from penstock.store.changes import differences
from penstock.store.keys import KeyStore
from penstock.store.tenants import tenant_view

_FIELDS = TenantTable.__struct_fields__


@click.group()
def tenants() -> None:
    """Show and set tenants' weights, limits and budgets.

    What is set stands in the store, above what the file says, until it is reset. A running
    service sees a change within a second.
    """


@tenants.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
@config_option
def list_(config_file: Path | None, as_json: bool) -> None:  # noqa: FBT001 - click passes by name
    """List the tenants that a table, a key or the store names, with what holds for them."""
    config = configured(config_file)
    with opened_store(config) as store:
        names = {*config.tenants, *(tenant.name for tenant in store.tenants())}
        names |= _named_by_keys(config, store)
        views = [_view(name, config, store) for name in sorted(names)]
    if as_json:
        click.echo(json.dumps(views, indent=2))
    elif not views:
        click.echo("There is no tenant; `penstock keys create` makes the first.", err=True)
    else:
        print_table([{"name": view["name"], **{f: view[f] for f in _FIELDS}} for view in views])


@tenants.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@config_option
def show(name: str, config_file: Path | None, as_json: bool) -> None:  # noqa: FBT001 - click passes by name
    """Show what holds for the tenant NAME, and where each value is from."""
    config = configured(config_file)
    checked_tenant(name, {})
    with opened_store(config) as store:
        view = _view(name, config, store)
    if as_json:
        click.echo(json.dumps(view, indent=2))
        return
    sources = view["sources"]
    print_table([{"field": f, "value": view[f], "source": sources[f]} for f in _FIELDS])


@tenants.command("set")
@click.argument("name")
@click.option("--weight", type=float, help="Share in its class, relative to the other tenants.")
@click.option("--rpm", type=OrNone(click.FLOAT), help="Requests a minute of all its keys.")
@click.option("--tpm", type=OrNone(click.FLOAT), help="Tokens a minute of all its keys.")
@click.option("--concurrency", type=OrNone(click.INT), help="Calls at once of all its keys.")
@budget_options
@config_option
def set_(name: str, config_file: Path | None, **options: Any) -> None:
    """Set what holds for the tenant NAME. What is not named stays as it is.

    `none` takes a limit or a budget away, also one that stands in the file.
    """
    config = configured(config_file)
    fields = checked_tenant(name, given(options))
    if not fields:
        raise click.UsageError("name what is to be set, such as --rpm 600")
    with opened_store(config) as store:
        before = _view(name, config, store)
        store.set_tenant(name, fields)
        _say(name, before, _view(name, config, store))
        if name not in _named_by_keys(config, store):
            click.echo("No key names this tenant yet.", err=True)


@tenants.command()
@click.argument("name")
@click.argument("field", nargs=-1, metavar="[FIELD]...", type=click.Choice(_FIELDS))
@config_option
def reset(name: str, field: tuple[str, ...], config_file: Path | None) -> None:
    """Forget what was set of the tenant NAME: each FIELD, or all of it.

    Then the file holds again.
    """
    config = configured(config_file)
    with opened_store(config) as store:
        before = _view(name, config, store)
        store.reset_tenant(name, field)
        _say(name, before, _view(name, config, store))


def _named_by_keys(config: Config, store: KeyStore) -> set[str]:
    """The tenants that have a key, or that one may act for."""
    stored = [key.rights for key in store.all() if key.revoked_at is None]
    keys: list[KeyRights] = [*config.keys.values(), *stored]
    named = {key.tenant for key in keys}.union(*(key.acts_for for key in keys))
    return named - {EVERY_TENANT}


def _view(name: str, config: Config, store: KeyStore) -> dict[str, Any]:
    stored = {tenant.name: tenant for tenant in store.tenants()}
    view = tenant_view(name, config.tenants, stored.get(name))
    return {**view, "changed_at": iso_time(view["changed_at"])}


def _say(name: str, before: dict[str, Any], after: dict[str, Any]) -> None:
    said = differences({f: before[f] for f in _FIELDS}, {f: after[f] for f in _FIELDS})
    click.echo(f"The tenant {name}: {', '.join(said) or 'the same holds as before'}.", err=True)
