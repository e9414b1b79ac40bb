"""Tables for people: what ``penstock image check`` and ``compare`` show on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from penstock.image.compare import Comparison, Row, change
from penstock.image.model import Judged, Verdict
from penstock.image.report import Report, TargetReport, advice, duration, reasons

COLOURS = {
    Verdict.PURE: "green",
    Verdict.PREBUILT: "green",
    Verdict.COMPILE: "yellow",
    Verdict.IMPOSSIBLE: "red",
    Verdict.UNKNOWN: "cyan",
}
ADVICE_MAX = 8


def megabytes(count: int | None, missing: float = 0) -> str:
    """``101.2 MB``; with ``≥`` where some of it is not known."""
    if count is None:
        return "?"
    return f"{'≥ ' if missing else ''}{count / 1e6:.1f} MB"


def show(report: Report) -> None:
    """The report: a row for each target, then what is not a plain download, then why."""
    console = Console(highlight=False)
    lock = f"{report.lock} ({report.format})" if report.lock != report.format else report.lock
    console.print(f"[bold]{escape(lock)}[/bold]")
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("target", "verdict"):
        table.add_column(name, no_wrap=True)
    for name in ("wheels", "download", "unpacked"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in report.targets:
        wheels = len(each.of(Verdict.PURE)) + len(each.of(Verdict.PREBUILT))
        table.add_row(
            each.target.name,
            _coloured(each.verdict),
            f"{wheels} of {len(each.packages)}",
            megabytes(each.download_bytes, each.download_missing),
            megabytes(each.unpacked_bytes, each.unpacked_missing),
        )
    console.print(table)
    for each in report.targets:
        _explain(console, each)
    for note in report.notes:
        console.print(f"[dim]note: {escape(note)}[/dim]", soft_wrap=True)


def _explain(console: Console, report: TargetReport) -> None:
    """Why a target's verdict is what it is, package by package, and what would change it."""
    console.print()
    console.print(f"[bold]{report.target.name}[/bold] ({report.target.libc})")
    for reason in reasons(report):
        console.print(f"  {escape(reason)}", soft_wrap=True)
    for package in report.packages:
        if package.verdict in {Verdict.COMPILE, Verdict.IMPOSSIBLE, Verdict.UNKNOWN}:
            console.print(f"  {_package_words(package)}", soft_wrap=True)
        for trap in package.traps:
            colour = "red" if trap.is_fatal else "yellow"
            console.print(
                f"  [{colour}]{trap.id}[/{colour}] {package.name}: {escape(trap.message)}",
                soft_wrap=True,
            )
    found = advice(report)
    for words in found[:ADVICE_MAX]:
        console.print(f"  → {escape(words)}", soft_wrap=True)
    if len(found) > ADVICE_MAX:
        console.print(f"  → {len(found) - ADVICE_MAX} more with --json")


def _package_words(package: Judged) -> str:
    words = f"{_coloured(package.verdict)} {package.name} {escape(package.version or '')}"
    words = f"{words}: {escape(package.reason)}"
    takes = package.compile
    if takes is None:
        return words
    if takes.build_system is not None:
        words += f"; built by {escape(takes.build_system.partition('.')[0])}"
    if takes.has_native_code is False:
        words += ", no native code"
    if takes.system_packages:
        words += f"; needs {', '.join(takes.system_packages)}"
    return words


def _coloured(verdict: Verdict) -> str:
    return f"[{COLOURS[verdict]}]{verdict.value}[/{COLOURS[verdict]}]"


def show_comparison(comparison: Comparison) -> None:
    """A row for each base image, with what it changes."""
    console = Console(highlight=False)
    when = f", as of {comparison.as_of}" if comparison.as_of is not None else ""
    console.print(f"[bold]{escape(comparison.lock)}[/bold]{when}")
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("base image", no_wrap=True)
    table.add_column("to compile")
    for name in ("build", "image", "stripped", "change"):
        table.add_column(name, justify="right")
    reference = comparison.current
    for row in comparison.rows:
        is_least = bool(row.missing)
        difference = change(row, reference)
        table.add_row(
            f"{row.name}{' (now)' if row.is_current else ''}",
            _hard_words(row),
            _build_words(row),
            megabytes(row.image_bytes, is_least),
            megabytes(row.stripped_bytes, is_least),
            ""
            if row is reference
            else "?"
            if difference is None
            else f"{difference / 1e6:+.1f} MB",
        )
    console.print(table)
    for row in comparison.rows:
        for words, found in (("impossible", row.impossible), ("to compile", row.compiled)):
            if found:
                console.print(f"{row.name}: {words}: {', '.join(found)}", soft_wrap=True)
    console.print(
        "[dim]sizes: base image and packages, without bytecode; stripped is an estimate; compile "
        "times are CPU, give or take half[/dim]",
        soft_wrap=True,
    )
    for note in comparison.notes:
        console.print(f"[dim]note: {escape(note)}[/dim]", soft_wrap=True)


def _hard_words(row: Row) -> str:
    if row.impossible:
        return f"[red]{len(row.impossible)} impossible, {len(row.compiled)} of {row.packages}[/red]"
    colour = "yellow" if row.compiled else "green"
    return f"[{colour}]{len(row.compiled)} of {row.packages}[/{colour}]"


def _build_words(row: Row) -> str:
    if row.impossible:
        return "fails"
    if not row.compiled:
        return f"downloads {row.download_bytes / 1e6:.0f} MB"
    if row.compile_missing == len(row.compiled):
        return "not measured"
    return f"{'≥ ' if row.compile_missing else ''}{duration(row.compile_cpu_seconds)} CPU"
