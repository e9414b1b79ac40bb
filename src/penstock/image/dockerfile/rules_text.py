"""The rules that a Dockerfile's text is enough for: order, caches, locks, users, secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from penstock.image.dockerfile.findings import Finding, Severity
from penstock.image.dockerfile.parse import Instruction
from penstock.image.dockerfile.stages import Stage, chain
from penstock.image.dockerfile.view import View, installer
from penstock.image.files import plain

_WHOLE: Final = re.compile(r"\.?/?\Z")


def _copies_everything(instruction: Instruction) -> bool:
    if instruction.keyword not in {"COPY", "ADD"} or any(
        flag.startswith("--from=") for flag in instruction.flags
    ):
        return False
    operands = [word.text for word in instruction.operands]
    return any(_WHOLE.match(word) for word in operands[:-1])


def sources_first(view: View) -> Iterator[Finding]:
    """PSI005: the project is copied before its dependencies are installed."""
    for stage in view.stages:
        copied = next((each for each in stage.instructions if _copies_everything(each)), None)
        installed = [
            instruction for where, instruction, _ in view.installs() if where.number == stage.number
        ]
        is_before = copied is not None and installed and copied.start < installed[0].start
        inherits = any(
            where.number != stage.number and where in chain(view.stages, stage)
            for where, _, _ in view.installs()
        )
        if copied is not None and is_before and not inherits:
            yield Finding(
                "PSI005",
                Severity.WARNING,
                copied.line,
                "all sources are copied before the dependencies are installed, so every "
                "change of a source installs them again; copy the lock file alone first, "
                f"install (line {installed[0].line}), then copy the sources",
            )


_PINNED: Final = re.compile(r"(?:==|@|\.(?:whl|tar\.gz)\b|[/\\]|^\.)")


def unlocked(view: View) -> Iterator[Finding]:
    """PSI006: what is installed is decided on the day of the build."""
    for _, instruction, command in view.installs():
        words = [word.text for word in command]
        kind = installer(words)
        message = None
        if kind in {"pip", "uv"} and "install" in words:
            loose = _loose(words[words.index("install") + 1 :])
            if loose:
                message = f"{plain(', '.join(loose))}: no version is named"
        elif kind == "uv" and "sync" in words and "pip" not in words:
            is_locked = {"--locked", "--frozen"} & set(words) or _has_environment(
                view, ("UV_LOCKED", "UV_FROZEN")
            )
            message = None if is_locked else "uv sync without --locked may resolve anew"
        if message is not None:
            yield Finding(
                "PSI006",
                Severity.WARNING,
                instruction.line,
                f"{message}, so the same Dockerfile builds another image tomorrow (and on "
                "Alpine an older one, where a new release has no wheel); "
                "install from the lock file",
            )


_WITH_VALUE: Final = frozenset(
    [
        "-r",
        "--requirement",
        "-c",
        "--constraint",
        "-i",
        "--index-url",
        "--extra-index-url",
        "-f",
        "--find-links",
        "-t",
        "--target",
        "--prefix",
        "--python",
        "-p",
        "--platform",
        "--python-version",
        "--root",
        "--trusted-host",
        "--cert",
        "--timeout",
        "--retries",
        "--cache-dir",
        "--no-binary",
        "--only-binary",
        "-e",
        "--editable",
    ]
)


def _loose(arguments: list[str]) -> list[str]:
    loose, skip = [], False
    for word in arguments:
        if skip:
            skip = False
        elif word.startswith("-"):
            skip = word in _WITH_VALUE
        elif not _PINNED.search(word) and "$" not in word:
            loose.append(word)
    return loose


def _has_environment(view: View, wanted: tuple[str, ...]) -> bool:
    return any(
        word.text.split("=")[0] in wanted
        for instruction in view.file.instructions
        if instruction.keyword in {"ENV", "ARG"}
        for word in instruction.operands
    ) or any(f"{name}=" in view.file.text for name in wanted)


def no_cache(view: View) -> Iterator[Finding]:
    """PSI007: an installer without a cache that outlives the layer."""
    for instruction in dict.fromkeys(instruction for _, instruction, _ in view.installs()):
        if not any(
            flag.startswith("--mount=") and "type=cache" in flag for flag in instruction.flags
        ):
            yield Finding(
                "PSI007",
                Severity.NOTE,
                instruction.line,
                "nothing that was downloaded or compiled outlives this layer: after a "
                "change of the lock file all of it is fetched (and compiled) again; use "
                "RUN --mount=type=cache on its directory (PIP_CACHE_DIR; UV_, POETRY_, PDM_)",
            )


def no_bytecode(view: View) -> Iterator[Finding]:
    """PSI008: bytecode is not compiled when the image is built, so at every start."""
    if _has_environment(view, ("UV_COMPILE_BYTECODE",)) or "compileall" in view.file.text:
        return
    for _, instruction, command in view.installs():
        words = [word.text for word in command]
        kind = installer(words)
        is_compiled = kind == "pip" and "--no-compile" not in words
        if not is_compiled and not {"--compile-bytecode", "--compile"} & set(words):
            yield Finding(
                "PSI008",
                Severity.NOTE,
                instruction.line,
                "bytecode is not compiled here, so each container compiles at its start "
                "what it imports, and again if its root is read-only; set "
                "UV_COMPILE_BYTECODE=1 (uv), --compile (Poetry), python -m compileall",
            )


def root(view: View) -> Iterator[Finding]:
    """PSI009: the service runs as root."""
    users = [
        instruction
        for stage in view.last
        for instruction in stage.instructions
        if instruction.keyword == "USER" and instruction.operands
    ]
    # Distroless and others have images that name a user themselves.
    if users and users[-1].operands[0].text.split(":")[0] not in {"root", "0"}:
        return
    if not users and ("nonroot" in view.stages[-1].image or view.last[0].base is None):
        return
    line = users[-1].line if users else view.last[-1].instructions[0].line
    yield Finding(
        "PSI009",
        Severity.WARNING,
        line,
        "the image runs as root; a number without a name is enough: USER 10001:10001, and "
        "a directory of its own for what it writes",
    )


def no_ignore(view: View) -> Iterator[Finding]:
    """PSI010: everything around is sent to the build and copied, .git and .venv included."""
    copied = next((each for each in view.file.instructions if _copies_everything(each)), None)
    if copied is None:
        return
    if view.ignored is None:
        yield Finding(
            "PSI010",
            Severity.WARNING,
            copied.line,
            "there is no .dockerignore, so .git, .venv and .env files are copied into the "
            "image, and each commit makes the layer anew",
        )
        return
    lines = {line.strip().strip("/").removeprefix("**/") for line in view.ignored.splitlines()}
    left = [name for name in (".git", ".venv") if not {name, "*", "**", ".*"} & lines]
    if left:
        yield Finding(
            "PSI010",
            Severity.NOTE,
            copied.line,
            f".dockerignore lets {' and '.join(left)} into the image",
        )


_PREFIX: Final = re.compile(
    r"site-packages|dist-packages|venv|VIRTUAL_ENV|/usr/local(?:/lib)?/?\Z|/opt/"
)


def mixed_stages(view: View) -> Iterator[Finding]:
    """PSI011: an installation is copied between stages whose libc or Python differ."""
    by_name = {stage.name: stage for stage in view.stages if stage.name is not None}
    for stage in view.stages:
        for instruction in stage.instructions:
            source = next(
                (flag[7:].lower() for flag in instruction.flags if flag.startswith("--from=")), ""
            )
            other = by_name.get(source)
            if instruction.keyword != "COPY" or other is None or not instruction.operands:
                continue
            if not any(_PREFIX.search(word.text) for word in instruction.operands[:-1]):
                continue
            for what, here, there in (
                ("libc", _libc(stage), _libc(other)),
                ("Python", stage.python, other.python),
            ):
                if here is not None and there is not None and here != there:
                    yield Finding(
                        "PSI011",
                        Severity.ERROR,
                        instruction.line,
                        f"what stage {plain(source)} installed is for {what} {there}, and "
                        f"runs here on {here}: extension modules will not load; build "
                        "both stages on the same base",
                    )


def _libc(stage: Stage) -> str | None:
    if stage.base is None:
        return "musl" if stage.image.split("/")[-1].startswith("alpine") else None
    return "musl" if stage.base.startswith("alpine") else "glibc"


_CREDENTIALS: Final = re.compile(r"https?://[^\s/@:]+:[^\s/@]+@")
_INDEX: Final = re.compile(r"index|PIP_|UV_|POETRY_|PDM_|TWINE|find-links", re.IGNORECASE)


def credentials(view: View) -> Iterator[Finding]:
    """PSI012: a password of a package index stands in the image's history. It is not repeated."""
    for instruction in view.file.instructions:
        words = " ".join([word.text for word in instruction.words])
        if instruction.keyword in {"ENV", "ARG", "RUN"} and _CREDENTIALS.search(words):
            if _INDEX.search(words) is None:
                continue
            yield Finding(
                "PSI012",
                Severity.ERROR,
                instruction.line,
                "an address with a password stays readable in the image's history; hand "
                "it over as a build secret: RUN --mount=type=secret,id=index,"
                "env=UV_DEFAULT_INDEX (PIP_INDEX_URL for pip)",
            )


_INSECURE: Final = (
    "--trusted-host",
    "--allow-insecure-host",
    "PIP_TRUSTED_HOST",
    "UV_INSECURE_HOST",
)


def no_tls(view: View) -> Iterator[Finding]:
    """PSI013: the index's certificate is not checked."""
    for instruction in view.file.instructions:
        for word in instruction.words:
            if word.text.split("=")[0] in _INSECURE:
                yield Finding(
                    "PSI013",
                    Severity.ERROR,
                    instruction.line,
                    f"{word.text.split('=')[0]} switches off the check of the index's "
                    "certificate, and with it who may put code into the image; hand your "
                    "company's authority over as a build secret (SSL_CERT_FILE, "
                    "PIP_CERT)",
                )
                break
