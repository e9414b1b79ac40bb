"""What no source of ours does: each ban is checked, and each check has been seen to find.

Ruff and import-linter know most bans (pyproject.toml); here are those they cannot express, and
the proof that theirs are switched on.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

PURE = ("scheduler", "limits", "providers", "units.py", "errors.py")
"""Rooms without a clock, I/O or chance; import-linter keeps their imports clean."""

IMPURE_BUILTINS = {"breakpoint", "hash", "id", "input", "open", "print"}
"""``hash`` of a text and ``id`` differ from one process to the next."""

CLOCKS = {
    "datetime.now",
    "datetime.today",
    "datetime.utcnow",
    "time.monotonic",
    "time.perf_counter",
    "time.process_time",
    "time.time",
}

CLOCKS_ALLOWED = {
    "tests/integration/chains/contract_chains.py": "chains that take their time are what is tested",
    "tests/integration/chains/test_supervisor.py": "deadlines of leases are on the real clock",
    "tests/integration/conftest.py": "the one place that polls what another process does",
    "tests/integration/http/test_server.py": "peers that send and read slowly are what is tested",
}
"""Test files that may read a clock or sleep, each with its reason."""

SQL_CALLS = {"exec_driver_sql", "execute", "executemany", "executescript", "text"}


def calls(tree: ast.Module) -> Iterator[tuple[ast.Call, str]]:
    """Each call and the dotted name it is made by."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            yield node, ast.unparse(node.func)


def impure_calls(tree: ast.Module) -> Iterator[str]:
    for call, name in calls(tree):
        if name in IMPURE_BUILTINS:
            yield f"{call.lineno}: {name}"


def lets_others_run(call: ast.Call) -> bool:
    return [ast.unparse(argument) for argument in call.args] == ["0"]


def in_a_bound(tree: ast.Module) -> set[ast.AST]:
    """What stands in ``async with asyncio.timeout(…)``: there a condition may be polled."""
    return {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.AsyncWith)
        and any(ast.unparse(item).startswith("asyncio.timeout(") for item in node.items)
        for inner in ast.walk(node)
    }


def clock_calls(tree: ast.Module) -> Iterator[str]:
    """Sleeps, other than in a bounded poll or to let others run, and reads of a clock."""
    bounded = in_a_bound(tree)
    for call, name in calls(tree):
        is_sleep = name.rpartition(".")[2] == "sleep" and not lets_others_run(call)
        if (is_sleep and call not in bounded) or ".".join(name.split(".")[-2:]) in CLOCKS:
            yield f"{call.lineno}: {name}"


def assembled_sql(tree: ast.Module) -> Iterator[str]:
    """Statements put together from pieces of text instead of bound parameters."""
    for call, name in calls(tree):
        if name.rpartition(".")[2] not in SQL_CALLS or not call.args:
            continue
        statement = call.args[0]
        is_formatted = (
            isinstance(statement, ast.Call)
            and isinstance(statement.func, ast.Attribute)
            and statement.func.attr in {"format", "join", "replace"}
        )
        if is_formatted or isinstance(statement, ast.JoinedStr | ast.BinOp):
            yield f"{call.lineno}: {name}"


EXCUSE = re.compile(r"#\s*(?:noqa|type: ignore|pyrefly: ignore)\b(?P<rest>.*)")
CODES = re.compile(r"^(?::\s*[A-Z]+\d+(?:,\s*[A-Z]+\d+)*|\[[\w,\s-]+\])")


def bare_excuses(text: str) -> Iterator[str]:
    """Silenced checks that do not name the check and say why, beside it or in a comment above.

    One comment serves several lines that follow it, all silenced.
    """
    is_explained = False
    for number, line in enumerate(text.splitlines(), 1):
        excuse = EXCUSE.search(line)
        if excuse is None:
            is_explained = line.lstrip().startswith("#")
            continue
        codes = CODES.match(excuse["rest"])
        is_explained |= codes is not None and excuse["rest"][codes.end() :].strip(" #-:") != ""
        if codes is None or not is_explained:
            yield f"{number}: {line.strip()}"


def under(folder: str, modules: Mapping[Path, ast.Module]) -> dict[Path, ast.Module]:
    return {path: tree for path, tree in modules.items() if path.is_relative_to(folder)}


def test_the_pure_floor_opens_prints_and_hashes_nothing(
    modules: Mapping[Path, ast.Module],
) -> None:
    pure = [tree for room in PURE for tree in under(f"src/penstock/{room}", modules).items()]

    assert len(pure) >= len(PURE)
    assert [f"{path}:{call}" for path, tree in pure for call in impure_calls(tree)] == []


