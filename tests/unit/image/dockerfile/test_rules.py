"""Each rule finds what it is for, is silent about what is well, and mends no more than that."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from penstock.cli.main import run
from penstock.image.check import Wish
from penstock.image.check import check as judge
from penstock.image.dockerfile.lint import Linted, lint
from penstock.image.dockerfile.parse import parse
from penstock.image.dockerfile.rules import RULES
from penstock.image.dockerfile.rules_lock import traps
from penstock.image.dockerfile.stages import stages
from penstock.image.dockerfile.view import View

ROOT = Path(__file__).parents[4]

UV_LOCK = """\
version = 1
requires-python = ">=3.11"

[[package]]
name = "app"
version = "1"
source = {{ virtual = "." }}
dependencies = [{{ name = "fast" }}]

[[package]]
name = "fast"
version = "2.0"
source = {{ registry = "https://index.test/simple" }}
sdist = {{ url = "https://index.test/fast-2.0.tar.gz", hash = "sha256:{zeros}" }}
wheels = [{wheels}]
"""
GLIBC = "fast-2.0-cp311-cp311-manylinux_2_17_x86_64.whl"
PURE = "fast-2.0-py3-none-any.whl"
MUSL = "fast-2.0-cp311-cp311-musllinux_1_2_x86_64.whl"

Check = Callable[..., Linted]


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Path]:
    """A project with a lock file of one package, with the wheels named."""

    def make(*wheels: str) -> Path:
        zeros = "0" * 64
        listed = ", ".join(
            f'{{ url = "https://index.test/{name}", hash = "sha256:{zeros}" }}' for name in wheels
        )
        (tmp_path / "uv.lock").write_text(UV_LOCK.format(zeros=zeros, wheels=listed))
        return tmp_path

    return make


@pytest.fixture
def check(project: Callable[..., Path]) -> Check:
    """Checks a Dockerfile in a project whose package has those wheels."""

    def look(text: str, *wheels: str, ignored: str | None = ".git\n.venv\n") -> Linted:
        root = project(*(wheels or (GLIBC, MUSL)))
        (root / "Dockerfile").write_bytes(text.encode())
        if ignored is not None:
            (root / ".dockerignore").write_text(ignored)
        return lint(root / "Dockerfile", root, Wish(root, (), (), is_offline=True))

    return look


WELL = """\
FROM python:3.11-slim AS builder
ENV UV_COMPILE_BYTECODE=1
RUN pip install uv==0.13.9
COPY pyproject.toml uv.lock ./
RUN --mount=type=cache,target=/cache/uv uv sync --locked --no-install-project
COPY . .
RUN --mount=type=cache,target=/cache/uv uv sync --locked --no-editable
FROM python:3.11-slim
COPY --from=builder /app/.venv /app/.venv
USER 10001
"""

SEED = """\
# the seed's
FROM python:3.11-alpine
WORKDIR /app
RUN apk update && apk add --no-cache --virtual .build gcc musl-dev \\
    # for cffi
    libffi-dev

