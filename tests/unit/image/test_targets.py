"""Targets take the wheels that pip and uv would take on them, whatever machine asks."""

from __future__ import annotations

import pytest

from penstock.errors import ImageError
from penstock.image.targets import base_names, platforms, pythons, tags, target


def test_a_glibc_takes_every_older_manylinux_under_all_its_names() -> None:
    found = platforms(target("bookworm", "amd64", "3.11"))

    assert found[0] == "manylinux_2_36_x86_64"
    assert found[-1] == "linux_x86_64"
    assert found.index("manylinux2014_x86_64") == found.index("manylinux_2_17_x86_64") + 1
    assert "manylinux1_x86_64" in found
    assert "manylinux_2_37_x86_64" not in found


def test_no_wheel_for_arm_is_older_than_manylinux2014() -> None:
    found = platforms(target("slim", "linux/arm64", "3.13"))

    assert found[-3:] == ["manylinux_2_17_aarch64", "manylinux2014_aarch64", "linux_aarch64"]


def test_alpine_takes_musllinux_alone() -> None:
    assert platforms(target("alpine", "amd64", "3.13")) == [
        "musllinux_1_2_x86_64",
        "musllinux_1_1_x86_64",
        "musllinux_1_0_x86_64",
        "linux_x86_64",
    ]


def test_a_python_without_the_global_lock_takes_no_abi3() -> None:
    locked, free = (tags(target("slim", "amd64", python)) for python in ("3.13", "3.13t"))

    assert "cp39-abi3-manylinux_2_17_x86_64" in locked
    assert "cp39-abi3-manylinux_2_17_x86_64" not in free
    assert "cp313-cp313t-manylinux_2_17_x86_64" in free
    assert "cp313-cp313-manylinux_2_17_x86_64" not in free
    assert "py3-none-any" in free


def test_the_newest_tag_is_the_best() -> None:
    places = tags(target("slim", "amd64", "3.13"))

    assert places["cp313-cp313-manylinux_2_28_x86_64"] < places["cp313-cp313-manylinux_2_17_x86_64"]
    assert places["cp313-cp313-manylinux_2_17_x86_64"] < places["py3-none-any"]


def test_a_family_means_its_newest_release() -> None:
    assert base_names("alpine") == "alpine3.24"
    assert base_names("slim") == "slim-trixie"
    assert base_names("bookworm") == "debian-bookworm"


@pytest.mark.parametrize(
    "names",
    [("nope\x1b[31m", "amd64", "3.13"), ("slim", "riscv64", "3.13"), ("slim", "amd64", "3.99")],
)
def test_what_is_not_known_is_refused_with_what_is(names: tuple[str, str, str]) -> None:
    with pytest.raises(ImageError, match="there are") as caught:
        target(*names)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("python", pythons())
def test_every_python_has_tags_and_markers(python: str) -> None:
    where = target("wolfi", "arm64", python)

    assert len(tags(where)) > 100
    assert where.environment()["python_full_version"].startswith(where.python.removesuffix("t"))
    assert where.environment()["platform_machine"] == "aarch64"
