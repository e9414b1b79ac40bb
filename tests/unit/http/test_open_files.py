"""The limit of open files is raised as far as connections need it and the system lets us."""

from __future__ import annotations

import resource

import pytest

from penstock.http.open_files import FILES_BESIDE, raise_open_files


@pytest.mark.parametrize(
    ("soft", "hard", "raised_to", "is_enough"),
    [
        (1024, 1_048_576, 4000 + FILES_BESIDE, True),
        (1024, resource.RLIM_INFINITY, 4000 + FILES_BESIDE, True),
        (1024, 2048, 2048, False),
        (8192, 8192, None, True),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, None, True),
    ],
)
def test_it_is_raised_to_what_is_needed_or_allowed(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, raised_to: int | None, is_enough: bool
) -> None:
    made: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: made.append(limits))

    told = raise_open_files(4000)

    assert made == ([] if raised_to is None else [(raised_to, hard)])
    assert (told is None) == is_enough
    assert told is None or "2048 open files" in told


def test_a_system_with_a_bound_of_its_own_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int, limits: tuple[int, int]) -> None:
        raise ValueError(limits)

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)

    assert "256 open files" in (raise_open_files(4000) or "")
