"""The base image that a project has now: the last stage of its ``Dockerfile``.

Only the lines that begin a stage are read. An image that is named by a variable, or that is none
of Python's known ones, is no answer: None.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple

from penstock.errors import ImageError
from penstock.image.files import read_text
from penstock.image.targets import base_names, data

NAMES: Final = ("Dockerfile", "Containerfile")
FROM: Final = re.compile(
    r"^\s*FROM\s+(?:--\S+\s+)*(?P<image>\S+)(?:\s+AS\s+(?P<name>\S+))?\s*$",
    re.IGNORECASE | re.MULTILINE,
)
OFFICIAL: Final = re.compile(r"(?:docker\.io/)?(?:library/)?python(?::(?P<tag>[\w.-]+))?(?:@.*)?")
TAG: Final = re.compile(r"(?P<python>3(?:\.\d+)?)?(?:\.\d+)?-?(?P<rest>.*)")


class Current(NamedTuple):
    """A base that is known, and its Python where the image names one."""

    base: str
    python: str | None
    image: str


def current(root: Path) -> Current | None:
    """The base image of the project at ``root``. Raises ``ImageError`` for a hostile file."""
    for name in NAMES:
        if (root / name).is_file():
            return of_dockerfile(read_text(root / name, root))
    return None


def of_dockerfile(text: str) -> Current | None:
    """The base of the last stage, through stages that build on earlier ones."""
    stages = {found["name"]: found["image"] for found in FROM.finditer(text) if found["name"]}
    images = [found["image"] for found in FROM.finditer(text)]
    if not images:
        return None
    image = images[-1]
    for _ in range(len(images)):
        image = stages.get(image, image)
    return of_image(image)


def of_image(image: str) -> Current | None:
    """What an image's name says of its base."""
    repository = image.partition(":")[0]
    for name, base in data()["bases"].items():
        is_named = base["family"] in {"distroless", "wolfi"}
        if is_named and repository == base["image"].partition(":")[0]:
            return Current(str(name), base.get("own_python"), image)
    official = OFFICIAL.fullmatch(image)
    tag = TAG.fullmatch((official["tag"] or "") if official is not None else "?")
    if official is None or tag is None:
        return None
    python = tag["python"] if tag["python"] in data()["pythons"] else None
    try:
        return Current(base_names(tag["rest"] or "debian"), python, image)
    except ImageError:
        return None
