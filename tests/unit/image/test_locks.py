"""Each format of lock is read into the same packages, and chosen for the target's environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.image.locks.find import find, read
from penstock.image.locks.selection import Selection, select
from penstock.image.model import Lock, Source
from penstock.image.targets import target

SHA = "0" * 64
UV = f"""
version = 1
revision = 3
requires-python = ">=3.11"

[[package]]
name = "demo"
version = "0"
source = {{ virtual = "." }}
dependencies = [
    {{ name = "a", extra = ["more"] }},
    {{ name = "n", version = "1.0", marker = "python_full_version < '3.12'" }},
    {{ name = "n", version = "2.0", marker = "python_full_version >= '3.12'" }},
    {{ name = "w", marker = "sys_platform == 'win32'" }},
]
[package.optional-dependencies]
x = [{{ name = "x" }}]
[package.dev-dependencies]
dev = [{{ name = "d" }}]

[[package]]
name = "a"
version = "1.0"
source = {{ registry = "https://index.test/simple" }}
dependencies = [{{ name = "b" }}]
wheels = [
    {{ url = "https://files.test/a-1.0-py3-none-any.whl", hash = "sha256:{SHA}", size = 7 }},
]
[package.optional-dependencies]
more = [{{ name = "a", extra = ["most"] }}]
most = [{{ name = "a", extra = ["more"] }}, {{ name = "c" }}]

[[package]]
name = "b"
version = "1.0"
source = {{ git = "https://git.test/b?rev=1#abc" }}
[[package]]
name = "c"
version = "1.0"
source = {{ registry = "https://index.test/simple" }}
sdist = {{ url = "https://files.test/c-1.0.tar.gz", hash = "sha256:{SHA}" }}
[[package]]
name = "d"
version = "1.0"
source = {{ registry = "https://index.test/simple" }}
[[package]]
name = "n"
version = "1.0"
source = {{ registry = "https://index.test/simple" }}
[[package]]
name = "n"
version = "2.0"
source = {{ registry = "https://index.test/simple" }}
[[package]]
name = "w"
version = "1.0"
source = {{ registry = "https://index.test/simple" }}
[[package]]
name = "x"
version = "1.0"
source = {{ registry = "https://index.test/simple" }}
"""
PDM = f"""
[metadata]
groups = ["default", "dev", "x"]
strategy = ["inherit_metadata"]
lock_version = "4.5.0"
[[package]]
name = "A"
version = "1.0"
requires_python = ">=3.8"
groups = ["default"]
files = [
    {{file = "a-1.0-py3-none-any.whl", hash = "sha256:{SHA}"}},
    {{file = "a-1.0.tar.gz", hash = "sha256:{SHA}"}},
]
[[package]]
name = "a"
version = "1.0"
extras = ["more"]
groups = ["default"]
files = [{{file = "a-1.0-py3-none-any.whl", hash = "sha256:{SHA}"}}]
[[package]]
name = "d"
version = "1.0"
groups = ["dev"]
files = []
[[package]]
name = "n"
version = "1.0"
groups = ["default"]
marker = "python_version < '3.12'"
files = []
[[package]]
name = "x"
version = "1.0"
groups = ["x"]
files = []
"""
POETRY = f"""
[[package]]
name = "a"
version = "1.0"
optional = false
python-versions = ">=3.8"
groups = ["main", "dev"]
files = [{{file = "a-1.0-py3-none-any.whl", hash = "sha256:{SHA}"}}]
[[package]]
name = "d"
version = "1.0"
python-versions = "*"
groups = ["dev"]
files = []
[[package]]
name = "n"
version = "1.0"
python-versions = "*"
groups = ["main", "dev"]
markers = {{main = "python_version < '3.12'", dev = "python_version >= '3'"}}
files = []
[[package]]
name = "x"
version = "1.0"
python-versions = "*"
groups = ["main"]
optional = true
markers = "extra == 'x'"
files = []
[extras]
x = ["x"]
[metadata]
lock-version = "2.1"
python-versions = ">=3.11"
"""
POETRY_1 = """
[[package]]
name = "a"
version = "1.0"
optional = false
python-versions = ">=3.8"
files = []
[package.dependencies]
n = {version = ">=1", markers = "python_version < '3.12'"}
x = {version = ">=1", optional = true}
[package.extras]
more = ["x (>=1)"]
[[package]]
name = "d"
version = "1.0"
python-versions = "*"
files = []
[[package]]
name = "n"
version = "1.0"
python-versions = "*"
files = []
[[package]]
name = "x"
version = "1.0"
python-versions = "*"
files = []
[metadata]
lock-version = "2.0"
python-versions = ">=3.11"
"""
POETRY_1_PROJECT = """
[tool.poetry.dependencies]
python = ">=3.11"
a = "^1.0"
[tool.poetry.group.dev.dependencies]
d = "*"
"""
PYLOCK = f"""
lock-version = "1.0"
created-by = "test"
requires-python = ">=3.11"
extras = ["x"]
[[packages]]
name = "a"
version = "1.0"
wheels = [{{url = "https://files.test/a-1.0-py3-none-any.whl", hashes = {{sha256 = "{SHA}"}}}}]
[[packages]]
name = "n"
version = "1.0"
marker = "python_version < '3.12'"
sdist = {{url = "https://files.test/n-1.0.tar.gz", hashes = {{sha256 = "{SHA}"}}}}
[[packages]]
name = "x"
version = "1.0"
marker = "'x' in extras"
sdist = {{url = "https://files.test/x-1.0.tar.gz", hashes = {{sha256 = "{SHA}"}}}}
"""
REQUIREMENTS = f"""
# a comment
--index-url https://user:secret@index.test/simple
A==1.0 \\
    --hash=sha256:{SHA} \\
    --hash=sha256:{"1" * 64}  # another
