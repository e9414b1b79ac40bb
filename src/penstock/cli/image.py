"""``penstock image``: the commands around base images, each imported when it runs.

``penstock image --help`` costs the import of click and of this table.
"""

from __future__ import annotations

from typing import Final

import click

from penstock.cli.main import LazyGroup

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "check": ("image_check", "Say what each base image costs the packages of a lock file."),
    "compare": (
        "image_compare",
        "Put base images side by side: what to compile, build time, size.",
    ),
    "dockerfile": (
        "image_dockerfile",
        "Write a project's Dockerfile, or check the one that is there.",
    ),
    "measure": (
        "image_measure",
        "Build for real, cold and warm: time and size beside what is expected.",
    ),
    "strip": ("image_strip", "Take the debug symbols out of an installed prefix, safely."),
}
"""Each command's module in this room, and its help."""


@click.group(cls=LazyGroup, table=COMMANDS)
def image() -> None:
    """Say what base images cost a lock file; write its Dockerfile."""
