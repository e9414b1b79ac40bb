"""``penstock version``: what is needed at the head of every bug report."""

from __future__ import annotations

import json
import platform
from importlib import metadata

import click

import penstock

_DEPENDENCIES = (
    "aiohttp", "click", "msgspec", "starlette", "uvicorn", "uvloop",
    "langchain-core", "langgraph",
)  # fmt: skip


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def version(as_json: bool) -> None:  # noqa: FBT001 - click passes flags by name
    """Print the versions of Penstock and of what it runs on."""
    versions: dict[str, str | None] = {
        "penstock": penstock.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    for name in _DEPENDENCIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # an extra that is not installed
            versions[name] = None
    if as_json:
        click.echo(json.dumps(versions, indent=2))
        return
    for name, found in versions.items():
        click.echo(f"{name} {found or '(not installed)'}")