n==1.0 ; python_version < "3.12"
-r more.txt
"""


def write(place: Path, **files: str) -> Path:
    for name, text in files.items():
        (place / name.replace("__", ".")).write_text(text, "utf-8")
    return place


def names(
    lock: Lock, python: str = "3.11", extras: tuple[str, ...] = (), groups: tuple[str, ...] = ()
) -> list[str]:
    where = target("slim", "amd64", python)
    chosen = select(lock, Selection(where.environment(), extras, groups))
    return [f"{package.name} {package.version}" for package in chosen]


def test_uv_follows_its_graph_through_forks_and_extras_that_name_each_other(
    tmp_path: Path,
) -> None:
    lock = read(write(tmp_path, uv__lock=UV) / "uv.lock")

    assert names(lock) == ["a 1.0", "b 1.0", "c 1.0", "n 1.0"]
    assert names(lock, "3.12", ("x",), ("dev",)) == [
        "a 1.0", "b 1.0", "c 1.0", "d 1.0", "n 2.0", "x 1.0",
    ]  # fmt: skip
    assert lock.requires_python == ">=3.11"
    by_name = {package.name: package for package in lock.packages}
    assert by_name["a"].wheels[0].bytes == 7
    assert by_name["b"].source is Source.VCS
    assert by_name["c"].sdist is not None
    assert UV.splitlines()[by_name["c"].line - 1] == 'name = "c"'


def test_extras_of_uv_that_exclude_each_other_are_set_to_what_was_asked_for() -> None:
    where = target("slim", "amd64", "3.11").environment()
    marker = "extra == 'extra-4-demo-cpu' or extra != 'extra-4-demo-gpu'"

    assert Selection(where, ("cpu",), ()).holds(marker)
    assert Selection(where, (), ()).holds(marker)
    assert not Selection(where, ("gpu",), ()).holds(marker)


def test_pdm_takes_the_default_group_and_counts_extras_with_their_package(tmp_path: Path) -> None:
    lock = read(write(tmp_path, pdm__lock=PDM) / "pdm.lock")

    assert names(lock) == ["a 1.0", "n 1.0"]
    assert names(lock, "3.12") == ["a 1.0"]
    assert names(lock, "3.12", ("x",), ("dev",)) == ["a 1.0", "d 1.0", "x 1.0"]


def test_poetry_takes_the_main_group_with_its_markers(tmp_path: Path) -> None:
    lock = read(write(tmp_path, poetry__lock=POETRY) / "poetry.lock")

    assert names(lock) == ["a 1.0", "n 1.0"]
    assert names(lock, "3.12", ("x",)) == ["a 1.0", "x 1.0"]


def test_an_older_lock_of_poetry_is_followed_from_the_project(tmp_path: Path) -> None:
    project = write(tmp_path, poetry__lock=POETRY_1, pyproject__toml=POETRY_1_PROJECT)
    lock = read(project / "poetry.lock")

    assert names(lock) == ["a 1.0", "n 1.0"]
    assert names(lock, "3.12", (), ("dev",)) == ["a 1.0", "d 1.0"]


def test_pylock_is_chosen_by_its_markers(tmp_path: Path) -> None:
    lock = read(write(tmp_path, pylock__toml=PYLOCK) / "pylock.toml")

    assert names(lock) == ["a 1.0", "n 1.0"]
    assert names(lock, "3.13", ("x",)) == ["a 1.0", "x 1.0"]


def test_requirements_keep_hashes_and_indexes_and_follow_includes(tmp_path: Path) -> None:
    project = write(tmp_path, requirements__txt=REQUIREMENTS, more__txt="b>=1\n-c pins.txt\n",
                    pins__txt="b==3.0\nunused==1\n")  # fmt: skip
    lock = read(project / "requirements.txt")

    assert names(lock) == ["a 1.0", "b 3.0", "n 1.0"]
    assert names(lock, "3.12") == ["a 1.0", "b 3.0"]
    assert lock.is_locked
    assert lock.indexes == ("https://user:secret@index.test/simple",)
    assert {len(package.hashes) for package in lock.packages} == {0, 2}


def test_requirements_without_versions_are_no_lock(tmp_path: Path) -> None:
    lock = read(write(tmp_path, requirements__txt="a>=1 --config-settings x=y\nb==1\n")
                / "requirements.txt")  # fmt: skip

    assert not lock.is_locked
    assert lock.requirements == ("a>=1", "b==1")


@pytest.mark.parametrize(
    ("line", "source"),
    [
        ("git+https://user:pw@git.test/x.git#egg=thing", Source.VCS),
        ("thing @ https://files.test/thing-1.0-py3-none-any.whl", Source.URL),
        ("-e .", Source.PATH),
        ("./vendored/thing-1.0.tar.gz", Source.PATH),
    ],
)
def test_addresses_and_paths_are_named_for_what_they_are(
    tmp_path: Path, line: str, source: Source
) -> None:
    lock = read(write(tmp_path, requirements__txt=line) / "requirements.txt")

    assert [package.source for package in lock.packages] == [source]
    assert "pw" not in repr(lock.packages)


def test_the_lock_that_says_most_is_read_and_the_others_are_named(tmp_path: Path) -> None:
    write(tmp_path, uv__lock=UV, requirements__txt="a==1", pyproject__toml="")

    assert find(tmp_path) == (tmp_path / "uv.lock", ("requirements.txt",))
