"""A Dockerfile is written for each kind of project, and is well by the rules."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.cli.main import run
from penstock.errors import ImageError
from penstock.image.check import Wish
from penstock.image.dockerfile.lint import lint
from penstock.image.dockerfile.parse import parse
from penstock.image.dockerfile.strip_step import strip_lines, strip_program
from penstock.image.dockerfile.write import DOCKERIGNORE, Wanted, write
from penstock.image.strip import strip_prefix

ROOT = Path(__file__).parents[4]
ZEROS = "0" * 64

PYPROJECT = """\
[project]
name = "My.App"
version = "1.2"
description = "costs $5 \\\\ \\"quoted\\""
license = "MIT"
requires-python = ">=3.11"
dependencies = ["fast"]
urls = { Source = "https://example.test/app" }
scripts = { app = "app:main" }

[build-system]
requires = ["hatchling"]
"""

LOCKS = {
    "uv.lock": f"""\
version = 1
requires-python = ">=3.11"
[[package]]
name = "my-app"
version = "1.2"
source = {{ editable = "." }}
dependencies = [{{ name = "fast" }}]
[[package]]
name = "fast"
version = "2.0"
source = {{ registry = "https://index.test/simple" }}
wheels = [{{ url = "https://index.test/fast-2.0-py3-none-any.whl", hash = "sha256:{ZEROS}" }}]
""",
    "pdm.lock": f"""\
[metadata]
groups = ["default"]
lock_version = "4.5.0"
[[package]]
name = "fast"
version = "2.0"
groups = ["default"]
files = [{{ file = "fast-2.0-py3-none-any.whl", hash = "sha256:{ZEROS}" }}]
""",
    "poetry.lock": f"""\
[[package]]
name = "fast"
version = "2.0"
optional = false
python-versions = "*"
groups = ["main"]
files = [{{ file = "fast-2.0-py3-none-any.whl", hash = "sha256:{ZEROS}" }}]
[metadata]
lock-version = "2.1"
python-versions = ">=3.11"
content-hash = "{ZEROS}"
""",
    "pylock.toml": f"""\
lock-version = "1.0"
created-by = "uv"
extras = ["more"]
[[packages]]
name = "fast"
version = "2.0"
[[packages.wheels]]
url = "https://index.test/fast-2.0-py3-none-any.whl"
hashes = {{ sha256 = "{ZEROS}" }}
""",
    "requirements.txt": f"fast==2.0 --hash=sha256:{ZEROS}\n-c more/limits.txt\n",
}

Project = Callable[..., Path]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with that lock file."""

    def make(name: str = "uv.lock", pyproject: str = PYPROJECT) -> Path:
        (tmp_path / "more").mkdir(exist_ok=True)
        (tmp_path / "more/limits.txt").write_text("fast<3\n")
        (tmp_path / "pyproject.toml").write_text(pyproject)
        (tmp_path / name).write_text(LOCKS[name])
        return tmp_path

    return make


@pytest.mark.parametrize("name", LOCKS)
def test_what_is_written_is_well_by_the_rules(project: Project, name: str) -> None:
    root = project(name)
    text = write(Wanted(root, port=8000, health="/ok"), "x")
    (root / "Dockerfile").write_text(text)
    (root / ".dockerignore").write_text(DOCKERIGNORE)

    linted = lint(root / "Dockerfile", root, Wish(root, (), (), is_offline=True))

    assert linted.findings == ()
    stages = [each for each in parse(text).instructions if each.keyword == "FROM"]
    assert [len(each.words) for each in stages] == [3, 3, 1]
    assert text.index("COPY . .") > text.index("strip_symbols.py /app/.venv")
    assert 'CMD ["app"]' in text


@pytest.mark.parametrize(
    ("name", "command", "bound"),
    [
        ("uv.lock", "uv sync --locked --no-default-groups --no-install-project", "pyproject.toml"),
        ("pdm.lock", "pdm sync --prod --no-self --no-editable", "pyproject.toml"),
        ("poetry.lock", "poetry install --only main --no-root --compile", "pyproject.toml"),
        ("pylock.toml", "uv pip sync --python /app/.venv/bin/python pylock.toml", "pylock.toml"),
        ("requirements.txt", "--require-hashes requirements.txt", "more/limits.txt"),
    ],
)
def test_each_lock_is_installed_by_its_own_tool(
    project: Project, name: str, command: str, bound: str
) -> None:
    """From nothing but the files that change with it."""
    text = write(Wanted(project(name)), "x")

    assert command in text
    for file in (name, bound):
        assert f"--mount=type=bind,source={file},target=/src/{file} " in text


