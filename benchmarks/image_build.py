#!/usr/bin/env python3
"""Builds our own image and that of the examples for real, and looks into them.

    sudo benchmarks/image_build.py [--json]        (Debian or Ubuntu; about 10 minutes)

No registry of images is asked. buildah builds (``apt install buildah mmdebstrap``; chroot
isolation, so it works in a container, too), on a base that mmdebstrap makes of Debian's packages
and that stands in for ``python:3.13-slim-trixie``: Debian's own Python 3.13, 181 MB where the
official image has 126. Its time and size are therefore not in the figures: they are those of what
the Dockerfile adds.

For each image:

cold     no layer and no package is there yet: everything is downloaded from the index. What the
         step that installs the dependencies takes is told apart. Seconds by the clock say
         little on a machine that does other things; seconds of CPU are beside them.
warm     a source has changed: what does not depend on it must come from the cache.
size     of the dependencies in the image, and of everything above the base.
imports  every top-level module of every installed package, in the built image.
service  the built image is started as it says itself, as docs/deploy.md tells docker to: its root
         mounted read-only, /data and /tmp alone writable, by its own user, without capabilities.
         It has to answer its health check, and a call with the key that it was given.

Everything lies in ``.dev/image-build`` and is removed at the end, but for the base (60 MB).
The exit code is 0 if all imports worked and the service answered.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / ".dev" / "image-build"
BASE = "docker.io/library/python:3.13-slim-trixie"
BASE_PACKAGES = "python3.13,python3-pip,ca-certificates,netbase,tzdata"
CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
SECONDS_MAX = 1800
STEP = re.compile(r"^(?:\[(\d+)/\d+\] )?STEP (\d+)/\d+: (.*)")

BASE_DOCKERFILE = """\
FROM scratch
ADD base.tar.zst /
RUN ln -s /usr/bin/python3.13 /usr/local/bin/python3 && ln -s python3 /usr/local/bin/python && \\
    ln -s /usr/bin/pip3 /usr/local/bin/pip && rm -f /usr/lib/python3*/EXTERNALLY-MANAGED
"""

IMPORTS = Path(__file__).with_name("import_all.py").read_text("utf-8")


def say(text: str) -> None:
    """One line of progress."""
    print(f"image_build: {text}", file=sys.stderr, flush=True)


def buildah(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run buildah with a storage of its own; its output as text."""
    done = subprocess.run(
        [*command(), *arguments],
        capture_output=True, text=True, timeout=SECONDS_MAX, check=False, **options,  # type: ignore[call-overload]
    )  # fmt: skip
    if done.returncode:
        sys.exit(
            f"buildah {' '.join(arguments[:3])} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
        )
    return done


def command() -> list[str]:
    """buildah with this script's own storage. overlay where the kernel lets us, else vfs."""
    driver = os.environ.get("STORAGE_DRIVER", "overlay")
    return [
        "buildah", "--root", str(WORK / "storage"), "--runroot", str(WORK / "run"),
        "--storage-driver", driver,
    ]  # fmt: skip


def make_base() -> None:
    """The stand-in for the official image, made once of Debian's packages."""
    folder = WORK / "base"
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / "base.tar.zst"
    if not archive.exists():
        say("bootstrapping the base from Debian's packages")
        subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={BASE_PACKAGES}", "trixie",
             str(folder / "new.tar.zst")],
            check=True, timeout=SECONDS_MAX,
        )  # fmt: skip
        (folder / "new.tar.zst").rename(archive)
    (folder / "Dockerfile").write_text(BASE_DOCKERFILE)
    say("importing the base")
    buildah("bud", "--quiet", "--layers=false", "--tag", BASE, str(folder))


def context() -> Path:
    """A copy of what is tracked, as a fresh clone has it."""
    folder = Path(tempfile.mkdtemp(dir=WORK, prefix="context-"))
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, check=True, text=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    return folder


