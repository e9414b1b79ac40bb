"""What a hostile project holds ends in a clear error: nothing outside it is read, nothing hangs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from penstock.errors import ImageError
from penstock.image.check import Wish, check
from penstock.image.files import FILE_BYTES_MAX
from penstock.image.report import Report

SECRET = "s3cret-of-somebody"
LOCKS = ["uv.lock", "pdm.lock", "poetry.lock", "pylock.toml", "requirements.txt"]


def judged(project: Path) -> Report:
    return check(Wish(project, ("slim", "alpine"), ("amd64",), ("3.11",), is_offline=True))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "outside.txt").write_text(f"{SECRET}==1\n")
    place = tmp_path / "project"
    place.mkdir()
    return place


def refused(project: Path) -> str:
    with pytest.raises(ImageError) as caught:
        judged(project)
    message = str(caught.value)
    assert SECRET not in message
    assert "\x1b" not in message
    assert len(message) < 1000
    return message


@pytest.mark.parametrize(
    "line",
    ["-r ../outside.txt", "-r ../../../../etc/passwd", "-c ../outside.txt",
     "-r a/../../outside.txt", "-r{root}/outside.txt",
     "--requirement={root}/outside.txt", "-r file://{root}/outside.txt", "-r https://x.test/r.txt"],
)  # fmt: skip
def test_nothing_outside_the_project_is_included(project: Path, line: str) -> None:
    (project / "requirements.txt").write_text(line.format(root=project.parent))

    assert "project" in refused(project)


@pytest.mark.parametrize("name", LOCKS)
def test_a_link_out_of_the_project_is_not_followed(project: Path, name: str) -> None:
    (project / name).symlink_to(project.parent / "outside.txt")

    assert "outside the project" in refused(project)


def test_a_directory_that_leads_out_is_not_followed(project: Path) -> None:
    (project / "here").symlink_to(project.parent)
    (project / "requirements.txt").write_text("-r here/outside.txt\n")

    assert "outside the project" in refused(project)


def test_files_that_include_each_other_are_read_once(project: Path) -> None:
    (project / "requirements.txt").write_text("a==1\n-r b.txt\n")
    (project / "b.txt").write_text("b==1\n-r requirements.txt\n-r b.txt\n")

    assert len(judged(project).targets[0].packages) == 2


def test_a_pipe_is_no_lock(project: Path) -> None:
    os.mkfifo(project / "requirements.txt")

    assert "is not a regular file" in refused(project / "requirements.txt")


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_of_200_mb_is_refused_without_being_read(project: Path, name: str) -> None:
    with (project / name).open("wb") as file:
        file.truncate(200 * 1024 * 1024)

    assert f"more than {FILE_BYTES_MAX >> 20} MiB" in refused(project)


PACKAGE = "version = 1\n[[package]]\nname = 'a'\nversion = '1'\n"
POETRY = "[metadata]\nlock-version='2.1'\n[[package]]\nname='a'\n"
EDGE = "version = 1\n[[package]]\nname = 'a'\nsource = {virtual='.'}\ndependencies = [{name='a', "


@pytest.mark.parametrize(
    "text",
    [
        "version = 2",
        "version = 1\npackage = 3",
        "version = 1\n[[package]]\nname = 3",
        "version = 1\n[[package]]\nname = '../../etc'",
        "version = 1\n[[package]]\nname = 'a\x1b[2J'",
        'version = 1\n[[package]]\nname = "a\\u001b[2J"',
        "version = 1\n[[package]]\nname = 'a'\nversion = '1;rm -rf'",
        f"{PACKAGE}source = []",
        f"{PACKAGE}wheels = [{{url='https://x/../..'}}]",
        f"{PACKAGE}wheels = [{{url='https://x/a.whl', size=-1}}]",
        f"{PACKAGE}wheels = [{{url='https://x/a.whl', size='1'}}]",
        f"{EDGE}marker='((((' }}]",
        f"{EDGE}marker='{'(' * 3000}'}}]",
        f"{EDGE}marker='{'a' * 100_000}'}}]",
        "a = " + "[" * 5000,
        "a" + ".a" * 500_000 + " = 1\n[[package]]",
        "x = {'a'" + ".'a'" * 5_000 + " = 1}\n[[package]]",
        "a = " + "9" * 5000,
        "\x00",
        "\ud800",
    ],
)
def test_wrong_types_and_names_are_refused(project: Path, text: str) -> None:
    (project / "uv.lock").write_bytes(text.encode("utf-8", "surrogatepass"))

    assert refused(project)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pylock.toml", "lock-version = '1.0'\ncreated-by = 'x'\npackages = [{name = 3}]"),
        ("pylock.toml", "lock-version = 1\npackages = 7"),
        ("pdm.lock", "[metadata]\nstrategy = 'x'"),
        ("pdm.lock", "[metadata]\nstrategy=['inherit_metadata']\n[[package]]\nname='a'\nfiles=[3]"),
        ("poetry.lock", f"{POETRY}groups=3"),
        ("poetry.lock", f"{POETRY}groups=[]\nfiles=[{{file='../../x.whl'}}]"),
        ("requirements.txt", "a==1\n" + "b" * 10_000),
        ("requirements.txt", "a ==\n"),
        ("requirements.txt", "\\\n" * 100 + "\x1b[31m"),
        ("pyproject.toml", "[project]\ndynamic=['dependencies']"),
        ("pyproject.toml", "[dependency-groups]\na=[{include-group='b'}]\nb=[{include-group='a'}]"),
    ],
)  # fmt: skip
def test_other_formats_are_read_as_strictly(project: Path, name: str, text: str) -> None:
    (project / name).write_text(text)

    assert refused(project)


def test_a_name_that_leads_elsewhere_is_no_project(project: Path) -> None:
    (project / "uv.lock").symlink_to(project / "uv.lock")

    assert refused(project)