@pytest.mark.parametrize(
    ("name", "wanted", "command"),
    [
        ("pylock.toml", {"extras": ("more",)}, "bin/python --extra more pylock.toml"),
        ("pdm.lock", {"groups": ("default",)}, "pdm sync --dev --no-self"),
    ],
)
def test_what_is_asked_for_beyond_is_said_as_the_tool_knows_it(
    project: Project, name: str, wanted: dict[str, tuple[str]], command: str
) -> None:
    assert command in write(Wanted(project(name), **wanted), "x")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["pdm.lock", "poetry.lock"])
def test_scripts_start_the_python_that_has_the_dependencies(project: Project, name: str) -> None:
    """Their first line names the Python that installed them: the system's has no dependency."""
    assert "pip --python /app/.venv install --target" in write(Wanted(project(name)), "x")


def test_labels_say_what_the_project_says_and_nothing_else(project: Project) -> None:
    text = write(Wanted(project()), "x")

    assert 'org.opencontainers.image.title="my-app"' in text
    assert 'org.opencontainers.image.description="costs \\$5 \\\\ \\"quoted\\""' in text
    assert 'org.opencontainers.image.source="https://example.test/app"' in text
    assert "@sha256" not in text


def test_a_project_that_is_no_package_is_run_as_it_lies(project: Project) -> None:
    bare = PYPROJECT.partition("[build-system]")[0]
    text = write(Wanted(project(pyproject=bare), command="python -m app"), "x")

    assert "cp -a . /app/project" in text
    assert "WORKDIR /app/project" in text
    assert 'CMD ["python", "-m", "app"]' in text


def test_a_compiler_is_there_where_the_lock_needs_one(project: Project) -> None:
    root = project()
    lock, _, wheels = LOCKS["uv.lock"].partition("wheels = [")
    sdist = wheels.replace("fast-2.0-py3-none-any.whl", "fast-2.0.tar.gz").replace("]", "")
    (root / "uv.lock").write_text(f"{lock}sdist = {sdist}")

    text = write(Wanted(root), "x")

    assert "build-essential" in text.partition("AS project")[0]
    assert "build-essential" not in text.rpartition("FROM ")[2]


@pytest.mark.parametrize(
    ("change", "wanted", "rule"),
    [
        ({"uv.lock": None}, {}, "names no versions"),
        ({}, {"lock": "../uv.lock"}, "cannot stand in a Dockerfile"),
        ({}, {"extras": ("a b\nRUN x",)}, "has no extra"),
        ({}, {"health": "ok", "port": 1}, "is a path"),
        ({}, {"health": "/ok"}, "needs the --port"),
        ({}, {"command": "a 'b"}, "no command line"),
        ({}, {"command": "a 'b\nUSER root'"}, "no command line"),
        ({}, {"base": "distroless"}, "written for slim"),
        ({}, {"python": "3.10"}, ">=3.11"),
        ({"pyproject.toml": "[project]\nname = 'a\\nRUN'\n"}, {}, "not a package's name"),
        ({"pyproject.toml": PYPROJECT.replace("scripts", "x-scripts")}, {}, "say it, as --command"),
        ({}, {"extras": ("nope",)}, "has no extra 'nope'"),
        ({"uv.lock": None, "requirements.txt": "fast==2.0"}, {"groups": ("dev",)},
         "no group 'dev'"),
        ({"uv.lock": LOCKS["uv.lock"].replace('registry = "https://index.test/simple"',
                                              'directory = "libs/fast"')}, {}, "directories"),
    ],
)  # fmt: skip
def test_what_no_sound_image_can_be_made_of_is_refused(
    project: Project, change: dict[str, str | None], wanted: dict[str, object], rule: str
) -> None:
    root = project()
    for name, content in change.items():
        (root / name).unlink() if content is None else (root / name).write_text(content)

    with pytest.raises(ImageError, match=rule):
        write(Wanted(root, **wanted), "x")  # type: ignore[arg-type] # the table above says which


