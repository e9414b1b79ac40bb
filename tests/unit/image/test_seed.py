"""The service that this project comes from, on the day it was measured and today.

The lock files are hashed requirements of langchain, openai, fastapi, uvicorn[standard], numpy and
spacy (today's with langchain-openai). What the index said of them is recorded in
``seed-index.json``, without an address; it is given to the check as its cache.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from penstock.cli.main import run
from penstock.image.cache import Cache
from penstock.image.check import Wish, check
from penstock.image.compare import compare
from penstock.image.forms import findings, github, json_document, sarif
from penstock.image.listed import Listed
from penstock.image.model import Compile, File, Verdict
from penstock.image.picture import draw
from penstock.image.report import Report, fails
from penstock.image.wheel import Sizes

DATA = Path(__file__).parents[2] / "data" / "image"
THEN, TODAY = "seed-2023-06-02", "seed-2026-11-22"
NOW = 1e9
COMPILED = [
    "blis", "cymem", "murmurhash", "numexpr", "numpy", "preshed", "pyyaml", "spacy", "srsly",
    "thinc",
]  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds what the index said on 2026-11-22."""
    place = tmp_path_factory.mktemp("cache") / "image.sqlite3"
    recorded = json.loads((DATA / "seed-index.json").read_text("utf-8"))
    with Cache(place, NOW) as known:
        for name, files in recorded["pages"].items():
            listed = [
                Listed(version, File(filename, None, digest, size, None, python))
                for filename, (version, digest, size, python) in files.items()
            ]
            known.put(f"page::{name}", msgspec.json.encode(listed))
        for digest, sizes in recorded["sizes"].items():
            known.put(f"wheel:{digest}", msgspec.json.encode(Sizes(*sizes)))
        for digest, (system, requires, is_native) in recorded["compiles"].items():
            takes = Compile(system, tuple(requires), is_native)
            known.put(f"sdist:{digest}", msgspec.json.encode(takes))
    return place


def judged(tmp_path: Path, cache: Path, name: str, platform: str = "amd64") -> Report:
    shutil.copy(DATA / f"{name}.txt", tmp_path / "requirements.txt")
    return check(
        Wish(
            tmp_path,
            ("slim", "alpine"),
            (platform,),
            ("3.11",),
            is_offline=True,
            cache=cache,
            now=NOW,
        )
    )


@pytest.mark.parametrize("platform", ["amd64", "arm64"])
def test_ten_of_61_had_to_be_compiled_on_alpine_then(
    tmp_path: Path, cache: Path, platform: str
) -> None:
    slim, alpine = judged(tmp_path, cache, THEN, platform).targets

    assert (len(slim.packages), slim.verdict) == (61, Verdict.PREBUILT)
    assert (len(alpine.packages), alpine.verdict) == (61, Verdict.COMPILE)
    assert [each.name for each in alpine.of(Verdict.COMPILE)] == COMPILED
    assert {each.reason for each in alpine.of(Verdict.COMPILE)} == {"no musllinux wheel"}
    assert alpine.compile_cpu_seconds > 26 * 60


@pytest.mark.parametrize("platform", ["amd64", "arm64"])
def test_none_of_81_has_to_be_compiled_today(tmp_path: Path, cache: Path, platform: str) -> None:
    for each in judged(tmp_path, cache, TODAY, platform).targets:
        assert len(each.packages) == 81
        assert each.verdict is Verdict.PREBUILT


def test_sizes_are_those_of_an_install(tmp_path: Path, cache: Path) -> None:
    """346,883,361 bytes were counted after an install of today's on glibc."""
    slim, alpine = judged(tmp_path, cache, TODAY).targets

    assert slim.unpacked_bytes == pytest.approx(346_883_361, rel=0.01)
    assert (slim.unpacked_missing, alpine.unpacked_missing) == (0, 0)
    assert slim.download_bytes == pytest.approx(101.2e6, rel=0.001)
    assert alpine.unpacked_bytes == pytest.approx(314.9e6, rel=0.001)


def test_stripping_is_estimated_as_it_was_measured(tmp_path: Path, cache: Path) -> None:
    """Stripping today's packages left 176.4 MB of 346.9."""
    slim = compare(judged(tmp_path, cache, TODAY), None, 1.0).rows[0]

    assert slim.dependency_bytes - slim.symbol_bytes == pytest.approx(176.4e6, rel=0.02)


