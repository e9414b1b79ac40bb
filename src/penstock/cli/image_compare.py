"""``penstock image compare``: base images side by side for one project."""

from __future__ import annotations

import datetime
import json
import os
import time
from pathlib import Path
from typing import Any

import click

from penstock.cli.image_check import split
from penstock.cli.image_tables import show_comparison
from penstock.errors import ImageError
from penstock.image import check as checking
from penstock.image.cache import place
from penstock.image.compare import compare as put_together
from penstock.image.compare import json_document
from penstock.image.current import current
from penstock.image.picture import draw


def as_date(
    _context: click.Context, _option: click.Parameter, value: datetime.datetime | None
) -> str | None:
    """A day as uv and the indexes write it."""
    return None if value is None else value.strftime("%Y-%m-%d")


@click.command()
@click.argument("project", type=click.Path(path_type=Path), default=".")
@click.option("--base", "bases", default=["slim,alpine"], show_default=True,
              multiple=True, callback=split,
              metavar="NAME,...",
              help="As check has them. The Dockerfile's own base is added.")  # fmt: skip
@click.option("--platform", "platforms", default=["amd64"], show_default=True,
              multiple=True, callback=split,
              metavar="NAME,...", help="amd64, arm64.")  # fmt: skip
@click.option("--python", "pythons", multiple=True, callback=split, metavar="VERSION,...",
              help="Default: the Dockerfile's, else as check chooses it.")  # fmt: skip
@click.option("--extra", "extras", multiple=True, metavar="NAME", help="Also install this extra.")
@click.option("--group", "groups", multiple=True, metavar="NAME",
              help="Also install this dependency group.")  # fmt: skip
@click.option("--as-of", type=click.DateTime(["%Y-%m-%d"]), callback=as_date,
              help="Resolve the requirements as of this day, through uv.")  # fmt: skip
@click.option("--machine-factor", default=1.0, show_default=True,
              type=click.FloatRange(min=0.01, max=100),
              help="How much slower the building machine is than the measured one.")  # fmt: skip
@click.option("--picture", type=click.Path(path_type=Path, dir_okay=False, writable=True),
              help="Write the bars as an SVG.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--offline", is_flag=True, help="Ask nobody: the lock file and the cache alone.")
def compare(**options: Any) -> int:
    """Put base images side by side: what to compile, build time, size.

    PROJECT is as for check. Sizes are those of the base image and the installed packages, without
    bytecode and the project's own files.
    """
    project: Path = options["project"]
    root = project if project.is_dir() else project.parent
    now = current(root)
    bases, pythons = options["bases"], options["pythons"]
    if now is not None:
        bases = (now.base, *bases)
        pythons = pythons or tuple(filter(None, [now.python]))
    report = checking.check(
        checking.Wish(
            project=project,
            bases=bases,
            platforms=options["platforms"],
            pythons=pythons,
            extras=tuple(options["extras"]),
            groups=tuple(options["groups"]),
            is_offline=options["offline"],
            as_of=options["as_of"],
            cache=place(os.environ),
            now=time.time(),
            environment=dict(os.environ),
        )
    )
    comparison = put_together(report, now.base if now is not None else None,
                              options["machine_factor"])  # fmt: skip
    if options["picture"] is not None:
        try:
            options["picture"].write_text(draw(comparison), "utf-8")
        except OSError as error:
            raise ImageError(f"{options['picture']}: {error.strerror}") from None
    if options["as_json"]:
        click.echo(json.dumps(json_document(comparison), indent=2))
    else:
        show_comparison(comparison)
    return 0
