"""Writes a project's Dockerfile, and the ``.dockerignore`` beside it.

Three stages, so that what changes most is installed last and little of it is sent around:

``dependencies``  what the lock says, from files that change only with it: no source of the
                  project is there yet, so a change of a source installs nothing again. With the
                  installer's cache kept between builds, bytecode compiled, symbols stripped.
``project``       the project's own package, without dependencies, into a prefix of its own.
the last          a clean base with these two prefixes as two layers: after a change of a source
                  only the small one is built, pushed and pulled. No installer, no compiler.

The last stage runs as a number without a name, writes nowhere but ``/data`` and ``/tmp``, and so
runs on a read-only root. Nothing is pinned by a digest: it is not known here and none is made up.

Beside that: ``COPY`` of uv from its own image was rejected (a second registry, which companies
often do not mirror), installing into the system's prefix too (its packages would come along).
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Final

import msgspec

from penstock.errors import ImageError
from penstock.image.check import Wish, check, python_of
from penstock.image.dockerfile.project import Facts, facts, safe_path
from penstock.image.dockerfile.strip_step import strip_lines
from penstock.image.model import Verdict
from penstock.image.targets import Target, target

INSTALLERS: Final = {"uv": "uv==0.13.9", "pdm": "pdm[locked]==2.29.3", "poetry": "poetry==2.5.1"}
"""The releases that an image was built with. PDM's extra pins what it is built on: without it the
newest of that is taken, and then this release does not start (hishel 2.0)."""

USER: Final = 10001
FAMILIES: Final = ("slim", "debian", "alpine")
"""Bases whose Python lies where the official image has it, with pip beside it."""

COMPILERS: Final = {
    "slim": "apt-get update && apt-get install --yes --no-install-recommends build-essential",
    "alpine": "apk add --no-cache build-base",
}


class Wanted(msgspec.Struct, frozen=True):
    """What is asked for beyond what the project says itself."""

    project: Path
    lock: str | None = None
    base: str = "slim"
    python: str | None = None
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    command: str | None = None
    port: int | None = None
    health: str | None = None


def write(wanted: Wanted, made_by: str) -> str:
    """The Dockerfile. ``made_by``: the command line that makes it again, for its head.

    Raises ``ImageError`` where no sound one can be written, with the way out.
    """
    known = facts(wanted.project, wanted.lock)
    base = _base(wanted, known)
    tool = "uv" if known.installer == "requirements" else known.installer
    head = [
        f"# Made by: {made_by}",
        "# What each part is for: docs/image.md of Penstock, `penstock image dockerfile`.",
        "# A company's certificate authority: docker build --secret id=ca,src=/path/to/ca.crt .",
        "",
    ]
    stages = [
        _dependencies(wanted, known, base, tool),
        _project(known),
        _last(wanted, known, base),
    ]
    return "\n".join([*head, *("\n".join(stage) + "\n" for stage in stages)])


def _base(wanted: Wanted, known: Facts) -> Target:
    python = wanted.python or python_of(wanted.project, known.lock.requires_python)
    base = target(wanted.base, "amd64", python)
    if base.family not in FAMILIES or base.is_free_threaded:
        raise ImageError(
            f"{base.name}: Dockerfiles are written for {', '.join(FAMILIES)} with an ordinary "
            "Python; begin with one of these, or with a Dockerfile of your own, which can be "
            "checked"
        )
    return base


def _compiled(wanted: Wanted, known: Facts, base: Target) -> list[str]:
    """Packages that must be compiled on the base, as far as the lock alone tells."""
    report = check(
        Wish(
            project=wanted.project / known.lock_file,
            bases=(base.base,),
            platforms=(base.platform,),
            pythons=(base.python,),
            extras=wanted.extras,
            groups=wanted.groups,
            is_offline=True,
        )
    ).targets[0]
    if report.excluded is not None:
        raise ImageError(f"{base.name}: {report.excluded}; name another --python")
    impossible = report.of(Verdict.IMPOSSIBLE)
    if impossible:
        raise ImageError(
            f"{impossible[0].name} cannot be installed on {base.name}: {impossible[0].reason}; "
            "choose another --base or --python (`penstock image check` compares them)"
        )
    return [each.name for each in report.of(Verdict.COMPILE)]


def _run(tool: str, mounts: list[str], *commands: str) -> list[str]:
    """A RUN instruction in which ``tool`` trusts the company's authority, if there is one."""
    variable = {"pip": "PIP_CERT", "poetry": "REQUESTS_CA_BUNDLE"}.get(tool, "SSL_CERT_FILE")
    first, *more = [f"--mount={mount} \\" for mount in ["type=secret,id=ca", *mounts]]
    return [
        f"RUN {first}",
        *(f"    {mount}" for mount in more),
        f"    [ ! -s /run/secrets/ca ] || export {variable}=/run/secrets/ca; \\",
        *(f"    {command} && \\" for command in commands[:-1]),
        f"    {commands[-1]}",
    ]


