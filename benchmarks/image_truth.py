"""Whether `penstock image check` says what uv answers: every package, on every target.

    ./dev run python benchmarks/image_truth.py DIRECTORY [--python 3.11,3.14t] [--installs]

DIRECTORY holds projects, each a directory with a lock file. For each of them and each target this
asks `penstock image check` for its verdicts, and uv whether it finds a wheel: what is called pure
or prebuilt must install with ``--only-binary :all:`` for that platform, all at once; what is called
compile or impossible must not, one by one. ``--installs`` also compares unpacked sizes with an
actual install. uv takes no free-threaded Python but one that is there, so for these pip is asked,
which takes an ABI by its name. It needs the network, uv and pip (25 or newer, of the Python that
``--pip`` names); it prints each difference and exits 1 if there is one.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from penstock.image.cache import place
from penstock.image.check import Wish, check
from penstock.image.model import Judged, Verdict
from penstock.image.report import TargetReport
from penstock.image.targets import Target, platforms

PLATFORMS = {
    ("slim", "amd64"): "x86_64-manylinux_2_40",
    ("slim", "arm64"): "aarch64-manylinux_2_40",
    ("alpine", "amd64"): "x86_64-unknown-linux-musl",
    ("alpine", "arm64"): "aarch64-unknown-linux-musl",
}
"""uv's names. It knows glibc up to 2.40, Debian 13 has 2.41: no wheel asks for that yet."""
INSTALLABLE = {Verdict.PURE, Verdict.PREBUILT}


def uv(arguments: list[str], requirements: str) -> subprocess.CompletedProcess[str]:
    """Ask uv with these requirements, away from any project."""
    with tempfile.TemporaryDirectory() as name:
        command = ["uv", "pip", "install", "--no-config", "--no-deps", "--only-binary", ":all:"]
        return subprocess.run(
            [*command, *arguments, "--requirements", "-"],
            input=requirements,
            cwd=name,
            capture_output=True,
            text=True,
            check=False,
        )


def pip(where: Target, packages: list[Judged], python: str) -> str:
    """What pip says of these packages on a free-threaded target; empty where all are found."""
    plain = where.python.removesuffix("t")
    abi = f"cp{plain.replace('.', '')}t"
    command = [python, "-m", "pip", "--isolated", "install", "--dry-run", "--quiet", "--no-deps"]
    command += ["--ignore-installed", "--only-binary=:all:", "--implementation", "cp", "--abi", abi]
    # pip reads a manylinux tag as that one alone, so every one that the target takes is named.
    command += ["--python-version", where.python_full]
    command += [word for each in platforms(where) for word in ("--platform", each)]
    lines = [f"{each.name}=={each.version}" for each in packages]
    with tempfile.TemporaryDirectory() as prefix:
        done = subprocess.run(
            [*command, "--target", prefix, *lines], capture_output=True, text=True, check=False
        )
    return "" if done.returncode == 0 else done.stderr.strip() or "failed"


def asked(report: TargetReport, packages: list[Judged], python: str, *arguments: str) -> str:
    """What uv says of these packages on the report's target; empty where all are found."""
    where = report.target
    if where.is_free_threaded:
        return pip(where, packages, python)
    lines = "\n".join(f"{each.name}=={each.version}" for each in packages)
    platform = PLATFORMS[where.family, where.platform]
    options = ["--python-platform", platform, "--python-version", where.python_full]
    with tempfile.TemporaryDirectory() as prefix:
        done = uv([*options, "--target", prefix, *(arguments or ["--dry-run"])], lines)
        if done.returncode != 0:
            return done.stderr.strip() or "failed"
        if arguments:
            size = sum(path.stat().st_size for path in Path(prefix).rglob("*") if path.is_file())
            stated = report.unpacked_bytes
            print(f"    installed {size}, said {stated}: {stated / size - 1:+.3%}")
            return "" if abs(stated / size - 1) <= 0.01 else "sizes differ by more than 1 %"
    return ""


def differences(report: TargetReport, python: str, *, installs: bool) -> list[str]:
    """Where uv and the report say different things."""
    known = [each for each in report.packages if each.version is not None]
    fine = [each for each in known if each.verdict in INSTALLABLE]
    found: list[str] = []
    if fine and (words := asked(report, fine, python)):
        found.append(f"the installer does not find all of what is called installable: {words}")
    for each in known:
        is_hard = each.verdict in {Verdict.COMPILE, Verdict.IMPOSSIBLE}
        if is_hard and not asked(report, [each], python):
            found.append(
                f"the installer finds a wheel of {each.name} {each.version}: {each.reason}"
            )
    installs = installs and not report.target.is_free_threaded and not report.unpacked_missing
    if installs and fine and (words := asked(report, fine, python, "-q")):
        found.append(words)
    return found


def main() -> int:
    """Compare all projects below the directory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--python", default="3.11,3.13")
    parser.add_argument("--pip", default=sys.executable, help="a Python that has pip")
    parser.add_argument("--installs", action="store_true")
    options = parser.parse_args()
    projects = sorted(each for each in options.directory.iterdir() if each.is_dir())
    packages = differing = 0
    for project in projects:
        wish = Wish(
            project=project,
            bases=("slim", "alpine"),
            platforms=("amd64", "arm64"),
            pythons=tuple(options.python.split(",")),
            cache=place(os.environ),
            now=time.time(),
            environment=dict(os.environ),
        )
        report = check(wish)
        for each in report.targets:
            if each.excluded is not None:  # such a lock names no files for this Python
                print(f"{project.name} {report.format} {each.target.name} {each.excluded}")
                continue
            packages += len(each.packages)
            counts = " ".join(f"{verdict}:{len(each.of(verdict))}" for verdict in Verdict)
            found = differences(each, options.pip, installs=options.installs)
            differing += len(found)
            print(f"{project.name} {report.format} {each.target.name} {counts}", flush=True)
            for words in found:
                print(f"    DIFFERS: {words}")
    print(f"{packages} verdicts of {len(projects)} lock files, {differing} differences")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
