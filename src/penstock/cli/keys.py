"""``penstock keys``: the API keys that stand in the store, beside those of the file."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from penstock.cli.shared import (
    SPAN,
    OrNone,
    budget_options,
    config_option,
    configured,
    given,
    iso_time,
    opened_store,
    print_table,
)
from penstock.config.checked import checked_key
from penstock.config.model import Budgeted
from penstock.store.changes import differences, shown_key
from penstock.store.keys import FIXED, StoredKey, changed_key


@click.group()
def keys() -> None:
    """Create, list, edit, rotate and revoke API keys.

    They stand in the store that [store] path names, as digests. A running service sees a change
    within a second.
    """


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
@click.option(
    "--acts-for", "acts_for", multiple=True, metavar="TENANT",
    help="A tenant that a call may name to be its own; may be repeated; * for all.",
)  # fmt: skip
@click.option("--admin", is_flag=True, help="It may see and change what every tenant may do.")
@click.option("--expires-in", type=SPAN, default=None, help="It ends after 12h, 90d, ...")
@budget_options
@config_option
def create(name: str, config_file: Path | None, **options: Any) -> None:
    """Create the key NAME and print it: the only time that it is shown.

    Without --model or --chain it may use all of them.
    """
    config = configured(config_file)
    fields = _fields(given(options))
    expires_in = fields.pop("expires_in", None)
    rights = checked_key(name, fields, config)
    with opened_store(config) as store:
        expires_at = None if expires_in is None else time.time() + expires_in
        key = store.create(name, rights, expires_at=expires_at)
    click.echo(key)
    click.echo(_KEEP_IT, err=True)


_KEEP_IT = "Keep it now: only a digest is stored, and it cannot be shown again."


@keys.command()
@click.argument("name")
@click.option("--name", "new_name", help="Another name.")
@click.option("--class", "class_default", help="Class of a call that asks for none.")
@click.option("--ceiling", help="The most urgent class that a call may ask for.")
@click.option(
    "--model", "models", multiple=True,
    help="A model it may call, in place of those before; may be repeated; * for all.",
)  # fmt: skip
@click.option(
    "--chain", "chains", multiple=True,
    help="A chain it may run, in place of those before; may be repeated; * for all.",
)  # fmt: skip
@click.option(
    "--acts-for", "acts_for", multiple=True, metavar="TENANT",
    help="A tenant that a call may name, in place of those before; * for all, '' for none.",
)  # fmt: skip
@click.option("--expires-in", type=OrNone(SPAN), help="It ends after 12h, 90d, ... from now.")
@click.option("--tenant", hidden=True)
@click.option("--admin/--no-admin", default=None, hidden=True)
@budget_options
@config_option
def edit(name: str, config_file: Path | None, **options: Any) -> None:
    """Change what the key NAME may do. What is not named stays as it is.

    Its secret, its id, its tenant, whether it is an admin's and what it has spent stay. `none`
    takes a budget or the end away.
    """
    _check_is_not_fixed(name, options)
    config = configured(config_file)
    fields = _fields(given(options))
    if not fields:
        raise click.UsageError("name what is to be changed, such as --ceiling batch")
    if "expires_in" in fields:
        seconds = fields.pop("expires_in")
        fields["expires_at"] = None if seconds is None else time.time() + seconds
    with opened_store(config) as store:
        before, after = store.change(name, lambda key: changed_key(key, fields, config))
    said = ", ".join(differences(_shown(before), _shown(after)))
    click.echo(f"The key {name}: {said or 'nothing has changed'}.", err=True)


@keys.command()
@click.argument("name")
@click.option(
    "--overlap", type=SPAN, default=0.0,
    help="How long the secret before works, too: 30m, 12h, 7d.  [default: not at all]",
)  # fmt: skip
@config_option
def rotate(name: str, config_file: Path | None, overlap: float) -> None:
    """Give the key NAME a new secret and print it: the only time that it is shown.

    Its rights, its id and what it has spent stay.
    """
    with opened_store(configured(config_file)) as store:
        key = store.rotate(name, overlap)
    click.echo(key)
    click.echo(_KEEP_IT, err=True)


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
@config_option
def list_(config_file: Path | None, as_json: bool) -> None:  # noqa: FBT001 - click passes by name
    """List the stored keys, revoked ones too. Their values cannot be shown.

    JSON has their budgets, too.
    """
    with opened_store(configured(config_file)) as store:
        rows = [(_row(key), _budget(key)) for key in store.all()]
    if as_json:
        click.echo(json.dumps([{**row, **budget} for row, budget in rows], indent=2))
    elif not rows:
        click.echo("There is no stored key; `penstock keys create` makes one.", err=True)
    else:
        print_table([row for row, _ in rows])


@keys.command()
@click.argument("name")
@config_option
def revoke(name: str, config_file: Path | None) -> None:
    """End the key NAME. Running calls are finished, new ones are refused."""
    with opened_store(configured(config_file)) as store:
        store.revoke(name)
    click.echo(f"The key {name} is revoked.", err=True)


def _check_is_not_fixed(name: str, options: dict[str, Any]) -> None:
    for field, reason in FIXED.items():
        value = options.pop(field)
        if value is not None:
            shown = f"--{field} {value}" if isinstance(value, str) else f"--{field}"
            raise click.UsageError(
                f"{shown}: {reason}; `penstock keys create` makes another key, "
                f"`penstock keys revoke {name}` ends this one"
            )


def _fields(options: dict[str, Any]) -> dict[str, Any]:
    """Options as fields of ``[keys.NAME]``: ``*`` is every model or chain, an empty name none."""
    fields = dict(options)
    for ours, theirs in (("class_default", "class"), ("new_name", "name")):
        if ours in fields:
            fields[theirs] = fields.pop(ours)
    for scope in ("models", "chains", "acts_for"):
        if scope in fields:
            names = [name for name in fields[scope] if name]
            fields[scope] = None if scope != "acts_for" and "*" in names else names
    return fields


def _shown(key: StoredKey) -> dict[str, Any]:
    return {**shown_key(key), "expires_at": iso_time(key.expires_at)}


def _budget(key: StoredKey) -> dict[str, Any]:
    return {name: getattr(key.rights, name) for name in Budgeted.__struct_fields__}


def _row(key: StoredKey) -> dict[str, Any]:
    return {
        "name": key.name,
        "id": key.key_id,
        "tenant": key.rights.tenant,
        "class": key.rights.class_default,
        "ceiling": key.rights.ceiling,
        "models": key.rights.models,
        "chains": key.rights.chains,
        "acts_for": key.rights.acts_for,
        "admin": key.rights.admin,
        "created": iso_time(key.created_at),
        "expires": iso_time(key.expires_at),
        "revoked": iso_time(key.revoked_at),
    }
