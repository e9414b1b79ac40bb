"""Stripping a prefix changes objects in it, tells their packages, and touches nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httptools
import pytest

from penstock.cli.main import run
from penstock.errors import ImageError
from penstock.image import strip
from penstock.image.strip import strip_prefix

OBJECT = "lib/python3/site-packages/fast/_speed.so"


@pytest.fixture
def unstripped(installed_objects: Callable[[str], list[Path]]) -> bytes:
    """An extension module as its wheel brought it, debug information included."""
    return installed_objects("httptools")[0].read_bytes()


@pytest.fixture
def prefix(tmp_path: Path, unstripped: bytes) -> Path:
    """An installation with one package, whose RECORD lists an object and a source."""
    root = tmp_path / "prefix"
    for name, content in {
        OBJECT: unstripped,
        "lib/python3/site-packages/fast/__init__.py": b"x = 1\n",
        "lib/python3/site-packages/fast.libs/libvendored.so": unstripped,
        "lib/python3/site-packages/fast-1.dist-info/RECORD": (
            b"fast/_speed.so,sha256=old,1\r\nfast/__init__.py,sha256=keep,6\r\n"
            b'"fast/a,b.txt",,\r\nfast-1.dist-info/RECORD,,\r\n'
        ),
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def test_an_object_shrinks_and_its_record_is_true(prefix: Path, unstripped: bytes) -> None:
    (prefix / OBJECT).chmod(0o755)

    report = strip_prefix(prefix)

    after = (prefix / OBJECT).read_bytes()
    digest = base64.urlsafe_b64encode(hashlib.sha256(after).digest()).decode().rstrip("=")
    record = (prefix / "lib/python3/site-packages/fast-1.dist-info/RECORD").read_bytes()
    assert report.stripped == {OBJECT: (len(unstripped), len(after))}
    assert report.bytes_before - report.bytes_after == len(unstripped) - len(after) > 0
    assert (report.files, report.objects, report.records) == (4, 1, 1)
    assert (prefix / OBJECT).stat().st_mode & 0o777 == 0o755
    assert record.decode() == (
        f"fast/_speed.so,sha256={digest},{len(after)}\r\nfast/__init__.py,sha256=keep,6\r\n"
        '"fast/a,b.txt",,\r\nfast-1.dist-info/RECORD,,\r\n'
    )
    assert list(prefix.rglob(".penstock-*")) == []


def test_what_was_vendored_is_left_alone(prefix: Path, unstripped: bytes) -> None:
    strip_prefix(prefix)

    vendored = prefix / "lib/python3/site-packages/fast.libs/libvendored.so"
    assert vendored.read_bytes() == unstripped


def test_a_second_run_changes_nothing(prefix: Path) -> None:
    strip_prefix(prefix)
    before = {path: path.stat().st_ino for path in prefix.rglob("*")}

    report = strip_prefix(prefix)

    assert (report.stripped, report.records) == ({}, 0)
    assert before == {path: path.stat().st_ino for path in prefix.rglob("*")}


def test_a_dry_run_counts_and_writes_nothing(prefix: Path, unstripped: bytes) -> None:
    report = strip_prefix(prefix, dry_run=True)

    assert report.bytes_after < report.bytes_before
    assert (prefix / OBJECT).read_bytes() == unstripped
    assert strip_prefix(prefix).bytes_after - report.bytes_after < 200  # the RECORD's own size


def test_an_installers_cache_behind_a_hard_link_keeps_what_it_has(
    prefix: Path, tmp_path: Path, unstripped: bytes
) -> None:
    (tmp_path / "cache.so").hardlink_to(prefix / OBJECT)

    strip_prefix(prefix)

    assert (tmp_path / "cache.so").read_bytes() == unstripped


@pytest.mark.parametrize("is_dry", [False, True])
def test_hard_links_within_the_prefix_stay_one_file(prefix: Path, is_dry: bool) -> None:
    twin = prefix / "lib/zz_twin.so"
    twin.hardlink_to(prefix / OBJECT)

    report = strip_prefix(prefix, dry_run=is_dry)

    assert twin.samefile(prefix / OBJECT)
    assert len(report.stripped) == 1


def test_links_that_lead_out_of_the_prefix_are_not_followed(
    prefix: Path, tmp_path: Path, unstripped: bytes
) -> None:
    outside = tmp_path / "outside"
    (outside / "other.dist-info").mkdir(parents=True)
    (outside / "other.so").write_bytes(unstripped)
    (outside / "other.dist-info/RECORD").write_bytes(b"../prefix/" + OBJECT.encode() + b",a,1\n")
    (prefix / "folder").symlink_to(outside)
    (prefix / "file.so").symlink_to(outside / "other.so")
    (prefix / "other.dist-info").symlink_to(outside / "other.dist-info")

    strip_prefix(prefix)

    assert (outside / "other.so").read_bytes() == unstripped
    assert (outside / "other.dist-info/RECORD").read_bytes().endswith(b",a,1\n")
    assert (prefix / "file.so").is_symlink()


def test_a_check_that_fails_leaves_the_original(
    prefix: Path, unstripped: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that gives back something else than was written is found before it matters."""
    answers = iter([[], ["another content of the segment at 0x0"]])
    monkeypatch.setattr(strip, "differences", lambda before, after: next(answers))

    report = strip_prefix(prefix)

    assert "another content" in report.left[OBJECT]
    assert (prefix / OBJECT).read_bytes() == unstripped
    assert list(prefix.rglob(".penstock-*")) == []


def test_a_full_disk_leaves_the_original_and_is_told(
    prefix: Path, unstripped: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(strip.tempfile, "mkstemp", full)

    assert strip_prefix(prefix).failed == {OBJECT: "No space left on device"}
    assert (prefix / OBJECT).read_bytes() == unstripped


@pytest.mark.parametrize(("place", "rule"), [("missing", "no directory"), ("/", "whole file")])
def test_a_prefix_that_is_none_is_refused(tmp_path: Path, place: str, rule: str) -> None:
    with pytest.raises(ImageError, match=rule):
        strip_prefix(tmp_path / place)


def test_an_object_that_is_none_is_left_and_named(prefix: Path) -> None:
    (prefix / "broken.so").write_bytes(b"\x7fELF" + os.urandom(200))

    assert "broken.so" in strip_prefix(prefix).left


def test_a_stripped_package_still_imports(tmp_path: Path) -> None:
    """A real package, used in a process that sees no other copy of it."""
    shutil.copytree(Path(httptools.__file__).parent, tmp_path / "httptools")

    report = strip_prefix(tmp_path)
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import httptools; "
        "print(httptools.__file__, httptools.parse_url(b'http://a/b').path)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )

    assert report.stripped
    assert done.stdout.split() == [str(tmp_path / "httptools/__init__.py"), "b'/b'"]


def test_the_command_reports_bytes(prefix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["image", "strip", str(prefix), "--json"]) == 0

    data = json.loads(capsys.readouterr().out)
    assert data["stripped"][OBJECT]["bytes_after"] < data["stripped"][OBJECT]["bytes_before"]
    assert run(["image", "strip", str(prefix)]) == 0
    assert "0 of 1 objects were stripped" in capsys.readouterr().out
    assert run(["image", "strip", str(prefix / "nowhere")]) == 2