def _dependencies(wanted: Wanted, known: Facts, base: Target, tool: str) -> list[str]:
    compiled = _compiled(wanted, known, base)
    lines = [
        f"FROM {base.image} AS dependencies",
        f"ENV {tool.upper()}_CACHE_DIR=/cache/{tool} PIP_CACHE_DIR=/cache/pip \\",
        "    UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never \\",
        "    PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore",
        "WORKDIR /src",
    ]
    if compiled:
        how = COMPILERS["alpine" if base.family == "alpine" else "slim"]
        lines += [f"# No wheel for this base: {', '.join(compiled)}.", f"RUN {how}"]
    lines += _run("pip", ["type=cache,target=/cache/pip"], *_get(tool))
    lines += [
        "# Takes debug symbols out of what is installed; no byte that is loaded moves.",
        *_indented(strip_lines("/usr/local/lib/strip_symbols.py")),
    ]
    mounts = [
        f"type=cache,target=/cache/{tool}",
        *(f"type=bind,source={name},target=/src/{name}" for name in known.files),
    ]
    lines += _run(
        tool,
        mounts,
        *_install(wanted, known),
        "python /usr/local/lib/strip_symbols.py /app/.venv",
    )
    return lines


def _get(tool: str) -> list[str]:
    """The commands that install the installer: apart from the base's own packages, where it has
    dependencies, since pip cannot replace what a distribution brought.
    """
    if tool == "uv":
        return [f"pip install {INSTALLERS[tool]}"]
    return [
        f"python -m venv --without-pip /opt/{tool}",
        f"pip --python /opt/{tool} install '{INSTALLERS[tool]}'",
    ]


def _indented(lines: list[str]) -> list[str]:
    return [f"RUN {lines[0]}", *lines[1:]]


def _install(wanted: Wanted, known: Facts) -> list[str]:
    """The commands that install what is locked into /app/.venv, and nothing of the project."""
    extras = [safe_path(extra) for extra in wanted.extras]
    groups = [safe_path(group) for group in wanted.groups]
    options = [f"--extra {extra}" for extra in extras] + [f"--group {name}" for name in groups]
    if known.installer == "requirements":
        is_flat = not known.lock.format.startswith("pylock")
        options += ["--require-hashes"] if known.is_hashed and is_flat else []
        sync = " ".join(["uv pip sync --python /app/.venv/bin/python", *options, known.lock_file])
        return ["uv venv --python /usr/local/bin/python /app/.venv", sync]
    if known.installer == "uv":
        sync = " ".join(["uv sync --locked --no-default-groups --no-install-project", *options])
        return [f"UV_PROJECT_ENVIRONMENT=/app/.venv {sync} --python /usr/local/bin/python"]
    if known.installer == "pdm":
        options = [f"--group {name}" for name in [*extras, *groups]]
        # --prod allows no dependency group; with --dev only the ones that are named are taken.
        which = "--dev" if groups else "--prod"
        sync = " ".join([f"/opt/pdm/bin/pdm sync {which} --no-self --no-editable", *options])
        return [
            "python -m venv --without-pip /app/.venv",
            f"PDM_IGNORE_SAVED_PYTHON=1 VIRTUAL_ENV=/app/.venv {sync}",
            "python -m compileall -q -j 0 /app/.venv",
        ]
    options = [f"--extras {extra}" for extra in extras] + [f"--with {name}" for name in groups]
    install = " ".join(["/opt/poetry/bin/poetry install --only main --no-root --compile", *options])
    if groups:
        install = install.replace("--only main ", "")
    return [
        "python -m venv --without-pip /app/.venv",
        "POETRY_VIRTUALENVS_CREATE=false VIRTUAL_ENV=/app/.venv PATH=/app/.venv/bin:$PATH "
        + install,
    ]


