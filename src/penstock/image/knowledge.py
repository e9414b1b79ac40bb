"""What is known of packages beyond their tags, from ``data/knowledge.toml``, with its date.

It is curated and small: compile times that were measured, system packages that a build wants, and
features that are lost without an error. What it does not hold is not known, and is said to be so.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Any

from penstock.image.files import NAME, SEPARATORS
from penstock.image.model import Compile, Judged, Trap, Verdict
from penstock.image.targets import Target


@cache
def data() -> dict[str, Any]:
    """The tables of ``data/knowledge.toml``."""
    text = files("penstock.image").joinpath("data/knowledge.toml").read_text("utf-8")
    return tomllib.loads(text)


def compile_of(judged: Judged, where: Target, read: Compile | None) -> Compile:
    """What compiling a package takes: what its source says, and what was measured."""
    known = data()["packages"].get(judged.name, {})
    kind = "apk" if where.musl is not None else "apt"
    return Compile(
        build_system=read.build_system if read is not None else None,
        build_requires=read.build_requires if read is not None else (),
        has_native_code=read.has_native_code if read is not None else None,
        system_packages=tuple(known.get(kind, ())),
        cpu_seconds=known.get("cpu_seconds"),
    )


def traps_of(judged: Judged) -> list[Trap]:
    """What goes wrong with this package here, though nothing fails."""
    known = data()["packages"].get(judged.name, {})
    found: list[Trap] = []
    if judged.verdict is Verdict.COMPILE and "without" in known:
        found.append(Trap("feature-lost", known["without"]))
    if judged.verdict is Verdict.PURE and "fallback" in known:
        found.append(Trap("pure-fallback", known["fallback"]))
    return found


def strip_share(judged: Judged) -> float:
    """The share of a package's shared objects that stripping takes away, from 0 to 1."""
    strip = data()["strip"]
    return float(strip["packages"].get(judged.name, strip["others"]))


def requirement_names(requirements: Iterable[str]) -> set[str]:
    """The packages that a build system asks for, in their one spelling."""
    found: set[str] = set()
    for text in requirements:
        match = NAME.match(text.strip())
        if match is not None:
            name = SEPARATORS.sub("-", match[0]).lower()
            # It pins an old numpy for each Python, and nothing else.
            found.add("numpy" if name == "oldest-supported-numpy" else name)
    return found
