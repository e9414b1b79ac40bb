"""A check against an index on this machine: sizes, logins, and what does not answer."""

from __future__ import annotations

import base64
import hashlib
import http.server
import io
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.image.check import Wish, check
from penstock.image.forms import json_document
from penstock.image.model import Verdict
from penstock.image.report import Report


def wheel(size: int) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("a/__init__.py", b"#" * size)
    return content.getvalue()


FILES = {
    "a-1.0-py3-none-any.whl": wheel(100_000),
    "n-1.0-cp311-cp311-manylinux_2_17_x86_64.whl": wheel(200_000),
    "n-2.0-cp311-cp311-musllinux_1_2_x86_64.whl": wheel(10),
    "n-1.0.tar.gz": b"not an archive",
}


class Handler(http.server.BaseHTTPRequestHandler):
    """An index in HTML, with range requests and, where ``login`` is set, a login."""

    login = ""
    has_ranges = True
    elsewhere = ""
    seen: list[str] = []  # noqa: RUF012 - one for each test, set by the fixture

    def do_GET(self) -> None:
        self.seen.append(f"{self.path} {self.headers.get('Authorization', '')}".strip())
        wanted = f"Basic {base64.b64encode(self.login.encode()).decode()}" if self.login else None
        name = self.path.strip("/").rpartition("/")[2]
        if self.elsewhere and self.path.startswith("/files/"):
            self.answer(302, b"", ("Location", self.elsewhere))
        elif wanted is not None and self.headers.get("Authorization") != wanted:
            self.answer(401, b"no")
        elif self.path.startswith("/simple/") and any(f.startswith(f"{name}-") for f in FILES):
            links = "".join(
                f'<a href="/files/{file}#sha256={digest(file)}">{file}</a>'
                for file in FILES
                if file.startswith(f"{name}-")
            )
            self.answer(200, f"<!DOCTYPE html><html><body>{links}</body></html>".encode())
        elif self.path.startswith("/files/") and name in FILES:
            self.file(FILES[name])
        else:
            self.answer(404, b"no")

    def file(self, content: bytes) -> None:
        span = self.headers.get("Range", "")
        if not span or not self.has_ranges:
            self.answer(200, content)
            return
        first, _, last = span.removeprefix("bytes=").partition("-")
        start = int(first) if first else max(0, len(content) - int(last))
        end = int(last) + 1 if first and last else len(content)
        total = f"bytes {start}-{end - 1}/{len(content)}"
        self.answer(206, content[start:end], ("Content-Range", total))

    def answer(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", "text/html"),
            ("Content-Length", str(len(body))),
            *headers,
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - its name there
        """Say nothing."""


def digest(file: str) -> str:
    return hashlib.sha256(FILES[file]).hexdigest()


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an index, without its scheme."""
    monkeypatch.setattr(Handler, "seen", [])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"127.0.0.1:{server.server_port}/simple/"
    server.shutdown()
    thread.join()
    server.server_close()


def judged(project: Path, cache: Path | None = None) -> Report:
    return check(Wish(project, ("slim", "alpine"), ("amd64",), ("3.11",), cache=cache, now=1e9))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    place = tmp_path / "project"
    place.mkdir()
    return place


def test_requirements_are_judged_by_the_files_of_the_index(
    project: Path, index: str, tmp_path: Path
) -> None:
    (project / "requirements.txt").write_text(f"--index-url http://{index}\na==1.0\nn==1\n")
    slim, alpine = judged(project, tmp_path / "cache").targets
    asked = len(Handler.seen)
    again = judged(project, tmp_path / "cache")

    assert [each.verdict for each in slim.packages] == [Verdict.PURE, Verdict.PREBUILT]
    assert [each.unpacked_bytes for each in slim.packages] == [100_000, 200_000]
    assert [each.verdict for each in alpine.packages] == [Verdict.PURE, Verdict.COMPILE]
    changes = alpine.packages[1].changes
    assert changes is not None
    assert (changes.newer, changes.older) == ("2.0", None)
    assert [each.packages for each in again.targets] == [slim.packages, alpine.packages]
    assert [line for line in Handler.seen[asked:] if not line.endswith(".tar.gz")] == []


def test_a_login_goes_to_its_index_and_into_no_output(
    project: Path, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Handler, "login", "me:s3cret")
    (project / "requirements.txt").write_text(f"-i http://me:s3cret@{index}\na==1.0\nb==1\n")
    report = judged(project)

    assert report.targets[0].packages[0].unpacked_bytes == 100_000
    assert "s3cret" not in str(json_document(report))
    assert report.targets[0].packages[1].verdict is Verdict.UNKNOWN


def test_an_index_that_refuses_leaves_the_package_unknown_with_the_reason(
    project: Path, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Handler, "login", "me:s3cret")
    (project / "requirements.txt").write_text(f"-i http://me:wrong@{index}\na==1.0\n")
    [package] = judged(project).targets[0].packages

    assert package.verdict is Verdict.UNKNOWN
    assert "it refuses with 401" in package.reason
    assert "wrong" not in package.reason


def test_without_range_requests_a_large_wheel_has_no_size(
    project: Path, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Handler, "has_ranges", False)
    monkeypatch.setitem(FILES, "a-1.0-py3-none-any.whl", wheel(1_000_000))
    (project / "requirements.txt").write_text(f"-i http://{index}\na==1.0\n")
    report = judged(project)

    assert report.targets[0].packages[0].verdict is Verdict.PURE
    assert report.targets[0].packages[0].unpacked_bytes is None
    assert any("no range requests" in note for note in report.notes)


def test_a_lock_cannot_make_it_ask_this_machine(project: Path, index: str) -> None:
    """Only an index that is configured may be on a number; the address of a file may not."""
    address = f"http://{index.partition('/')[0]}/files/a-1.0-py3-none-any.whl"
    (project / "uv.lock").write_text(
        "version = 1\n[[package]]\nname = 'demo'\nsource = {virtual = '.'}\n"
        "dependencies = [{name = 'a'}]\n[[package]]\nname = 'a'\nversion = '1.0'\n"
        f"source = {{registry = 'https://index.test/simple'}}\nwheels = [{{url = '{address}'}}]\n"
    )
    report = judged(project)

    assert report.targets[0].packages[0].verdict is Verdict.PURE
    assert Handler.seen == []


@pytest.mark.parametrize(
    "there",
    ["http://127.0.0.1:9/a.whl", "https://169.254.169.254/a.whl", "https://[::1]/a.whl",
     "http://files.example/a.whl", "file:///etc/passwd"],
)  # fmt: skip
def test_a_redirect_into_a_private_network_or_to_plain_http_is_not_followed(
    project: Path, index: str, monkeypatch: pytest.MonkeyPatch, there: str
) -> None:
    monkeypatch.setattr(Handler, "elsewhere", there)
    (project / "requirements.txt").write_text(f"-i http://{index}\na==1.0\n")
    report = judged(project)

    assert report.targets[0].packages[0].unpacked_bytes is None
    assert any("a redirect to where nothing is asked" in note for note in report.notes)


def test_a_page_of_a_million_links_is_refused_before_it_is_parsed(
    project: Path, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.image.index.TAGS_MAX", 5)
    (project / "requirements.txt").write_text(f"-i http://{index}\na==1.0\n")
    [package] = judged(project).targets[0].packages

    assert package.verdict is Verdict.UNKNOWN
    assert "5 tags" in package.reason


def test_an_answer_without_end_is_read_up_to_a_bound(
    project: Path, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.image.index.PAGE_BYTES_MAX", 20)
    (project / "requirements.txt").write_text(f"-i http://{index}\na==1.0\n")
    [package] = judged(project).targets[0].packages

    assert "the index could not be asked: more than" in package.reason
