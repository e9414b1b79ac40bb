"""``penstock image measure``: builds for real, and prints time and size beside the expectation."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import click
import msgspec

from penstock.image import check as checking
from penstock.image.cache import place
from penstock.image.measure import ENGINES, Measured
from penstock.image.measure import measure as measure_project


@click.command()
@click.argument("project", type=click.Path(path_type=Path), default=".")
@click.option("--file", "file", type=click.Path(path_type=Path), help="The Dockerfile, where it is "
              "not PROJECT/Dockerfile.")  # fmt: skip
@click.option("--engine", type=click.Choice(ENGINES), help="Default: the first that works.")
@click.option("--ca", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="Certificates that the build gets as the secret `ca`.")  # fmt: skip
@click.option("--lock", metavar="FILE", help="The lock file, where it has no usual name.")
@click.option("--base", default="slim", show_default=True, metavar="NAME",
              help="What the expectation is for, and the wheels without an engine.")  # fmt: skip
@click.option("--python", metavar="VERSION", help="The same; the Dockerfile says what is built.")
@click.option("--extra", "extras", multiple=True, metavar="NAME", help="With this extra.")
@click.option("--group", "groups", multiple=True, metavar="NAME", help="With this group.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--offline", is_flag=True, help="The expectation asks no index.")
def measure(**options: Any) -> int:
    """Build for real, cold and warm: time and size beside what is expected.

    With docker, podman or buildah the Dockerfile is built. Without one, what the lock file names
    is downloaded and installed into a clean prefix by uv. Whatever was made is removed.
    """
    project: Path = options["project"]
    wish = checking.Wish(
        project=project / options["lock"] if options["lock"] else project,
        bases=(options["base"],),
        platforms=("amd64",),
        pythons=(options["python"],) if options["python"] else (),
        extras=options["extras"],
        groups=options["groups"],
        is_offline=options["offline"],
        cache=place(os.environ),
        now=time.time(),
        environment=dict(os.environ),
    )
    dockerfile = options["file"] or project / "Dockerfile"
    with _Shown() as shown:
        measured = measure_project(
            wish, project, dockerfile, options["engine"], options["ca"], shown.say
        )
    if options["as_json"]:
        click.echo(json.dumps(msgspec.to_builtins(measured), indent=2))
    else:
        _print(measured)
    return 0


class _Shown:
    """What is going on, on stderr, if that is a terminal: a moving line and the time it took."""

    def __enter__(self) -> _Shown:
        self._bar: Any = None
        if sys.stderr.isatty():
            # Imported late: rich takes a tenth of a second that --json in a script has no use for.
            from rich.console import Console  # noqa: PLC0415 - see above
            from rich.progress import Progress as Bar  # noqa: PLC0415 - see above
            from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415

            columns = (SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("asking what is expected")
        return self

    def say(self, text: str) -> None:
        """Show what is going on; nothing where nobody looks."""
        if self._bar is not None:
            self._bar.update(self._task, description=text.replace("[", "\\["))

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()


def _print(measured: Measured) -> None:
    click.echo(f"with {measured.engine or 'uv, without an image'}")
    for each in measured.rounds:
        click.echo(f"  {each.name:12} {each.wall_seconds:8.1f} s")
    for name, size in (
        ("image", measured.image_bytes),
        ("installed", measured.installed_bytes),
        ("stripped", measured.stripped_bytes),
    ):
        if size is not None:
            click.echo(f"  {name:12} {size / 1e6:8.1f} MB")
    expected = measured.expected
    compiled = f"{expected.packages} packages, {expected.compiled} to compile"
    click.echo(f"expected for {expected.target}: {compiled}")
    for name, size, missing in (
        ("download", expected.download_bytes, expected.download_missing),
        ("unpacked", expected.unpacked_bytes, expected.unpacked_missing),
    ):
        unknown = f" and {missing} packages of unknown size" if missing else ""
        click.echo(f"  {name:12} {size / 1e6:8.1f} MB{unknown}")
    if expected.compiled:
        click.echo(
            f"  {'compiling':12} {expected.compile_cpu_seconds:8.0f} CPU-s, as far as measured"
        )
    for note in measured.notes:
        click.echo(f"note: {note}", err=True)
