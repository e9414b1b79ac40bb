"""The command ``penstock``: its table of commands, and how errors end."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from penstock.cli import image, main
from penstock.cli.main import COMMANDS, run
from penstock.errors import ConfigError, PenstockError, StoreError

ROOT = Path(__file__).parents[3]
PARTS = [
    ("penstock",),
    *((name,) for name in COMMANDS),
    *(("keys", name) for name in ("create", "list", "edit", "rotate", "revoke")),
    *(("tenants", name) for name in ("list", "show", "set", "reset")),
    *(("image", name) for name in image.COMMANDS),
]


def test_the_help_names_every_command_and_imports_none_of_them() -> None:
    program = (
        "import sys; from penstock.cli.main import run\n"
        "run(['--help'])\n"
        "known = {'penstock', 'penstock.cli', 'penstock.cli.main'}\n"
        "heavy = {'msgspec', 'sqlite3', 'aiohttp', 'starlette', 'rich', 'asyncio'}\n"
        "ours = {name for name in sys.modules if name.startswith('penstock')}\n"
        "assert ours <= known, ours - known\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()\n"
    )
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)

    assert ended.stderr == ""
    assert ended.returncode == 0
    for name, (_, words) in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(words)}$", ended.stdout, re.MULTILINE)


@pytest.mark.parametrize("name", list(COMMANDS))
def test_the_line_in_the_table_is_the_first_line_of_the_commands_own_help(name: str) -> None:
    command = main.penstock.get_command(click.Context(main.penstock), name)

    assert command is not None
    assert command.name == name
    assert COMMANDS[name][1] == " ".join((command.help or "").split("\n\n")[0].split())


def test_the_help_of_image_imports_nothing_of_the_service_nor_its_own_room() -> None:
    program = (
        "import sys; from penstock.cli.main import run\n"
        "run(['image', '--help'])\n"
        "known = {'penstock', 'penstock.cli', 'penstock.cli.main', 'penstock.cli.image'}\n"
        "ours = {name for name in sys.modules if name.startswith('penstock')}\n"
        "assert ours <= known, ours - known\n"
        "assert not {'msgspec', 'packaging', 'rich'} & sys.modules.keys()\n"
    )
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)

    assert ended.stderr == ""
    assert ended.returncode == 0


@pytest.mark.parametrize("name", list(image.COMMANDS))
def test_the_line_in_the_table_of_image_is_that_of_the_command(name: str) -> None:
    command = image.image.get_command(click.Context(image.image), name)

    assert command is not None
    assert command.name == name
    assert image.COMMANDS[name][1] == " ".join((command.help or "").split("\n\n")[0].split())


@pytest.mark.parametrize("parts", PARTS, ids=" ".join)
def test_docs_cli_md_holds_the_help_of_every_command(
    parts: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    arguments = [part for part in parts if part != "penstock"]
    assert run([*arguments, "--help"]) == 0
    text = capsys.readouterr().out.rstrip("\n")
    line = " ".join(["penstock", *arguments, "--help"])
    section = f"```\n$ {line}\n{text}\n```\n"

    assert section in (ROOT / "docs" / "cli.md").read_text("utf-8")


def test_no_command_and_unknown_ones_are_bad_input(penstock: Callable[..., tuple]) -> None:
    assert penstock()[0] == 2
    assert penstock("--nope") == (
        2,
        "",
        "error: No such option '--nope'.\nSee `penstock --help`.\n",
    )
    assert penstock("kyes") == (
        2, "", "error: there is no command 'kyes'; did you mean keys?\nSee `penstock --help`.\n",
    )  # fmt: skip
    assert "there are: serve, sandbox" in penstock("\x1b[31m")[2]
    assert "\x1b" not in penstock("\x1b[31m")[2]


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (PenstockError("this; do that"), 2, "error: this; do that\n"),
        (StoreError("damaged; restore"), 3, "error: damaged; restore\n"),
        (
            ConfigError(["f:1: a", "f:2: b"]),
            2,
            (
                "f:1: a\nf:2: b\nerror: 2 problems in the configuration; nothing was started or "
                "changed\n"
            ),
        ),
        (click.Abort(), 130, ""),
        (KeyboardInterrupt(), 130, "\n"),
    ],
)
def test_an_expected_error_is_a_line_on_stderr_and_an_exit_code(
    error: BaseException,
    code: int,
    words: str,
    penstock: Callable[..., tuple],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @click.command()
    def failing() -> None:
        raise error

    monkeypatch.setattr(main.penstock, "get_command", lambda ctx, name: failing)

    assert penstock("version") == (code, "", words)


def test_a_fault_of_ours_is_not_hidden(
    penstock: Callable[..., tuple], monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command()
    def failing() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(main.penstock, "get_command", lambda ctx, name: failing)

    with pytest.raises(ZeroDivisionError):
        penstock("version")
