"""``penstock check-config``: everything that is wrong with a file, before it is served."""

from __future__ import annotations

import json
from pathlib import Path

import click

from penstock.config.load import Loaded, load_with_secrets
from penstock.config.schema import schema_text
from penstock.errors import ConfigError
from penstock.store.keys import stored_key_count

_HEADINGS = ("providers", "deployments", "chains", "keys", "classes")


@click.command("check-config")
@click.argument("file", type=click.Path(path_type=Path), default=Path("penstock.toml"))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of the file, for editors.")
def check_config(file: Path, as_json: bool, schema: bool) -> None:  # noqa: FBT001 - by name
    """Check a configuration file; report every problem at once.

    FILE is penstock.toml where none is given. Reads the keys that it names, and looks for the
    chains' modules, without importing them. Exit code 0 when it can be served, 2 when it cannot.
    """
    if schema:
        click.echo(schema_text(), nl=False)
        return
    try:
        loaded = load_with_secrets(file, stored_key_count=stored_key_count)
    except ConfigError as error:
        if as_json:
            click.echo(json.dumps({"ok": False, "problems": error.problems}, indent=2))
        raise
    for line in (*loaded.warnings, *loaded.notes):
        click.echo(f"note: {line}", err=True)
    names = _names(loaded)
    if as_json:
        lines = {"warnings": loaded.warnings, "notes": loaded.notes}
        click.echo(json.dumps({"ok": True, **names, **lines}, indent=2))
        return
    click.echo(f"ok: {file}")
    for heading, found in names.items():
        click.echo(f"  {heading}: {', '.join(found) or '(none)'}")


def _names(loaded: Loaded) -> dict[str, list[str]]:
    """What the file deploys, by heading; classes in the order of their ranks."""
    config = loaded.config
    names = {heading: list(getattr(config, heading)) for heading in _HEADINGS}
    names["classes"] = sorted(config.classes, key=lambda name: config.classes[name].rank)
    return names