def test_compiling_in_isolation_compiles_numpy_once_more(tmp_path: Path, cache: Path) -> None:
    alpine = judged(tmp_path, cache, THEN).targets[1]
    twice = {each.name for each in alpine.packages for trap in each.traps
             if trap.id == "built-twice" and "numpy" in trap.message}  # fmt: skip

    assert {"numexpr", "spacy", "thinc", "blis"} <= twice


def test_a_build_that_loses_a_feature_says_so(tmp_path: Path, cache: Path) -> None:
    alpine = judged(tmp_path, cache, THEN).targets[1]
    [pyyaml] = [each for each in alpine.packages if each.name == "pyyaml"]

    assert [trap.id for trap in pyyaml.traps] == ["feature-lost"]
    assert pyyaml.compile is not None
    assert pyyaml.compile.system_packages == ("yaml-dev",)


def test_what_fails_is_what_is_named(tmp_path: Path, cache: Path) -> None:
    report = judged(tmp_path, cache, THEN)

    assert fails(report, "compile")
    assert not fails(report, "impossible")
    assert not fails(report, "never")


def test_every_form_says_the_same(tmp_path: Path, cache: Path) -> None:
    report = judged(tmp_path, cache, THEN)
    document = json_document(report)
    found = [each for each in findings(report) if each.rule == "image/compile"]
    results = sarif(report, "1.0")["runs"][0]["results"]
    lines = list(github(report))

    assert document["version"] == 1
    assert [each["counts"]["compile"] for each in document["targets"]] == [0, 10]
    assert len(found) == 10
    assert [each["ruleId"] for each in results].count("image/compile") == 10
    assert {each["locations"][0]["physicalLocation"]["region"]["startLine"] for each in results}
    assert sum("title=image/compile" in line or "image%2Fcompile" in line for line in lines) == 10
    text = (tmp_path / "requirements.txt").read_text().splitlines()
    assert all(text[each.line - 1].startswith(each.message.split()[1]) for each in found)


def test_the_picture_marks_what_is_not_known(tmp_path: Path, cache: Path) -> None:
    picture = draw(compare(judged(tmp_path, cache, THEN), "alpine3.24", 1.0))

    assert "prefers-color-scheme: dark" in picture
    assert "≥ 126 MB" in picture
    assert "to compile 10: blis, cymem, murmurhash, …, at least 27 min of CPU" in picture


def test_the_commands_end_with_their_exit_codes(
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    home = tmp_path / "home" / "penstock"
    home.mkdir(parents=True)
    shutil.copy(cache, home / "image.sqlite3")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("penstock.cli.image_check.time.time", lambda: NOW)
    shutil.copy(DATA / f"{THEN}.txt", tmp_path / "requirements.txt")
    (tmp_path / "Dockerfile").write_text("FROM python:3.11-alpine\n")
    options = [str(tmp_path), "--offline", "--json"]
    ends = run(["image", "check", *options, "--python", "3.11", "--fail-on", "compile"])
    checked = json.loads(capsys.readouterr().out)

    assert ends == 1
    assert checked["targets"][1]["counts"]["compile"] == 10
    assert run(["image", "compare", *options]) == 0
    compared = json.loads(capsys.readouterr().out)
    assert [(row["base"], len(row["compile"])) for row in compared["rows"]] == [
        ("alpine3.24", 10),
        ("slim-trixie", 0),
    ]
    assert compared["current"] == "alpine3.24/amd64/3.11"
    assert run(["image", "check", str(tmp_path / "none")]) == 2


def test_a_list_is_one_option_with_commas_or_one_for_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = tmp_path / "requirements.txt"
    lock.write_text("six==1.17.0\n")
    asked = ["image", "check", str(lock), "--offline", "--json", "--python", "3.13"]
    targets = []
    for bases in (["--base", "slim,alpine"], ["--base", "slim", "--base", "alpine,slim"]):
        run([*asked, *bases])
        checked = json.loads(capsys.readouterr().out)
        targets.append([one["base"] for one in checked["targets"]])

    assert targets[0] == targets[1]
    assert len(targets[0]) == 2


def test_a_check_that_asks_nobody_imports_nothing_that_asks() -> None:
    program = (
        "import sys; import penstock.cli.image_check\n"
        "assert not {'aiohttp', 'pypi_simple', 'requests'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
