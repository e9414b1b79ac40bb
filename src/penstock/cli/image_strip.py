"""``penstock image strip``: takes the debug symbols out of an installed prefix, safely."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from penstock.image.strip import StripReport, strip_prefix

EXIT_FAILED = 1

_SHOWN = 10
"""Rows of objects that are shown; ``--json`` has all."""


@click.command(name="strip")
@click.argument("prefix", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Say what it would save; change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def strip(*, prefix: Path, dry_run: bool, as_json: bool) -> None:
    """Take the debug symbols out of an installed prefix, safely.

    PREFIX is what packages are installed in, as .venv or /usr/local.

    No byte that is loaded moves: every object is compared with what it was before it is
    replaced, and one that cannot be cut stays as it is. Nothing but Penstock is needed.
    """
    report = strip_prefix(prefix, dry_run=dry_run)
    if as_json:
        click.echo(json.dumps(_as_data(report, is_dry=dry_run), indent=2))
    else:
        _print(report, is_dry=dry_run)
    if report.failed:
        for path, reason in report.failed.items():
            click.echo(f"error: {path}: {reason}; it is as it was", err=True)
        sys.exit(EXIT_FAILED)


def _as_data(report: StripReport, *, is_dry: bool) -> dict[str, object]:
    return {
        "prefix": str(report.prefix),
        "dry_run": is_dry,
        "files": report.files,
        "bytes_before": report.bytes_before,
        "bytes_after": report.bytes_after,
        "objects": report.objects,
        "records": report.records,
        "stripped": {
            path: {"bytes_before": before, "bytes_after": after}
            for path, (before, after) in report.stripped.items()
        },
        "left": report.left,
        "failed": report.failed,
    }


def _print(report: StripReport, *, is_dry: bool) -> None:
    most = sorted(report.stripped.items(), key=lambda row: row[1][1] - row[1][0])
    for path, (before, after) in most[:_SHOWN]:
        click.echo(f"{_megabytes(before):>9} -> {_megabytes(after):>8}  {path}")
    if len(most) > _SHOWN:
        click.echo(f"... and {len(most) - _SHOWN} more")
    for path, reason in report.left.items():
        click.echo(f"left as it is: {path}: {reason}")
    verb = "would be" if is_dry else "were"
    click.echo(
        f"{len(report.stripped)} of {report.objects} objects {verb} stripped: "
        f"{report.prefix} {_megabytes(report.bytes_before)} -> {_megabytes(report.bytes_after)}"
    )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
