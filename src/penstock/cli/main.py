"""The command ``penstock``: finds the sub-command, and words every expected error.

Sub-commands are imported when they run, not before: their one-line helps stand in a table here,
so ``penstock --help`` costs the import of click and nothing else (60 ms of CPU, against 0.6 s
for the store and more for the service).
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from typing import Any, Final, NoReturn

import click

EXIT_UNREAD: Final = 1  # as click does it
EXIT_BAD_INPUT: Final = 2
EXIT_STORE: Final = 3
EXIT_INTERRUPTED: Final = 130

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "serve": ("serve", "Run the service: chains and LLM calls through one scheduler."),
    "sandbox": ("sandbox", "Run a provider without a model that enforces real rate limits."),
    "simulate": ("simulate", "Play a workload in virtual time: what if, and beside others."),
    "check-config": ("check_config", "Check a configuration file; report every problem at once."),
    "image": ("image", "Say what base images cost a lock file; write its Dockerfile."),
    "keys": ("keys", "Create, list, edit, rotate and revoke API keys."),
    "tenants": ("tenants", "Show and set tenants' weights, limits and budgets."),
    "usage": ("usage", "Sum up the calls of the ledger."),
    "version": ("version", "Print the versions of Penstock and of what it runs on."),
}
"""Each command's module in this room, and its help."""


class LazyGroup(click.Group):
    """A group that knows its commands' names and helps without importing them.

    ``table``: each command's module in this room and its help. The module holds the command as
    the attribute of the command's own name.
    """

    def __init__(self, *, table: Mapping[str, tuple[str, str]], **attributes: Any) -> None:
        super().__init__(**attributes)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names, in the order in which a newcomer needs them."""
        return list(self.table)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        cmd_name: str,
    ) -> click.Command | None:
        """Import the command of that name; None when there is none."""
        if cmd_name not in self.table:
            return None
        module, _ = self.table[cmd_name]
        attribute = cmd_name.replace("-", "_")
        command = getattr(importlib.import_module(f"penstock.cli.{module}"), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"penstock.cli.{module}.{attribute} is not a click command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that ``args`` begin with, or say which was meant."""
        if args and args[0] not in self.table and not args[0].startswith("-"):
            import difflib  # noqa: PLC0415 - a tenth of what --help costs

            near = difflib.get_close_matches(args[0], self.table, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(self.table)}"
            raise click.UsageError(f"there is no command {args[0]!a}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        """Write the table of commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, words) for name, (_, words) in self.table.items()])


@click.group(
    cls=LazyGroup,
    table=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)
def penstock() -> None:
    """Serves LangChain chains and LLM calls, and decides which call goes next when a
    provider's rate limit is the bottleneck.

    Without a configuration: `penstock serve` answers on http://127.0.0.1:8787 with the API key
    `dev`, on a sandbox provider.
    """


def main() -> NoReturn:
    """Run the command line, and exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line; the exit code. Expected errors end as a line on stderr."""
    try:
        code = penstock.main(arguments, prog_name="penstock", standalone_mode=False)
        sys.stdout.flush()
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader has what it wanted. What is still buffered must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_UNREAD
    except click.ClickException as error:
        _explain_usage(error)
        return EXIT_BAD_INPUT
    except Exception as error:
        exit_code = _explain(error)
        if exit_code is None:
            raise
        return exit_code
    return code if isinstance(code, int) else 0


def _explain_usage(error: click.ClickException) -> None:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
    elif isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx is not None else "penstock"
        _print_error(f"{error.format_message()}\nSee `{command} --help`.")
    else:
        _print_error(error.format_message())


def _explain(error: Exception) -> int | None:
    """Say on stderr what went wrong; the exit code. None for a fault of ours."""
    # Imported late, since --help has no use for it: it brings msgspec.
    from penstock.errors import ConfigError, PenstockError, StoreError  # noqa: PLC0415

    if not isinstance(error, PenstockError):
        return None
    if isinstance(error, ConfigError):
        _print_problems(error.problems)
    else:
        _print_error(str(error))
    return EXIT_STORE if isinstance(error, StoreError) else EXIT_BAD_INPUT


def _print_problems(problems: list[str]) -> None:
    """Each problem on a line of its own, beginning with its place: editors jump to that."""
    for problem in problems:
        click.echo(problem, err=True)
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    _print_error(f"{count} in the configuration; nothing was started or changed")


def _print_error(message: str) -> None:
    click.echo(f"error: {message}", err=True)
