"""``penstock image dockerfile``: writes a project's Dockerfile, or checks the one that is there."""

from __future__ import annotations

import json
import os
import shlex
import time
from pathlib import Path
from typing import Any

import click
import msgspec

import penstock
from penstock.errors import ImageError
from penstock.image.cache import place
from penstock.image.check import Wish
from penstock.image.dockerfile.findings import Severity
from penstock.image.dockerfile.lint import IGNORE, Linted, has_lock, help_of, lint, sarif
from penstock.image.dockerfile.write import DOCKERIGNORE, Wanted, write

EXIT_FOUND = 1


@click.command()
@click.argument("project", type=click.Path(path_type=Path), default=".")
@click.option("--file", "file", type=click.Path(path_type=Path), help="The Dockerfile, where it is "
              "not PROJECT/Dockerfile.")  # fmt: skip
@click.option("--fix", is_flag=True, help="Make the changes that the diff shows.")
@click.option("--new", is_flag=True, help="Print a new Dockerfile, even where there is one.")
@click.option("--lock", metavar="FILE", help="The lock file, where it has no usual name.")
@click.option("--base", default="slim", show_default=True, metavar="NAME",
              help="Of a new one: slim, debian, alpine, or a release of one.")  # fmt: skip
@click.option("--python", metavar="VERSION", help="Of a new one. Default: .python-version, else "
              "the oldest that the lock allows.")  # fmt: skip
@click.option("--extra", "extras", multiple=True, metavar="NAME", help="Also install this extra.")
@click.option("--group", "groups", multiple=True, metavar="NAME",
              help="Also install this dependency group.")  # fmt: skip
@click.option("--command", metavar="LINE", help="What a new one starts. Default: the project's "
              "script, if it has one only.")  # fmt: skip
@click.option("--port", type=click.IntRange(1, 65535), help="Port that it listens on.")
@click.option("--health", metavar="PATH", help="Path that answers 200 while it is well.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as one JSON object.")
@click.option("--sarif", "as_sarif", is_flag=True, help="Print it as SARIF, for code scanning.")
@click.option("--offline", is_flag=True, help="Ask no index: the lock file and the cache alone.")
def dockerfile(**options: Any) -> int:
    """Write a project's Dockerfile, or check the one that is there.

    PROJECT is a directory with a lock file. Where it has no Dockerfile, one is written, with a
    .dockerignore. One that is there is checked, and the smallest change that mends it is shown
    as a diff. Nothing of the project is imported or run.

    Exit codes: 0 nothing found but notes, or a file written; 1 something found that --fix did
    not mend; 2 bad input.
    """
    project: Path = options["project"]
    path: Path = options["file"] or project / "Dockerfile"
    if options["new"] or not path.exists():
        return _write(path, options)
    wish = Wish(
        project=project / options["lock"] if options["lock"] else project,
        bases=(), platforms=(), extras=options["extras"], groups=options["groups"],
        is_offline=options["offline"],
        cache=place(os.environ),
        now=time.time(),
        environment=dict(os.environ),
    )  # fmt: skip
    can_ask = options["lock"] is not None or has_lock(project)
    linted = lint(path, project, wish if can_ask else None)
    if not can_ask:
        click.echo("note: there is no lock file; the rules that ask it were left out", err=True)
    for note in linted.notes:
        click.echo(f"note: {note}", err=True)
    _print(linted, options)
    mended = 0
    if options["fix"]:
        _fix(linted, project)
        mended = sum(bool(each.edits) or (each.rule == "PSI010" and linted.ignore is not None)
                     for each in linted.findings)  # fmt: skip
    grave = [each for each in linted.findings if each.severity is not Severity.NOTE]
    return EXIT_FOUND if len(grave) > mended else 0


def _write(path: Path, options: dict[str, Any]) -> int:
    wanted = Wanted(**{key: options[key] for key in Wanted.__struct_fields__})
    text = write(wanted, _command_line(options))
    if options["new"]:
        click.echo(text, nl=False)
        return 0
    for file, content in {path: text, options["project"] / IGNORE: DOCKERIGNORE}.items():
        try:
            with file.open("x", encoding="utf-8") as opened:
                opened.write(content)
        except FileExistsError:
            click.echo(f"{file} is there already and stays as it is", err=True)
        except OSError as error:
            raise ImageError(f"{file} cannot be written: {error.strerror}") from None
        else:
            click.echo(f"written: {file}", err=True)
    return 0


def _print(linted: Linted, options: dict[str, Any]) -> None:
    if options["as_sarif"]:
        click.echo(
            json.dumps(sarif(linted, linted.path.as_posix(), penstock.__version__), indent=2)
        )
        return
    if options["as_json"]:
        found = {
            "file": str(linted.path),
            "findings": [
                {**msgspec.to_builtins(each), "help": help_of(each.rule)}
                for each in linted.findings
            ],
            "diff": linted.difference(),
            "notes": linted.notes,
        }
        click.echo(json.dumps(found, indent=2))
        return
    for each in linted.findings:
        click.echo(f"{linted.path}:{each.line}: {each.severity.value} {each.rule}: {each.message}")
    if linted.findings:
        click.echo(f"\n{len(linted.findings)} found; each is explained in {help_of('')[:-1]}")
    if linted.difference() and not options["fix"]:
        click.echo(f"The changes that --fix makes:\n\n{linted.difference()}", nl=False)


def _fix(linted: Linted, project: Path) -> None:
    changed = {}
    if linted.after != linted.before:
        changed[linted.path] = linted.after
    if linted.ignore is not None:
        changed[project / IGNORE] = linted.ignore
    for path, text in changed.items():
        try:
            # Bytes, since a text file would take its own view of line ends.
            path.write_bytes(text.encode())
        except OSError as error:
            raise ImageError(f"{path} cannot be written: {error.strerror}") from None
        click.echo(f"changed: {path}", err=True)


def _command_line(options: dict[str, Any]) -> str:
    """What to type to get the same again; it stands at the head of what is written."""
    words = ["penstock", "image", "dockerfile", "--new"]
    for key, name in {"lock": "lock", "base": "base", "python": "python", "extras": "extra",
                      "groups": "group", "command": "command", "port": "port",
                      "health": "health"}.items():  # fmt: skip
        value = options[key]
        for each in value if isinstance(value, tuple) else [value]:
            if each is not None and (key, each) != ("base", "slim"):
                words += [f"--{name}", str(each)]
    return shlex.join(words)