def test_no_test_sleeps_or_reads_a_clock(modules: Mapping[Path, ast.Module]) -> None:
    found = {
        str(path): calls
        for path, tree in under("tests", modules).items()
        if (calls := list(clock_calls(tree)))
    }

    assert {path: calls for path, calls in found.items() if path not in CLOCKS_ALLOWED} == {}
    assert CLOCKS_ALLOWED.keys() - found.keys() == set(), "no longer needs its exception"


def test_no_statement_is_assembled_from_text(modules: Mapping[Path, ast.Module]) -> None:
    source = under("src", modules)

    assert [f"{path}:{sql}" for path, tree in source.items() for sql in assembled_sql(tree)] == []


def test_a_silenced_check_is_named_and_says_why(
    root: Path, modules: Mapping[Path, ast.Module]
) -> None:
    found = [
        f"{path}:{excuse}"
        for path in under("src", modules)
        for excuse in bare_excuses((root / path).read_text("utf-8"))
    ]

    assert found == []


@pytest.mark.parametrize(
    ("check", "sample", "finds"),
    [
        (impure_calls, "open('x'); hash('x')", 2),
        (impure_calls, "store.open('x')", 0),
        (clock_calls, "time.sleep(1)", 1),
        (clock_calls, "await asyncio.sleep(wait_seconds)", 1),
        (clock_calls, "await asyncio.sleep(0)", 0),
        (clock_calls, "async with asyncio.timeout(5):\n while x():\n  await asyncio.sleep(1)", 0),
        (clock_calls, "async with other(5):\n while x():\n  await asyncio.sleep(1)", 1),
        (clock_calls, "time.time(); datetime.datetime.now(tz)", 2),
        (clock_calls, "fake.clock(); scheduler.now()", 0),
        (assembled_sql, "c.execute(f'SELECT {x}')", 1),
        (assembled_sql, "c.execute('SELECT %s' % x)", 1),
        (assembled_sql, "text('SELECT {}'.format(x))", 1),
        (assembled_sql, "c.executescript('a' + b)", 1),
        (assembled_sql, "c.execute('SELECT ?', (x,))", 0),
    ],
)
def test_the_checks_find_what_they_look_for(
    check: Callable[[ast.Module], Iterator[str]], sample: str, finds: int
) -> None:
    assert len(list(check(ast.parse(sample)))) == finds


@pytest.mark.parametrize(
    ("line", "is_bare"),
    [
        ("x = 1  # noqa", True),
        ("x = 1  # noqa: BLE001", True),
        ("x = 1  # type: ignore", True),
        ("x = 1  # noqa: BLE001 - the worker must outlive any error", False),
        ("# The worker must outlive any error.\nx = 1  # noqa: BLE001, S110", False),
        ("# Only once the port is open.\nimport a  # noqa: E402\nimport b  # noqa: E402", False),
        ("# Two.\nx = 1\ny = 2  # noqa: E402", True),
        ("x = 1  # type: ignore[misc]  # the stub is wrong", False),
    ],
)
def test_the_check_finds_a_bare_excuse(line: str, is_bare: bool) -> None:
    assert bool(list(bare_excuses(line))) is is_bare


@pytest.mark.parametrize(
    ("code", "sample"),
    [
        ("TID251", "from langchain_core.load import loads"),
        ("TID251", "from langchain_core import load; load.loads('')"),
        ("TID251", "import langchain_core.load.load"),
        ("TID251", "import pickle"),
        ("TID251", "import yaml"),
        ("S102", "exec('1')"),
        ("S307", "eval('1')"),
        ("S602", "import subprocess; subprocess.run('ls', shell=True)"),
        ("S324", "import hashlib; hashlib.md5(b'')"),
        ("S501", "import httpx; httpx.get('https://x', verify=False, timeout=1)"),
        ("S311", "import random; random.random()"),
        ("T201", "print('x')"),
    ],
)
def test_ruff_refuses_dangerous_calls(root: Path, code: str, sample: str) -> None:
    """Deserialising what may run code, shells, weak digests and unchecked TLS stay out of src."""
    checked = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--stdin-filename", "src/penstock/app.py", "-"],
        cwd=root,
        input=f"{sample}\n",
        capture_output=True,
        text=True,
        check=False,
    )

    assert f"{code} " in checked.stdout
