"""Writers and readers of one file, closed at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.store.reader import Reader
from penstock.store.writer import Writer


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the database is to be."""
    return tmp_path / "store" / "penstock.db"


@pytest.fixture
def writer(file: Path) -> Iterator[Writer]:
    """The writer of that database."""
    writer = Writer(file)
    yield writer
    writer.close()


@pytest.fixture
def readers(file: Path) -> Iterator[Callable[..., Reader]]:
    """Makes readers of that database."""
    made: list[Reader] = []

    def make(**options: float) -> Reader:
        made.append(Reader(file, **options))
        return made[-1]

    yield make
    for reader in made:
        reader.close()