def test_a_requirements_file_may_not_include_what_lies_outside(project: Project) -> None:
    root = project("requirements.txt")
    (root / "requirements.txt").write_text(f"fast==2.0 --hash=sha256:{ZEROS}\n-c ../x.txt\n")

    with pytest.raises(ImageError):
        write(Wanted(root), "x")


def test_the_files_are_written_once_and_never_over_others(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    root = project()
    (root / ".dockerignore").write_text("mine\n.git\n.venv\n")

    assert run(["image", "dockerfile", str(root)]) == 0
    assert "stays as it is" in capsys.readouterr().err
    assert (root / ".dockerignore").read_text() == "mine\n.git\n.venv\n"
    assert run(["image", "dockerfile", str(root), "--offline"]) == 0


@pytest.mark.parametrize("name", ["Dockerfile", "examples/Dockerfile"])
def test_our_own_dockerfiles_are_what_their_first_line_makes_and_are_well(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / name).read_text("utf-8")
    first = text.partition("\n")[0].removeprefix("# Made by: penstock ")
    monkeypatch.chdir(ROOT)

    assert run(shlex.split(first)) == 0
    assert capsys.readouterr().out == text
    lock = first.partition("--lock ")[2].split()[0]
    assert run(["image", "dockerfile", "--file", name, "--lock", lock, "--offline"]) == 0
    assert " error " not in capsys.readouterr().out


def test_the_step_in_the_dockerfile_strips_what_the_command_strips(
    tmp_path: Path, installed_objects: Callable[[str], list[Path]]
) -> None:
    """As a shell writes it out, and as the Python of the image runs it."""
    lists = b'0.so,sha256=old,1\n1.so,sha256=old,1\n"a,b.txt",,\nother.py,sha256=keep,5\n'
    for side in ("by_step", "by_command"):
        (tmp_path / side / "a-1.dist-info").mkdir(parents=True)
        (tmp_path / side / "a-1.dist-info" / "RECORD").write_bytes(lists)
        (tmp_path / side / "a.libs").mkdir(parents=True)
        for index, source in enumerate(installed_objects("httptools")):
            (tmp_path / side / f"{index}.so").write_bytes(source.read_bytes())
            (tmp_path / side / "a.libs" / f"{index}.so").write_bytes(source.read_bytes())
    shell = "\n".join(strip_lines(str(tmp_path / "strip.py")))

    subprocess.run(["sh", "-c", shell], check=True, timeout=30)
    subprocess.run(
        [sys.executable, "-I", tmp_path / "strip.py", tmp_path / "by_step"], check=True, timeout=30
    )
    strip_prefix(tmp_path / "by_command")

    assert (tmp_path / "strip.py").read_text() == strip_program() + "\n"
    told = (tmp_path / "by_step/a-1.dist-info/RECORD").read_text().splitlines()
    assert "old" not in told[0]
    assert told[3] == "other.py,sha256=keep,5"
    for path in filter(Path.is_file, (tmp_path / "by_command").rglob("*")):
        twin = tmp_path / "by_step" / path.relative_to(tmp_path / "by_command")
        assert twin.read_bytes() == path.read_bytes()


def test_the_step_leaves_an_object_that_would_not_load_the_same(
    tmp_path: Path, installed_objects: Callable[[str], list[Path]]
) -> None:
    """What was written is read back: a cut that went wrong, or a disk that did."""
    before = installed_objects("httptools")[0].read_bytes()
    (tmp_path / "prefix").mkdir()
    (tmp_path / "prefix/a.so").write_bytes(before)
    broken = strip_program().replace("file.write(after)", "file.write(after[:-200])")
    assert broken != strip_program()

    done = subprocess.run(
        [sys.executable, "-I", "-c", broken, tmp_path / "prefix"],
        check=True, timeout=30, capture_output=True, text=True,
    )  # fmt: skip

    assert "left as it is" in done.stdout
    assert [path.name for path in (tmp_path / "prefix").iterdir()] == ["a.so"]
    assert (tmp_path / "prefix/a.so").read_bytes() == before


@pytest.mark.parametrize("name", ["requirements-chains.lock", "requirements-examples.lock"])
def test_images_install_the_releases_that_were_tested(name: str) -> None:
    """What an image installs stands in requirements.lock with the same version and hashes."""
    tested = (ROOT / "requirements.lock").read_text("utf-8").split("\n")
    listed = (ROOT / name).read_text("utf-8").split("\n")

    assert len(listed) > 100
    assert set(listed) - set(tested) == set()
