"""A measurement builds a copy, twice, removes what it made, and says what it could not do."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.cli.main import run
from penstock.errors import ImageError
from penstock.image.check import Wish
from penstock.image.measure import measure

ENGINE = """#!/bin/sh
echo "$0 $*" >>"$NOTES"
case $1 in
info) exit "${INFO:-0}" ;;
image) echo 123456789 ;;
build)
    for place; do :; done
    echo "STEP 1/1: FROM scratch"
    cp "$place/app.py" "$NOTES.app" && [ ! -e "$place/.git" ] || exit 3
    exit "${BUILD:-0}" ;;
esac
"""

UV = f"""#!{sys.executable}
import os, pathlib, sys
arguments = sys.argv[1:]
pathlib.Path(os.environ["NOTES"]).open("a").write("uv " + " ".join(arguments) + chr(10))
prefix = pathlib.Path(arguments[arguments.index("--target") + 1])
prefix.mkdir()
(prefix / "fast.py").write_bytes(b"x" * 1000)
listed = pathlib.Path(arguments[arguments.index("--requirement") + 1])
assert listed.read_text() == "fast==2.0" + chr(10)
"""

Machine = Callable[..., Path]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with these tools and a project; the project's place."""

    def make(**tools: str) -> Path:
        bin_, project = tmp_path / "bin", tmp_path / "project"
        bin_.mkdir()
        for name, text in tools.items():
            (bin_ / name).write_text(text)
            (bin_ / name).chmod(0o755)
        for name in ("sh", "cp"):
            (bin_ / name).symlink_to(shutil.which(name) or pytest.fail(f"no {name}"))
        monkeypatch.setenv("PATH", str(bin_))
        monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        (project / ".git").mkdir(parents=True)
        (project / "app.py").write_text("x = 1\n")
        (project / "Dockerfile").write_text("FROM scratch\n")
        (project / "requirements.txt").write_text("fast==2.0\n")
        os.mkfifo(project / "pipe")
        return project

    return make


def notes(project: Path) -> list[str]:
    return (project.parent / "notes").read_text().splitlines()


def wish(project: Path) -> Wish:
    return Wish(project, ("slim",), ("amd64",), ("3.13",), is_offline=True)


def test_an_engine_builds_cold_then_after_a_changed_source(machine: Machine) -> None:
    project = machine(docker=ENGINE)
    said: list[str] = []

    found = measure(wish(project), project, project / "Dockerfile", None, None, said.append)

    builds = [line for line in notes(project) if " build " in line]
    assert [each.name for each in found.rounds] == ["cold", "warm"]
    assert ["--no-cache" in line for line in builds] == [True, False]
    assert (found.engine, found.image_bytes) == ("docker", 123456789)
    assert (project.parent / "notes.app").read_text() == "x = 1\n\n#\n"
    assert (project / "app.py").read_text() == "x = 1\n"
    assert "cold: STEP 1/1: FROM scratch" in said


def test_what_was_made_is_removed_also_after_a_failure(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = machine(podman=ENGINE)
    monkeypatch.setenv("BUILD", "1")

    with pytest.raises(ImageError, match="STEP 1/1: FROM scratch"):
        measure(wish(project), project, project / "Dockerfile", None, None, len)

    removed = [line.rpartition(":")[2] for line in notes(project) if " rmi --force " in line]
    assert removed == ["warm", "cold"]
    assert list(project.parent.glob("penstock-measure-*")) == []


def test_an_engine_that_does_not_answer_is_passed_over(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = machine(docker=ENGINE, uv=UV)
    monkeypatch.setenv("INFO", "1")

    found = measure(wish(project), project, project / "Dockerfile", None, None, len)

    assert found.engine is None
    assert "no image was built" in found.notes[0]
    with pytest.raises(ImageError, match="docker is not there"):
        measure(wish(project), project, project / "Dockerfile", "docker", None, len)


def test_without_an_engine_the_locked_wheels_are_installed_and_nothing_is_built(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    project = machine(uv=UV)

    assert run(["image", "measure", str(project), "--python", "3.13", "--offline", "--json"]) == 0

    found = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in found["rounds"]] == ["cold", "warm"]
    assert (found["installed_bytes"], found["stripped_bytes"]) == (1000, 1000)
    assert all("--no-build" in line and "--no-deps" in line for line in notes(project))
    assert list(project.parent.glob("penstock-measure-*")) == []


def test_without_anything_it_says_what_to_install(machine: Machine) -> None:
    project = machine()

    with pytest.raises(ImageError, match="pip install uv"):
        measure(wish(project), project, project / "Dockerfile", None, None, len)


def test_a_missing_dockerfile_says_who_writes_one(machine: Machine) -> None:
    project = machine(buildah=ENGINE)

    with pytest.raises(ImageError, match="penstock image dockerfile"):
        measure(wish(project), project, project / "nothing", None, None, len)