def build(dockerfile: str, place: Path, tag: str) -> dict[str, object]:
    """One build: wall seconds, CPU seconds, and the same for each step of its first stage."""
    began, cpu = time.monotonic(), os.times()
    secret = ["--secret", f"id=ca,src={CA_BUNDLE}"] if Path(CA_BUNDLE).exists() else []
    process = subprocess.Popen(
        [*command(), "bud", "--layers", "--format", "docker", "--network", "host", *secret,
         "--file", str(place / dockerfile), "--tag", tag, str(place)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    steps: list[tuple[str, float]] = []
    tail: list[str] = []
    cached = 0
    for line in process.stdout:
        tail = [*tail[-60:], line]
        cached += "Using cache" in line
        match = STEP.match(line)
        if match:
            steps.append((match[3], time.monotonic()))
    if process.wait(timeout=60):
        sys.exit(f"the build of {dockerfile} failed:\n{''.join(tail)}")
    ended, cpu_ended = time.monotonic(), os.times()
    times = {
        text: round(after - start, 1)
        for (text, start), (_, after) in zip(steps, [*steps[1:], ("", ended)], strict=True)
    }
    install = next(
        (seconds for text, seconds in times.items() if "strip_symbols.py /app" in text), 0
    )
    return {
        "wall_seconds": round(ended - began, 1),
        "cpu_seconds": round(
            cpu_ended.children_user + cpu_ended.children_system - cpu.children_user
            - cpu.children_system, 1,
        ),
        "dependency_step_seconds": install,
        "steps_from_cache": cached,
        "steps": len(steps),
    }  # fmt: skip


def bytes_of(folder: Path) -> int:
    """Bytes of regular files below a folder."""
    return sum(
        path.lstat().st_size
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    )


def run(container: str, *words: str, **environment: str) -> list[str]:
    """The command line that runs ``words`` in a container, as its image's user."""
    flags = [f"--env={name}={value}" for name, value in environment.items()]
    options = ["--isolation", "chroot", "--network", "host", *flags]
    return [*command(), "run", *options, container, "--", *words]


def look_into(tag: str) -> dict[str, object]:
    """Sizes, imports and the service of a built image."""
    container = buildah("from", tag).stdout.strip()
    base = buildah("from", BASE).stdout.strip()
    mounted = Path(buildah("mount", container).stdout.strip())
    base_bytes = bytes_of(Path(buildah("mount", base).stdout.strip()))
    found: dict[str, object] = {
        "dependencies_bytes": bytes_of(mounted / "app/.venv"),
        "bytecode_bytes": sum(each.stat().st_size for each in mounted.rglob("app/**/*.pyc")),
        "project_bytes": bytes_of(mounted / "app/project"),
        "added_bytes": bytes_of(mounted) - base_bytes,
    }
    done = subprocess.run(
        run(container, "python", "-c", IMPORTS, OPENAI_API_KEY="none"),
        capture_output=True, text=True, timeout=SECONDS_MAX, check=False,
    )  # fmt: skip
    said = (
        json.loads(done.stdout) if done.returncode == 0 else {"imported": 0, "failed": done.stderr}
    )
    found["imports"], found["imports_failed"] = said["imported"], said["failed"]
    found["service"] = serve(container, mounted)
    return found


READ_ONLY = """\
set -e
root=$1 user=${2%%:*}
shift 2
mount --make-rprivate /
mount --bind "$root" "$root"
mount -o remount,ro,bind "$root"
mount -t tmpfs -o mode=1777 none "$root/tmp"
mount -t tmpfs -o uid="$user",gid="$user" none "$root/data"
mount -t proc none "$root/proc"
mount --rbind /dev "$root/dev"
cd /
exec chroot "$root" setpriv --reuid "$user" --regid "$user" --clear-groups \\
    --bounding-set=-all --inh-caps=-all --no-new-privs \\
    sh -c 'if touch /app/x 2>/dev/null; then exit 99; fi; cd "$0" && exec "$@"' "$@"
"""
"""What ``docker run --read-only --tmpfs /tmp --cap-drop ALL`` does, for a mounted image."""


def serve(container: str, mounted: Path) -> dict[str, object]:
    """Start what the image starts; ask for its health and, with the key, for an answer."""
    configuration = json.loads(buildah("inspect", container).stdout)["Docker"]["config"]
    key = secrets.token_hex(24)
    environment = dict(each.split("=", 1) for each in configuration["Env"])
    words = [str(mounted), configuration["User"], configuration["WorkingDir"],
             *configuration["Cmd"], "--port", "18787"]  # fmt: skip
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", *words],
            env=environment | {"PENSTOCK_KEY": key}, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            for _ in range(600):
                if process.poll() is not None or ask("/readyz", key) == 200:
                    break
                time.sleep(0.1)
            ready = round(time.monotonic() - began, 1)
            answers = {
                "health": ask("/healthz", None),
                "models_without_key": ask("/v1/models", None),
                "call": ask("/v1/chat/completions", key, CALL),
            }
            if (mounted / "app/.venv/lib/python3.13/site-packages/spacy").exists():
                answers["chain"] = ask("/chains/keywords/invoke", key, CHAIN)
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
        log.seek(0)
        tail = log.read()[-1500:]
    wanted = {"health": 200, "models_without_key": 401, "call": 200, "chain": 200}
    works = all(wanted[name] == status for name, status in answers.items())
    return {
        "user": configuration["User"], "ready_seconds": ready, **answers, "works": works,
        **({} if works else {"log": tail}),
    }  # fmt: skip


CALL = {"model": "sandbox", "messages": [{"role": "user", "content": "hello"}]}
CHAIN = {"input": {"count": 3, "samples": 50}}


def ask(path: str, key: str | None, body: object = None) -> int:
    """The status of one request; 0 when there is no answer."""
    request = urllib.request.Request(
        f"http://127.0.0.1:18787{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"content-type": "application/json"}
        | ({} if key is None else {"authorization": f"Bearer {key}"}),
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def measure(dockerfile: str, tag: str) -> dict[str, object]:
    """Build cold and warm, and look inside."""
    place = context()
    # Where buildah keeps what `--mount=type=cache` asks for: nobody else's downloads are there.
    shutil.rmtree(WORK / "tmp", ignore_errors=True)
    (WORK / "tmp").mkdir()
    os.environ["TMPDIR"] = str(WORK / "tmp")
    say(f"{dockerfile}: cold")
    cold = build(dockerfile, place, tag)
    with (place / "src/penstock/__init__.py").open("a") as file:
        file.write("# a changed source\n")
    say(f"{dockerfile}: warm")
    warm = build(dockerfile, place, tag)
    say(f"{dockerfile}: looking into it")
    return {"cold": cold, "warm": warm, **look_into(tag)}


def main() -> None:
    """Measure both images and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    for tool in ("buildah", "mmdebstrap", "git"):
        if shutil.which(tool) is None:
            sys.exit(f"there is no {tool}: apt install {tool}")
    os.environ["BUILDAH_ISOLATION"] = "chroot"
    WORK.mkdir(parents=True, exist_ok=True)
    try:
        make_base()
        found = {
            tag: measure(dockerfile, tag)
            for tag, dockerfile in {
                "penstock": "Dockerfile",
                "penstock-examples": "examples/Dockerfile",
            }.items()
        }
    finally:
        clean_up()
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        for tag, row in found.items():
            print(tag)
            for name, value in row.items():
                print(
                    f"  {name:20} {value / 1e6:.1f} MB"
                    if name.endswith("_bytes") and isinstance(value, int)
                    else f"  {name:20} {value}"
                )
    is_well = all(not row["imports_failed"] and row["service"]["works"] for row in found.values())  # type: ignore[index]
    sys.exit(0 if is_well else 1)


def clean_up() -> None:
    """Remove containers, images and contexts; the base's archive stays."""
    subprocess.run([*command(), "rm", "--all"], capture_output=True, check=False)
    subprocess.run([*command(), "rmi", "--all", "--force"], capture_output=True, check=False)
    for folder in WORK.iterdir():
        if folder.name != "base":
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
