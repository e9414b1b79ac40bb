"""Where a lock file would run: base image, architecture and Python, as wheel tags and markers.

Which wheels a target takes is decided by lists of tags. ``packaging.tags`` makes them, with the
*target's* platforms, which stand in ``data/targets.toml`` with their date; the machine that this
runs on has no say. Order matters: the first tag that a wheel has is the wheel that is installed.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final

import msgspec
from packaging.tags import compatible_tags, cpython_tags

from penstock.errors import ImageError
from penstock.image.files import plain

LEGACY: Final = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
"""Names that manylinux had before it said its glibc; all but 2014 are for amd64 alone."""
BASES_DEFAULT: Final = ("slim", "alpine")
PLATFORMS_DEFAULT: Final = ("amd64",)


class Target(msgspec.Struct, frozen=True):
    """One place to run: ``base`` as in the data, ``platform`` as Docker, ``python`` as ``3.13t``.

    Exactly one of ``glibc`` and ``musl`` is set, as numbers. ``image_bytes`` is the size of the
    base image on disk, None where it is not known.
    """

    base: str
    family: str
    image: str
    platform: str
    machine: str
    python: str
    python_full: str
    glibc: tuple[int, ...] | None = None
    musl: tuple[int, ...] | None = None
    image_bytes: int | None = None
    own_python: str | None = None

    @property
    def name(self) -> str:
        """For people and for JSON: ``slim-trixie/amd64/3.13``."""
        return f"{self.base}/{self.platform}/{self.python}"

    @property
    def libc(self) -> str:
        """``glibc 2.41`` or ``musl 1.2.6``."""
        kind, numbers = ("glibc", self.glibc) if self.glibc else ("musl", self.musl or ())
        return f"{kind} {'.'.join(map(str, numbers))}"

    @property
    def is_free_threaded(self) -> bool:
        """Whether it is a Python without the global lock, with wheels of its own."""
        return self.python.endswith("t")

    def environment(self) -> dict[str, str]:
        """What markers see. Nothing of it comes from the running Python."""
        return {
            "implementation_name": "cpython",
            "implementation_version": self.python_full,
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": self.python_full,
            "python_version": self.python.removesuffix("t"),
            "sys_platform": "linux",
        }


@cache
def data() -> dict[str, Any]:
    """The tables of ``data/targets.toml``."""
    text = files("penstock.image").joinpath("data/targets.toml").read_text("utf-8")
    return tomllib.loads(text)


def pythons() -> tuple[str, ...]:
    """Every Python that is known, the free-threaded ones last."""
    plain_ones = tuple(data()["pythons"])
    return (*plain_ones, *(f"{each}t" for each in plain_ones if each >= "3.13"))


def base_names(word: str) -> str:
    """The base that ``slim``, ``alpine``, ``alpine3.17`` or ``bookworm`` means.

    A family means its newest release. Raises ``ImageError`` for what is not known.
    """
    bases = data()["bases"]
    if word in bases:
        return word
    for name, base in bases.items():  # the newest release of a family stands first
        if base["family"] == word or name.removeprefix("debian-") == word:
            return str(name)
    families = dict.fromkeys(base["family"] for base in bases.values())
    raise ImageError(
        f"the base {plain(word)!r} is not known; there are {', '.join(families)}, and their "
        f"releases: {', '.join(bases)}"
    )


def target(base: str, platform: str, python: str) -> Target:
    """The target of these names. Raises ``ImageError`` for one that is not known."""
    known = data()
    platform = platform.removeprefix("linux/")
    if platform not in known["machines"]:
        names = ", ".join(known["machines"])
        raise ImageError(f"the platform {plain(platform)!r} is not known; there are {names}")
    if python not in pythons():
        raise ImageError(f"Python {plain(python)!r} is not known; there are {', '.join(pythons())}")
    name = base_names(base)
    entry = known["bases"][name]
    plain_python = python.removesuffix("t")
    return Target(
        base=name,
        family=entry["family"],
        image=entry["image"].format(python=plain_python),
        platform=platform,
        machine=known["machines"][platform],
        python=python,
        python_full=known["pythons"][plain_python],
        glibc=tuple(entry["glibc"]) if "glibc" in entry else None,
        musl=tuple(entry["musl"]) if "musl" in entry else None,
        image_bytes=entry.get("image_bytes"),
        own_python=entry.get("own_python"),
    )


def platforms(where: Target) -> list[str]:
    """The platform tags that the target takes, the best first."""
    machine = where.machine
    found: list[str] = []
    if where.glibc is not None:
        oldest = data()["glibc_oldest"][where.platform]
        for minor in range(where.glibc[1], oldest - 1, -1):
            found.append(f"manylinux_2_{minor}_{machine}")
            if minor in LEGACY:
                found.append(f"{LEGACY[minor]}_{machine}")
    elif where.musl is not None:
        found += [f"musllinux_1_{minor}_{machine}" for minor in range(where.musl[1], -1, -1)]
    return [*found, f"linux_{machine}"]


@cache
def tags(where: Target) -> dict[str, int]:
    """Each tag that the target takes, with its place: 0 is the best."""
    major, minor = (int(each) for each in where.python.removesuffix("t").split("."))
    version = (major, minor)
    threads = "t" if where.is_free_threaded else ""
    abi = f"cp{major}{minor}{threads}"
    listed: Sequence[str] = platforms(where)
    ordered = [
        *cpython_tags(version, [abi], listed),
        *compatible_tags(version, f"cp{major}{minor}", listed),
    ]
    places: dict[str, int] = {}
    for place, tag in enumerate(ordered):
        places.setdefault(str(tag), place)
    return places
