"""``penstock image measure``: what building takes here, beside what was expected.

With docker, podman or buildah the project's Dockerfile is built for real, twice: *cold*, with no
layer from a cache, and *warm*, after a change of one source file, which is what a developer waits
for. With none of them, what the lock file names is downloaded and installed into a clean prefix
by uv, twice: from the index and from its cache. Then the time is that of the dependencies alone,
and the report says so.

Nothing of the project is changed: the build gets a copy of it. Everything that was made is
removed, also when it is interrupted. Nothing is compiled without an engine: that would run a
package's own code outside a container.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from penstock.errors import ImageError
from penstock.image.check import Wish, check
from penstock.image.files import plain
from penstock.image.model import Verdict
from penstock.image.report import TargetReport
from penstock.image.strip import strip_prefix

ENGINES: Final = ("docker", "podman", "buildah")
BUILD_SECONDS_MAX: Final = 3600
ASK_SECONDS_MAX: Final = 120
COPY_BYTES_MAX: Final = 2 * 2**30
TAIL_LINES: Final = 40

_COLD: Final = (
    "cold takes no layer from a cache; downloads that the Dockerfile keeps in cache mounts, and "
    "base images that are here already, count as there"
)
_NO_ENGINE: Final = (
    "no docker, podman or buildah works here, so no image was built: these are the downloads and "
    "the installation of the dependencies alone"
)

Progress = Callable[[str], None]
"""Told in a few words what is going on."""


class Round(msgspec.Struct, frozen=True):
    """One build or installation: seconds by the clock."""

    name: str
    wall_seconds: float


class Expected(msgspec.Struct, frozen=True):
    """What ``check`` expects for the same packages, as far as it knows.

    Of so many ``download_missing`` and ``unpacked_missing`` the size is not known.
    """

    target: str
    packages: int
    compiled: int
    download_bytes: int
    download_missing: int
    unpacked_bytes: int
    unpacked_missing: int
    compile_cpu_seconds: float


class Measured(msgspec.Struct, frozen=True):
    """What was found. Without an engine ``image_bytes`` is None, with one the others are."""

    engine: str | None
    rounds: tuple[Round, ...]
    expected: Expected
    image_bytes: int | None = None
    installed_bytes: int | None = None
    stripped_bytes: int | None = None
    notes: tuple[str, ...] = ()


def measure(
    wish: Wish,
    project: Path,
    dockerfile: Path,
    engine: str | None,
    secret: Path | None,
    say: Progress,
) -> Measured:
    """Build ``project`` with the engine, or with the first that works.

    ``secret``: certificates that the build gets as the secret ``ca``. Raises ``ImageError`` for a
    build that fails, with the end of its output, and for an engine that is asked for and missing.
    """
    expected = _expected(wish)
    found = _engine(engine)
    if found is None:
        return _install(project, expected, say)
    if not dockerfile.is_file():
        raise ImageError(
            f"{plain(dockerfile)} is not there; `penstock image dockerfile` writes one"
        )
    return _build(found, project, dockerfile, secret, expected, say)


def _expected(wish: Wish) -> TargetReport:
    return check(wish).targets[0]


def _as_expected(report: TargetReport) -> Expected:
    return Expected(
        target=report.target.name,
        packages=len(report.packages),
        compiled=len(report.of(Verdict.COMPILE)),
        download_bytes=report.download_bytes,
        download_missing=report.download_missing,
        unpacked_bytes=report.unpacked_bytes,
        unpacked_missing=report.unpacked_missing,
        compile_cpu_seconds=report.compile_cpu_seconds,
    )


def _engine(wanted: str | None) -> str | None:
    """The first engine that is there and answers; one that was asked for has to."""
    for name in (wanted,) if wanted else ENGINES:
        if shutil.which(name) is None:
            continue
        if _ask([name, "info"]) is not None:
            return name
    if wanted:
        raise ImageError(f"{wanted} is not there, or its `info` fails: is its service running?")
    return None


def _build(
    engine: str,
    project: Path,
    dockerfile: Path,
    secret: Path | None,
    expected: TargetReport,
    say: Progress,
) -> Measured:
    tag = f"penstock-measure-{secrets.token_hex(6)}"
    rounds = []
    with _copy(project) as place:
        shutil.copyfile(dockerfile, place / ".penstock-dockerfile")
        command = [engine, "build", "--file", str(place / ".penstock-dockerfile")]
        if engine == "buildah":
            command[1:2] = ["build", "--layers", "--network", "host"]
        if secret is not None:
            command += ["--secret", f"id=ca,src={secret}"]
        try:
            for name, options in (("cold", ["--no-cache"]), ("warm", list[str]())):
                began = time.monotonic()
                options += ["--tag", f"{tag}:{name}", str(place)]
                _run([*command, *options], place, name, say)
                rounds.append(Round(name, round(time.monotonic() - began, 2)))
                _change_a_source(place)
            size = _image_bytes(engine, f"{tag}:warm")
        finally:
            # The later one first: an engine removes with it what it alone was built on.
            for name in ("warm", "cold"):
                _ask([engine, "rmi", "--force", f"{tag}:{name}"])
    return Measured(
        engine=engine,
        rounds=tuple(rounds),
        expected=_as_expected(expected),
        image_bytes=size,
        notes=(_COLD,),
    )


@contextlib.contextmanager
def _copy(project: Path) -> Iterator[Path]:
    """A copy of the project without what no build wants, removed afterwards."""
    total = 0

    def ignored(folder: str, names: list[str]) -> set[str]:
        nonlocal total
        left = {name for name in names if name in {".git", ".venv", "node_modules", "__pycache__"}}
        for name in set(names) - left:
            path = Path(folder, name)
            total += path.lstat().st_size
            if not (path.is_dir() or path.is_file()):
                left.add(name)  # A pipe or a socket, which would be read for ever.
        if total > COPY_BYTES_MAX:
            raise ImageError(
                f"{plain(project)} has more than {COPY_BYTES_MAX >> 30} GiB, which is copied for "
                "the build; name the directory that is the build's context"
            )
        return left

    with tempfile.TemporaryDirectory(prefix="penstock-measure-") as name:
        place = Path(name, "context")
        shutil.copytree(project, place, symlinks=True, ignore=ignored)
        yield place


def _change_a_source(place: Path) -> None:
    """Add an empty comment to the first Python file that is not of a virtual environment."""
    for path in sorted(place.rglob("*.py")):
        if path.is_file() and not path.is_symlink():
            with path.open("a", encoding="utf-8") as file:
                file.write("\n#\n")
            return


def _ask(command: list[str]) -> str | None:
    """What a short command says on stdout; None when it fails."""
    try:
        done = subprocess.run(  # noqa: S603 - an engine by its name, arguments of our own
            command, capture_output=True, text=True, timeout=ASK_SECONDS_MAX, check=False
        )
    except subprocess.TimeoutExpired:
        return None
    return done.stdout if done.returncode == 0 else None


def _run(command: list[str], place: Path, name: str, say: Progress) -> None:
    """Run a command in a group of its own, bounded in time; its lines go to ``say``."""
    tail: list[str] = []
    with subprocess.Popen(  # noqa: S603 - an engine or uv by its name, arguments of our own
        command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", start_new_session=True,
        env={**os.environ, "DOCKER_BUILDKIT": "1", "BUILDKIT_PROGRESS": "plain"},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        limit = threading.Timer(BUILD_SECONDS_MAX, _kill, [process.pid])
        limit.start()
        try:
            for line in process.stdout:
                tail = [*tail[1 - TAIL_LINES :], plain(line.rstrip())]
                say(f"{name}: {plain(line.strip())[:60]}")
            code = process.wait()
        except BaseException:
            _kill(process.pid)
            raise
        finally:
            limit.cancel()
    if code:
        raise ImageError(
            f"`{Path(command[0]).name} {command[1]}` failed (after {BUILD_SECONDS_MAX} s it is "
            "stopped):\n" + "\n".join(tail)
        )


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


_SIZE: Final = re.compile(r"([\d.]+)\s*([kMGT]?)B")


def _image_bytes(engine: str, tag: str) -> int | None:
    command = [engine, "image", "inspect", "--format", "{{.Size}}", tag]
    if engine == "buildah":
        command = [engine, "images", "--format", "{{.Size}}", tag]
    words = (_ask(command) or "").strip()
    if words.isdecimal():
        return int(words)
    match = _SIZE.match(words)
    powers = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
    return round(float(match[1]) * powers[match[2]]) if match else None


def _install(project: Path, expected: TargetReport, say: Progress) -> Measured:
    """Without an engine: the dependencies into a clean prefix, from the index and from a cache."""
    uv = shutil.which("uv")
    if uv is None:
        raise ImageError(
            "neither docker, podman, buildah nor uv is here: install one (pip install uv measures "
            "at least the dependencies)"
        )
    notes: tuple[str, ...] = (_NO_ENGINE,)
    wheels = [each for each in expected.packages if each.verdict is not Verdict.COMPILE]
    left = [each.name for each in expected.packages if each.verdict is Verdict.COMPILE]
    if left:
        notes += (f"not compiled, since that would run their code here: {', '.join(left)}",)
    if any(each.version is None for each in wheels):
        raise ImageError("the lock file names no versions; lock them first")
    with tempfile.TemporaryDirectory(prefix="penstock-measure-") as name:
        place = Path(name)
        (place / "list.txt").write_text(
            "".join(f"{each.name}=={each.version}\n" for each in wheels), encoding="utf-8"
        )
        rounds = []
        prefix = place / "prefix"
        for round_name in ("cold", "warm"):
            shutil.rmtree(prefix, ignore_errors=True)
            command = [
                uv, "pip", "install", "--no-deps", "--no-build", "--link-mode", "copy",
                "--cache-dir", str(place / "cache"), "--target", str(prefix),
                "--python-version", expected.target.python.removesuffix("t"),
                "--python-platform", _platform(expected), "--requirement", str(place / "list.txt"),
            ]  # fmt: skip
            began = time.monotonic()
            _run(command, project, round_name, say)
            rounds.append(Round(round_name, round(time.monotonic() - began, 2)))
        say("stripping")
        report = strip_prefix(prefix)
    return Measured(
        engine=None,
        rounds=tuple(rounds),
        expected=_as_expected(expected),
        installed_bytes=report.bytes_before,
        stripped_bytes=report.bytes_after,
        notes=notes,
    )


def _platform(report: TargetReport) -> str:
    """uv's name of a target's platform."""
    target = report.target
    if target.glibc is not None:
        return f"{target.machine}-manylinux_2_{min(target.glibc[1], 40)}"
    return f"{target.machine}-unknown-linux-musl"
