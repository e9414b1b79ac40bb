"""./dev works with next to nothing on the machine, does its work once, and says what it lacks.

The script runs in a copy of the checkout with stand-ins for Python and uv that note how they
were called, so that these tests need neither a network nor a minute.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TOOLS = ["cat", "cksum", "dirname", "head", "mkdir", "mv", "rm", "sh"]
"""All that ./dev takes from the system beside Python."""

UV = """#!/bin/sh
case $1 in --version) echo "uv $UV_VERSION"; exit ;; python) exit 2 ;; esac
echo "$*" >>"$NOTES"
case $1 in venv)
    for place; do :; done
    mkdir -p "$place/bin"
    cp "$STANDINS/python3" "$place/bin/python"
    printf '#!/bin/sh\\necho "penstock $*"\\n' >"$place/bin/penstock"
    chmod +x "$place/bin/penstock"
esac
"""

PYTHON = """#!/bin/sh
case "$*" in
    -V) echo "Python $PYTHON_VERSION" ;;
    *version_info*) case $PYTHON_VERSION in 3.11*) echo "$0" ;; *) exit 1 ;; esac ;;
    *flock*) exec "$REAL_PYTHON" "$@" ;;
    "-m pip --version") [ -n "$HAS_PIP" ] ;;
    "-m pip install"*)
        echo "pip $*" >>"$NOTES"
        mkdir -p "$CHECKOUT/.dev/uv.new/bin"
        cp "$STANDINS/spare-uv" "$CHECKOUT/.dev/uv.new/bin/uv" ;;
esac
"""

Dev = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def checkout(root: Path, tmp_path: Path) -> Path:
    """A checkout with a blank in its path, holding what ./dev reads."""
    place = tmp_path / "a checkout"
    place.mkdir()
    for name in ("dev", "pyproject.toml", "requirements.lock", "requirements-uv.lock"):
        shutil.copy(root / name, place / name)
    return place


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """Where the stand-ins write down how they were called."""
    (tmp_path / "notes").touch()
    return tmp_path / "notes"


@pytest.fixture
def dev(checkout: Path, notes: Path, tmp_path: Path) -> Dev:
    """Runs ./dev from elsewhere, on a machine with stand-ins of the versions asked for."""
    standins = tmp_path / "standins"
    standins.mkdir()
    for name in [*TOOLS, "cp", "chmod"]:
        (standins / name).symlink_to(shutil.which(name) or pytest.fail(f"no {name} here"))
    for name, text in {"uv": UV, "spare-uv": UV, "python3": PYTHON}.items():
        (standins / name).write_text(text)
        (standins / name).chmod(0o755)

    def start(
        *arguments: str,
        place: Path = checkout,
        python: str = "3.11.9",
        uv: str = "0.13.9",
        pip: str = "yes",
        **more: str,
    ) -> subprocess.Popen[str]:
        if not uv:
            (standins / "uv").unlink(missing_ok=True)
        environment = {
            "PATH": str(standins),
            "CHECKOUT": str(place),
            "HAS_PIP": pip,
            "NOTES": str(notes),
            "PYTHON_VERSION": python,
            "REAL_PYTHON": sys.executable,
            "STANDINS": str(standins),
            "UV_VERSION": uv or "0.13.9",  # that of the one which is installed instead
        }
        return subprocess.Popen(
            [place / "dev", *arguments],
            cwd=tmp_path,
            env=environment | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, errors = process.communicate(timeout=30)
    return process.returncode, out, errors


def test_serve_makes_the_environment_once_and_hands_over(dev: Dev, notes: Path) -> None:
    first = end(dev("serve", "--port", "1"))
    done = notes.read_text().splitlines()
    second = end(dev("serve", "--port", "1"))

    assert first[:2] == (0, "penstock serve --port 1\n")
    assert [line.split()[0] for line in done] == ["venv", "pip", "pip"]
    assert "--require-hashes" in done[1]
    assert "--no-build-isolation" in done[2]
    assert second == (0, "penstock serve --port 1\n", "")
    assert done == notes.read_text().splitlines()


def test_another_lock_is_synced_into_the_same_environment(
    dev: Dev, checkout: Path, notes: Path
) -> None:
    end(dev("run", "true"))
    notes.write_text("")
    with (checkout / "requirements.lock").open("a") as lock:
        lock.write("# changed\n")
    end(dev("serve"))

    assert [" ".join(line.split()[:2]) for line in notes.read_text().splitlines()] == [
        "pip sync",
        "pip install",
    ]


def test_a_checkout_that_was_moved_gets_a_new_environment(
    dev: Dev, checkout: Path, notes: Path
) -> None:
    """Scripts in an environment name its place, so the old one is of no use."""
    end(dev("serve"))
    notes.write_text("")
    moved = checkout.rename(checkout.with_name("moved"))
    end(dev("serve", place=moved))

    assert notes.read_text().startswith("venv ")


def test_an_environment_that_was_cut_short_is_finished(dev: Dev, notes: Path) -> None:
    """The stamp is written last; what is there without one is brought up to date again."""
    end(dev("run", "true"))
    before = notes.read_text()
    notes.write_text("")
    assert end(dev("run", "rm", "a checkout/.venv/.dev-stamp"))[0] == 0
    end(dev("run", "true"))

    assert before.splitlines()[1:] == notes.read_text().splitlines()


def test_two_at_once_make_one_environment(dev: Dev, notes: Path) -> None:
    both = [dev("serve"), dev("serve")]

    assert [end(process)[:2] for process in both] == [(0, "penstock serve\n")] * 2
    assert notes.read_text().count("venv ") == 1


@pytest.mark.parametrize("uv", ["", "0.10.12", "rubbish"])
def test_without_a_new_enough_uv_one_is_installed_with_its_hash_checked(
    dev: Dev, notes: Path, checkout: Path, uv: str
) -> None:
    code, _, errors = end(dev("serve", uv=uv))

    assert code == 0
    assert "installing one into .dev/uv" in errors
    assert "--require-hashes" in notes.read_text().splitlines()[0]
    assert (checkout / ".dev" / "uv" / "bin" / "uv").exists()


def test_an_old_python_is_named_with_the_way_out(dev: Dev, notes: Path) -> None:
    code, out, errors = end(dev("serve", python="3.9.2"))

    assert (code, out) == (1, "")
    assert "python3 is Python 3.9.2" in errors
    assert "PYTHON=/path/to/python3.11" in errors


def test_a_python_asked_for_is_not_replaced_by_another(dev: Dev) -> None:
    code, _, errors = end(dev("serve", PYTHON="python3.99"))

    assert code == 1
    assert "there is no python3.99" in errors


def test_no_uv_and_no_pip_says_what_to_install(dev: Dev) -> None:
    code, _, errors = end(dev("serve", uv="", pip=""))

    assert code == 1
    assert "has no pip" in errors
    assert "python3-pip" in errors


def test_an_unknown_command_is_refused_with_the_list(dev: Dev) -> None:
    code, out, errors = end(dev("server"))

    assert (code, out) == (1, "")
    assert "there is no command server" in errors
    assert "./dev run python" in errors


def test_scripts_keep_to_the_rules_of_the_shell(root: Path, program: Callable[[str], str]) -> None:
    checked = subprocess.run(
        [program("shellcheck"), "dev", ".ci/run"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ),
    )

    assert checked.stdout + checked.stderr == ""
