"""What the sandbox can be asked for stands in its documentation."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.cli.sandbox import sandbox
from penstock.sandbox.faults import FAULTS
from penstock.sandbox.statistics import AnswerClass

PAGE = (Path(__file__).parents[3] / "docs" / "sandbox.md").read_text("utf-8")
OPTIONS = [name for parameter in sandbox.params for name in parameter.opts]


@pytest.mark.parametrize("name", [*FAULTS, *AnswerClass])
def test_every_fault_and_ending_is_documented(name):
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_is_documented(option):
    assert option in PAGE