def _project(known: Facts) -> list[str]:
    lines = ["FROM dependencies AS project", "COPY . ."]
    if not known.is_package:
        return [
            *lines,
            "RUN mkdir /app/project && cp -a . /app/project && \\",
            "    python -m compileall -q -j 0 /app/project",
        ]
    if known.installer in {"pdm", "poetry"}:
        # With the environment's Python, which scripts name in their first line.
        install = "pip --python /app/.venv install --target /app/project --no-deps ."
        return [*lines, *_run("pip", ["type=cache,target=/cache/pip"], install)]
    install = "uv pip install --python /app/.venv/bin/python --target /app/project --no-deps ."
    return [*lines, *_run("uv", ["type=cache,target=/cache/uv"], install)]


def _last(wanted: Wanted, known: Facts, base: Target) -> list[str]:
    lines = [
        f"FROM {base.image}",
        "# What is installed is compiled, so nothing has to be written to be run.",
        "ENV PATH=/app/project/bin:/app/.venv/bin:$PATH PYTHONPATH=/app/project \\",
        "    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp",
        f"RUN mkdir /data && chown {USER}:{USER} /data",
        f"WORKDIR {'/data' if known.is_package else '/app/project'}",
        "COPY --from=dependencies /app/.venv /app/.venv",
        "COPY --from=project /app/project /app/project",
        *_labels(known),
        f"USER {USER}:{USER}",
    ]
    if wanted.port is not None:
        lines.append(f"EXPOSE {wanted.port}")
    lines.append("STOPSIGNAL SIGTERM")
    if wanted.health is not None:
        if wanted.port is None:
            raise ImageError("--health needs the --port that the path is asked for at")
        program = (
            "import urllib.request as r; "
            f"r.urlopen('http://127.0.0.1:{wanted.port}{_health_path(wanted.health)}', timeout=3)"
        )
        lines += [
            "HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \\",
            f"    CMD {json.dumps(['python', '-c', program])}",
        ]
    return [*lines, f"CMD {json.dumps(_command(wanted, known))}"]


def _health_path(path: str) -> str:
    if not path.startswith("/"):
        raise ImageError(f"--health is a path such as /healthz, not {path!a}")
    return "/" + safe_path(path[1:])


def _labels(known: Facts) -> list[str]:
    """OCI's annotations, as far as pyproject.toml says them."""
    labels = {
        "title": known.name,
        "description": known.description,
        "version": known.version,
        "licenses": known.license,
        "source": known.source,
    }
    said = [
        # A dollar would be a variable of the Dockerfile's.
        f"org.opencontainers.image.{key}={json.dumps(value, ensure_ascii=False)}".replace(
            "$", "\\$"
        )
        for key, value in labels.items()
        if value is not None
    ]
    return ["LABEL " + " \\\n    ".join(said)] if said else []


def _command(wanted: Wanted, known: Facts) -> list[str]:
    if wanted.command is not None:
        try:
            words = shlex.split(wanted.command)
        except ValueError as problem:
            raise ImageError(f"--command is no command line: {problem}") from None
        if words and all(character.isprintable() for word in words for character in word):
            return words
        raise ImageError("--command is no command line that fits into a Dockerfile")
    if len(known.scripts) == 1:
        return [known.scripts[0]]
    raise ImageError(
        "what the image starts is not known: say it, as --command 'uvicorn app:app --host 0.0.0.0'"
        + (f"; the project's scripts are {', '.join(known.scripts)}" if known.scripts else "")
    )


DOCKERIGNORE: Final = """\
# What no image needs. A change of these files makes no layer anew.
.git
.github
.venv
venv
node_modules
dist
build
.cache
.mypy_cache
.pytest_cache
.ruff_cache
.dev
**/__pycache__
**/*.py[co]
**/*.egg-info
**/.DS_Store
.env
.env.*
*.pem
*.key
Dockerfile
.dockerignore
"""
