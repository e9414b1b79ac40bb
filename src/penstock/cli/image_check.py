"""``penstock image check``: a lock file's verdict on base images."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import click

from penstock import __version__
from penstock.cli.image_tables import show
from penstock.image import check as checking
from penstock.image.cache import place
from penstock.image.forms import github, json_document, sarif
from penstock.image.report import fails

BASES = "slim,alpine"


def split(
    _context: click.Context, _option: click.Parameter, value: tuple[str, ...]
) -> tuple[str, ...]:
    """Lists with commas, an option each, as one: in order, each word once."""
    words = [word.strip() for word in ",".join(value).split(",")]
    return tuple(dict.fromkeys(word for word in words if word))


@click.command()
@click.argument("project", type=click.Path(path_type=Path), default=".")
@click.option("--base", "bases", default=[BASES], show_default=True,
              multiple=True, callback=split,
              metavar="NAME,...", help="slim, alpine, distroless, wolfi, debian; or a release of "
              "one, as alpine3.17 or bookworm.")  # fmt: skip
@click.option("--platform", "platforms", default=["amd64"], show_default=True,
              multiple=True, callback=split,
              metavar="NAME,...", help="amd64, arm64.")  # fmt: skip
@click.option("--python", "pythons", multiple=True, callback=split, metavar="VERSION,...",
              help="3.10 to 3.15, 3.13t and up without the global lock. Default: "
              ".python-version, else the oldest that the lock allows.")  # fmt: skip
@click.option("--extra", "extras", multiple=True, metavar="NAME", help="Also install this extra.")
@click.option("--group", "groups", multiple=True, metavar="NAME",
              help="Also install this dependency group.")  # fmt: skip
@click.option("--fail-on", default="impossible", show_default=True,
              type=click.Choice(["compile", "impossible", "never"]),
              help="What makes the exit code 1.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--sarif", "as_sarif", is_flag=True, help="Print SARIF 2.1.0.")
@click.option("--github", "as_github", is_flag=True, help="Print annotations for GitHub Actions.")
@click.option("--offline", is_flag=True, help="Ask nobody: the lock file and the cache alone.")
def check(**options: Any) -> int:
    """Say what each base image costs the packages of a lock file.

    PROJECT is a directory with a uv.lock, pylock.toml, pdm.lock, poetry.lock, requirements.txt or
    pyproject.toml, or such a file. Nothing of the project is imported or run.
    """
    report = checking.check(
        checking.Wish(
            project=options["project"],
            bases=options["bases"],
            platforms=options["platforms"],
            pythons=options["pythons"],
            extras=tuple(options["extras"]),
            groups=tuple(options["groups"]),
            is_offline=options["offline"],
            cache=place(os.environ),
            now=time.time(),
            environment=dict(os.environ),
        )
    )
    if options["as_json"]:
        click.echo(json.dumps(json_document(report), indent=2))
    elif options["as_sarif"]:
        click.echo(json.dumps(sarif(report, __version__), indent=2))
    elif options["as_github"]:
        for line in github(report):
            click.echo(line)
    else:
        show(report)
    return 1 if fails(report, options["fail_on"]) else 0
