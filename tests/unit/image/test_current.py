"""The base that a project has now is that of its Dockerfile's last stage."""

from __future__ import annotations

import pytest

from penstock.image.current import of_dockerfile, of_image


@pytest.mark.parametrize(
    ("image", "base", "python"),
    [
        ("python:3.11-alpine", "alpine3.24", "3.11"),
        ("python:3.11.4-alpine3.17", "alpine3.17", "3.11"),
        ("docker.io/library/python:3.13-slim-bookworm@sha256:0", "slim-bookworm", "3.13"),
        ("python:3.12", "debian-trixie", "3.12"),
        ("python", "debian-trixie", None),
        ("python:slim", "slim-trixie", None),
        ("gcr.io/distroless/python3-debian12:nonroot", "distroless-debian12", "3.11"),
        ("cgr.dev/chainguard/python:latest-dev", "wolfi", None),
    ],
)
def test_an_image_says_its_base_and_its_python(image: str, base: str, python: str | None) -> None:
    found = of_image(image)

    assert found is not None
    assert (found.base, found.python) == (base, python)


@pytest.mark.parametrize("image", ["ubuntu:24.04", "$BASE", "python:3.11-windowsservercore"])
def test_another_image_is_no_answer(image: str) -> None:
    assert of_image(image) is None


def test_stages_are_followed_to_where_they_begin() -> None:
    text = "FROM python:3.12-slim AS base\nRUN x\nFROM --platform=linux/amd64 base as last\n"
    found = of_dockerfile(text)

    assert found is not None
    assert found.base == "slim-trixie"
    assert of_dockerfile("FROM a AS b\nFROM b AS a\nFROM a\n") is None
    assert of_dockerfile("") is None