COPY uv.lock .
RUN uv sync --locked
USER app
"""


def rules_of(linted: Linted) -> set[str]:
    return {finding.rule for finding in linted.findings}


def test_a_good_dockerfile_is_left_in_peace(check: Check) -> None:
    linted = check(WELL)

    assert linted.findings == ()
    assert linted.difference() == ""


BAD = {
    "PSI001": (SEED, "must be compiled: fast 2.0"),
    "PSI002": (WELL.replace("ENV", "RUN apt-get install -y build-essential gcc\nENV"), "leave the"),
    "PSI004": (WELL.replace("3.11", "3.10"), ">=3.11"),
    "PSI005": (WELL.replace("COPY pyproject.toml uv.lock ./", "COPY . ."), "copied before"),
    "PSI006": (
        WELL.replace("uv sync --locked --no-e", "pip install fast[x] && uv sync --e"),
        "fast",
    ),
    "PSI007": (WELL.replace("--mount=type=cache,target=/cache/uv ", ""), "outlives"),
    "PSI008": (WELL.replace("ENV UV_COMPILE_BYTECODE=1\n", ""), "not compiled"),
    "PSI009": (WELL.replace("USER 10001", "USER root:0"), "as root"),
    "PSI011": (WELL.replace("FROM python:3.11-slim\n", "FROM python:3.12-slim\n"), "Python 3.11"),
    "PSI012": (
        WELL.replace("ENV", "ENV PIP_INDEX_URL=https://me:hunter2@index.test/\nENV"),
        "hist",
    ),
    "PSI013": (WELL.replace("pip install", "pip install --trusted-host index.test"), "--trusted"),
    "PSI014": (WELL.replace("FROM python:3.11-slim\n", "FROM python:3.11\n"), "smaller"),
}


@pytest.mark.parametrize("rule", sorted(BAD))
def test_a_rule_finds_what_it_is_for(check: Check, rule: str) -> None:
    text, words = BAD[rule]
    linted = check(text, *([GLIBC] if rule == "PSI001" else []))

    assert [each.message for each in linted.findings if words in each.message and each.rule == rule]
    assert "hunter2" not in str(linted.findings)


def test_a_wheel_that_fits_and_fails_is_found_on_its_base(
    project: Callable[..., Path], check: Check
) -> None:
    """PSI003, of a package that is known to want a library of the system."""
    root = project(PURE)
    (root / "uv.lock").write_text((root / "uv.lock").read_text().replace("fast", "soundfile"))
    (root / "Dockerfile").write_text(WELL)

    found = lint(root / "Dockerfile", root, Wish(root, (), (), is_offline=True)).findings

    assert {each.rule for each in found} >= {"PSI003"}
    trap = next(each for each in found if each.rule == "PSI003")
    assert (trap.line, "libsndfile" in trap.message) == (1, True)
    assert "PSI003" not in rules_of(check(WELL, PURE))


def test_a_missing_or_leaky_ignore_file_is_found(check: Check) -> None:
    assert "PSI010" in rules_of(check(WELL, ignored=None))
    assert "PSI010" in rules_of(check(WELL, ignored="dist\n"))
    assert "PSI010" not in rules_of(check(WELL.replace("COPY . .", "COPY src src"), ignored=None))


NEARLY = {
    "PSI001": SEED,
    "PSI002": WELL.replace("ENV", "RUN apt-get install -y libpq5\nENV"),
    "PSI004": WELL.replace("3.11", "3.12"),
    "PSI005": WELL.replace("COPY pyproject.toml uv.lock ./", "COPY src/ ./src/"),
    "PSI006": WELL.replace("--locked --no-e", "--no-e").replace("ENV", "ENV UV_FROZEN=1\nENV"),
    "PSI007": WELL.replace("pip install uv", "pip install pdm"),
    "PSI008": WELL.replace("ENV UV_C", "ENV C").replace("uv sync", "uv sync --compile-bytecode"),
    "PSI009": WELL.replace("USER 10001", "USER root\nUSER app"),
    "PSI011": WELL.replace(".venv /app/.venv", "README.md /x").replace(
        "FROM python:3.11-slim\n", "FROM python:3.12-slim\n"
    ),
    "PSI012": WELL.replace("ENV", "ENV PIP_INDEX_URL=https://index.test/\nENV"),
    "PSI013": WELL.replace("pip install", "pip install --cert ca.pem"),
    "PSI014": WELL.replace("slim", "slim-bookworm"),
}  # fmt: skip


@pytest.mark.parametrize("rule", sorted(NEARLY))
def test_a_rule_is_silent_about_what_is_only_like_it(check: Check, rule: str) -> None:
    assert rule not in rules_of(check(NEARLY[rule]))


def test_every_rule_was_seen_to_find_something_and_to_be_silent() -> None:
    """PSI003 and PSI010 have tests of their own, for both."""
    assert set(BAD) | {"PSI003", "PSI010"} == {rule.id for rule in RULES}
    assert set(NEARLY) == set(BAD)


def test_an_environment_that_a_variable_names_is_seen(check: Check) -> None:
    """As Dockerfiles for Poetry have it."""
    text = WELL.replace("/app/.venv /app/.venv", "${VIRTUAL_ENV} ${VIRTUAL_ENV}")

    assert rules_of(check(text)) == set()
    assert "PSI011" in rules_of(
        check(text.replace("FROM python:3.11-slim\n", "FROM python:3.12-slim\n"))
    )


@pytest.mark.parametrize(("trap", "count"), [("pure-fallback", 1), ("built-twice", 0)])
def test_what_is_only_compiled_twice_is_no_finding_of_its_own(
    project: Callable[..., Path], trap: str, count: int
) -> None:
    root = project(PURE)
    (root / "uv.lock").write_text((root / "uv.lock").read_text().replace("fast", "soundfile"))
    report = judge(Wish(root, ("slim",), ("amd64",), ("3.11",), is_offline=True)).targets[0]
    package = report.packages[0]
    told = replace(package, traps=tuple(replace(each, id=trap) for each in package.traps))
    report = replace(report, packages=(told,))
    file = parse(WELL, "Dockerfile")

    found = list(traps(View(file, stages(file), lambda _base, _python: report, None)))

    assert len(found) == count


def test_the_seeds_change_is_two_lines(check: Check) -> None:
    """The base image, and the tool chain with all that only prepares for it."""
    linted = check(SEED, GLIBC)

    assert linted.after == SEED.replace("alpine", "slim").replace(
        SEED[SEED.index("RUN apk") : SEED.index("\nCOPY")], ""
    )
    assert linted.difference().count("\n-") == 4


def test_a_tool_chain_among_other_commands_goes_alone(check: Check) -> None:
    text = SEED.replace("RUN apk update", "RUN mkdir /x && apk update").replace(
        "libffi-dev\n", "libffi-dev && touch /y\n"
    )

    assert "RUN mkdir /x && touch /y\n" in check(text, GLIBC).after


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("gcc musl-dev", "gcc postgresql-libs", "postgresql-libs by apk"),
        ("USER app", "RUN adduser -D app", "BusyBox"),
        ("3.11-alpine", "3.11-alpine@sha256:" + "0" * 64, "digest"),
        ("FROM python:3.11-alpine", "ARG T=3.11-alpine\nFROM python:$T", "variable"),
    ],
)
def test_what_needs_a_thought_is_not_changed_blindly(
    check: Check, old: str, new: str, why: str
) -> None:
    linted = check(SEED.replace(old, new), GLIBC)

    assert why in next(each.message for each in linted.findings if each.rule == "PSI001")
    assert linted.after == linted.before


def test_alpine_is_well_where_the_lock_has_its_wheels(check: Check) -> None:
    """No rule says that Alpine is slow; the compilers are not needed any more, though."""
    linted = check(SEED)

    assert "PSI001" not in rules_of(linted)
    assert "PSI002" in rules_of(linted)
    assert "apk" not in linted.after
    assert "python:3.11-alpine" in linted.after


def test_a_rule_can_be_silenced_where_it_is_known(check: Check) -> None:
    assert "PSI009" not in rules_of(check("# penstock: ignore=PSI009, PSI007\n" + SEED))


def test_without_a_lock_file_the_rules_that_ask_it_are_silent(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(SEED)

    assert rules_of(lint(tmp_path / "Dockerfile", tmp_path)) & {"PSI001", "PSI002"} == set()


def test_fix_writes_what_the_diff_shows_and_leaves_nothing_to_fix(
    project: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root = project(GLIBC)
    text = SEED.replace("\n", "\r\n")
    (root / "Dockerfile").write_bytes(text.encode())

    assert run(["image", "dockerfile", str(root), "--offline"]) == 1
    assert "+FROM python:3.11-slim\r\n" in capsys.readouterr().out
    assert run(["image", "dockerfile", str(root), "--offline", "--fix"]) == 0
    assert b"python:3.11-slim\r\n" in (root / "Dockerfile").read_bytes()
    capsys.readouterr()
    assert run(["image", "dockerfile", str(root), "--offline", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["diff"] == ""


def test_sarif_names_rule_line_and_document(
    project: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root = project(GLIBC)
    (root / "Dockerfile").write_text(SEED)
    assert run(["image", "dockerfile", str(root), "--offline", "--sarif"]) == 1

    log = json.loads(capsys.readouterr().out)["runs"][0]
    first = log["results"][0]
    assert (first["ruleId"], first["level"]) == ("PSI001", "warning")
    assert first["locations"][0]["physicalLocation"]["region"] == {"startLine": 2}
    assert log["tool"]["driver"]["rules"][0]["help"]["text"] == "docs/image.md#psi001"


def test_every_rule_is_explained() -> None:
    text = (ROOT / "docs/image.md").read_text("utf-8")
    headings = re.findall(r"^#### (PSI\d{3})$", text, re.MULTILINE)

    assert headings == [rule.id for rule in RULES]


@pytest.mark.parametrize("kind", ["directory", "pipe"])
def test_a_dockerfile_that_is_no_file_is_refused(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "Dockerfile"
    place.mkdir() if kind == "directory" else os.mkfifo(place)

    assert run(["image", "dockerfile", str(tmp_path)]) == 2
    assert "not a regular file" in capsys.readouterr().err
