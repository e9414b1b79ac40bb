"""The files that an index lists for a package, and those of one version among them. Pure.

Apart from asking an index, so that a check that asks nobody does not import what asks.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from packaging.version import InvalidVersion, Version

from penstock.image.model import File


class Listed(msgspec.Struct, frozen=True):
    """A file that an index lists, with the version that it is of."""

    version: str
    file: File
    is_yanked: bool = False


def of_version(listed: Sequence[Listed], version: str) -> tuple[File, ...]:
    """The files of one version, however it is spelt."""
    exact = tuple(each.file for each in listed if each.version == version)
    if exact:
        return exact
    wanted = parsed_version(version)
    if wanted is None:
        return ()
    spellings = {each.version for each in listed}
    same = {each for each in spellings if parsed_version(each) == wanted}
    return tuple(each.file for each in listed if each.version in same)


def parsed_version(text: str) -> Version | None:
    """A version; None for what is none."""
    try:
        return Version(text)
    except InvalidVersion:
        return None
