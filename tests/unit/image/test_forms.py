"""What programs read: SARIF as its schema has it, and annotations that no text can break out of."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest

from penstock.cli.main import run
from penstock.image.check import Wish, check
from penstock.image.forms import github, sarif
from penstock.image.report import Report

SCHEMA = Path(__file__).parents[2] / "data" / "sarif" / "sarif-schema-2.1.0.json"
REQUIREMENTS = "one @ git+https://example.com/one\ntwo==1\nthree @ file:///three.whl\n"


@pytest.fixture(scope="module")
def validate() -> Callable[[Any], Any]:
    """Raises for what is not SARIF 2.1.0."""
    validator: Callable[[Any], Any] = fastjsonschema.compile(json.loads(SCHEMA.read_text("utf-8")))
    return validator


@pytest.fixture
def report(tmp_path: Path) -> Report:
    (tmp_path / "requirements.txt").write_text(REQUIREMENTS)
    return check(Wish(tmp_path, ("slim", "alpine3.17"), ("amd64",), ("3.11",), is_offline=True))


def test_the_verdicts_are_valid_sarif(validate: Callable[[Any], Any], report: Report) -> None:
    document = sarif(report, "1.0")

    validate(document)
    assert len(document["runs"][0]["results"]) == 6


def test_the_findings_in_a_dockerfile_are_valid_sarif(
    validate: Callable[[Any], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "requirements.txt").write_text("two==1\n")
    (tmp_path / "Dockerfile").write_text("FROM python:3.11\nCOPY . .\nRUN pip install two\n")
    run(["image", "dockerfile", str(tmp_path), "--offline", "--sarif"])
    document = json.loads(capsys.readouterr().out)

    validate(document)
    assert document["runs"][0]["results"]


def test_what_is_no_sarif_is_refused(validate: Callable[[Any], Any], report: Report) -> None:
    document = sarif(report, "1.0")
    document["runs"][0]["results"][0]["level"] = "notice"

    with pytest.raises(fastjsonschema.JsonSchemaException):
        validate(document)


def test_annotations_have_githubs_form(report: Report) -> None:
    first = next(github(report))

    assert first.startswith(
        "::notice file=requirements.txt,line=1,title=image/unknown::slim-trixie"
    )
    assert first.count("::") == 2
    assert all("\n" not in line for line in github(report))
