"""What an index says of a package: its files. Read by ``pypi_simple``, which knows the formats."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from penstock.errors import ImageError
from penstock.image.indexes import Index
from penstock.image.listed import Listed
from penstock.image.locks.parts import FILENAME, is_sdist
from penstock.image.model import File
from penstock.image.network import PAGE_BYTES_MAX, Network, Unanswered

FILES_MAX: Final = 50_000
"""The longest lists have some 10,000 files. Reading this many takes 1.5 s of CPU."""
HTML_BYTES_MAX: Final = 8 * 1024 * 1024
TAGS_MAX: Final = 4 * FILES_MAX
"""Of HTML: a link costs 60 µs and 5 kB, so 64 MiB of them would cost minutes and gigabytes."""


def library() -> Any:
    """``pypi_simple``; raises ``ImageError`` where it is not installed. It costs 0.7 s of CPU."""
    try:
        import pypi_simple  # noqa: PLC0415 - late, and an extra
    except ModuleNotFoundError:
        raise ImageError(
            "asking a package index needs pypi-simple: install penstock[image], or use --offline"
        ) from None
    return pypi_simple


async def ask(network: Network, index: Index, name: str) -> tuple[Listed, ...] | None:
    """Every file of a package at an index; None where the index does not have the package.

    Raises ``Unanswered`` where it does not answer.
    """
    reader = library()
    base = index.url or reader.PYPI_SIMPLE_ENDPOINT
    url = f"{base}{name}/"
    answer = await network.get(url, accept=reader.ACCEPT_ANY, bytes_max=PAGE_BYTES_MAX)
    if answer.status == 404:
        return None
    if answer.status in {401, 403}:
        raise Unanswered(f"it refuses with {answer.status}: a login is needed, or another one")
    if answer.status != 200:
        raise Unanswered(f"status {answer.status}")
    try:
        if "json" in answer.content_type:
            document = msgspec.json.decode(answer.body)
            if len(document["files"]) > FILES_MAX:
                raise Unanswered(f"more than {FILES_MAX} files")
            page = reader.ProjectPage.from_json_data(document, base_url=answer.url)
        else:
            if len(answer.body) > HTML_BYTES_MAX or answer.body.count(b"<") > TAGS_MAX:
                raise Unanswered(
                    f"HTML with more than {HTML_BYTES_MAX >> 20} MiB or {TAGS_MAX} tags"
                )
            text = answer.body.decode("utf-8", "replace")
            page = reader.ProjectPage.from_html(name, text, base_url=answer.url)
    except (ValueError, TypeError, KeyError, RecursionError, reader.UnsupportedRepoVersionError):
        raise Unanswered("a page that is none of a package index") from None
    return tuple(_listed(each) for each in page.packages if _is_wanted(each))


def _is_wanted(package: Any) -> bool:
    name = package.filename
    if package.version is None or FILENAME.fullmatch(name) is None:
        return False
    return name.endswith(".whl") or is_sdist(name)


def _listed(package: Any) -> Listed:
    uploaded = package.upload_time
    return Listed(
        package.version,
        File(
            filename=package.filename,
            url=package.url,
            sha256=package.digests.get("sha256"),
            bytes=package.size,
            uploaded=uploaded.isoformat() if uploaded is not None else None,
            requires_python=package.requires_python,
        ),
        bool(package.is_yanked),
    )
