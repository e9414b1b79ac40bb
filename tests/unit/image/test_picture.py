"""The picture says of each base what is hard about it, and no more than that."""

from __future__ import annotations

import msgspec

from penstock.image.compare import Comparison, Row
from penstock.image.model import Verdict
from penstock.image.picture import draw

ROW = Row(
    name="alpine3.24/amd64/3.12", base="alpine3.24", image="python:3.12-alpine3.24",
    verdict=Verdict.IMPOSSIBLE, packages=9, compiled=("b", "c"), impossible=("a",),
    compile_cpu_seconds=0.0, compile_missing=2, download_bytes=0, base_bytes=1, symbol_bytes=0,
    shared_object_bytes=0, other_bytes=1, missing=3, is_current=True,
)  # fmt: skip


def test_what_must_be_compiled_is_not_counted_as_impossible() -> None:
    assert "cannot be installed: 1: a; to compile: 2" in draw(Comparison("uv.lock", None, (ROW,)))


def test_the_first_names_of_what_must_be_compiled_are_shown() -> None:
    row = msgspec.structs.replace(ROW, impossible=(), compiled=("b", "c", "d", "e"))

    assert "to compile 4: b, c, d, …" in draw(Comparison("uv.lock", None, (row,)))
