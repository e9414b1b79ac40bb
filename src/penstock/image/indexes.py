"""Which package indexes a project uses, from the files and variables of its own tools.

An index that the lock names for a package comes first. Otherwise, in this order, what is found
first: the options of ``requirements.txt``; ``uv.toml`` or ``[tool.uv]``; ``[[tool.pdm.source]]``;
``[[tool.poetry.source]]``; ``UV_DEFAULT_INDEX``, ``UV_INDEX_URL`` and ``PIP_INDEX_URL`` with
their extra ones; ``pip.conf``. Where nothing names one, it is pip's default index, whose address
only ``pypi_simple`` knows here.

Passwords leave this module in an ``Index`` alone, which does not show them.
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

from penstock.errors import ImageError
from penstock.image.files import Table, read_text, read_toml

INDEXES_MAX: Final = 10
PIP_CONF_BYTES_MAX: Final = 1024 * 1024
INDEX_VARIABLES: Final = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
EXTRA_VARIABLES: Final = ("UV_INDEX", "UV_EXTRA_INDEX_URL", "PIP_EXTRA_INDEX_URL")


class Login(NamedTuple):
    """A user and a password, which are never shown."""

    user: str
    password: str

    def __repr__(self) -> str:
        return "Login(…)"


class Index(NamedTuple):
    """A package index: its address without a login; ``url`` is "" for pip's default."""

    url: str
    login: Login | None = None


DEFAULT: Final = Index("")


def index_of(url: str, login: Login | None = None) -> Index | None:
    """An index from an address, with its login taken out; None if it is not one of HTTP."""
    try:
        parts = urlsplit(url.strip())
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        return None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return None
    if parts.username is not None:
        login = Login(unquote(parts.username), unquote(parts.password or ""))
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    path = parts.path if parts.path.endswith("/") else f"{parts.path}/"
    return Index(urlunsplit((parts.scheme, host + port, path, "", "")), login)


def of_project(
    root: Path, options: Iterable[str], environment: Mapping[str, str]
) -> tuple[Index, ...]:
    """The indexes of the project at ``root``, the first to ask first.

    ``options``: index addresses among the options of its requirements. Raises ``ImageError``.
    """
    found = (
        _from_urls(options)
        or _from_uv(root, environment)
        or _from_pyproject(root, environment)
        or _from_environment(environment)
        or _from_pip_conf(environment)
        or [DEFAULT]
    )
    return tuple(dict.fromkeys(found))[:INDEXES_MAX]


def _from_urls(urls: Iterable[str]) -> list[Index]:
    return [index for url in urls if (index := index_of(url)) is not None]


def _from_uv(root: Path, environment: Mapping[str, str]) -> list[Index]:
    path = root / "uv.toml"
    tables = [Table(read_toml(path, root)[0], "uv.toml")] if path.is_file() else []
    project = root / "pyproject.toml"
    if project.is_file():
        top = Table(read_toml(project, root)[0], "pyproject.toml")
        tables.append(top.table("tool").table("uv"))
    for table in tables:
        found = _uv_indexes(table, environment)
        if found:
            return found
    return []


def _uv_indexes(table: Table, environment: Mapping[str, str]) -> list[Index]:
    """Those with a priority first, the default last, as uv asks them; explicit ones never."""
    extra: list[Index] = []
    default: list[Index] = []
    for each in table.tables("index"):
        name = re.sub(r"[^A-Z0-9]", "_", (each.text("name") or "").upper())
        login = _login(environment, f"UV_INDEX_{name}_USERNAME", f"UV_INDEX_{name}_PASSWORD")
        index = index_of(each.text("url") or "", login)
        if index is not None and not each.flag("explicit"):
            (default if each.flag("default") else extra).append(index)
    pip = table.table("pip")
    for settings in (table, pip):
        extra += _from_urls(settings.texts("extra-index-url"))
        default += _from_urls([settings.text("index-url") or ""])
    if not extra and not default:
        return []
    return [*extra, *(default or [DEFAULT])]


def _login(environment: Mapping[str, str], user: str, password: str) -> Login | None:
    if user not in environment and password not in environment:
        return None
    return Login(environment.get(user, ""), environment.get(password, ""))


def _from_pyproject(root: Path, environment: Mapping[str, str]) -> list[Index]:
    path = root / "pyproject.toml"
    if not path.is_file():
        return []
    tool = Table(read_toml(path, root)[0], "pyproject.toml").table("tool")
    found: list[Index] = []
    has_default = False
    for source in tool.table("pdm").tables("source"):
        if source.text("type") == "find_links":
            continue
        has_default |= source.text("name") in {"pypi", "default"}
        index = index_of(_filled(source.text("url") or "", environment))
        found += [index] if index is not None else []
    for source in tool.table("poetry").tables("source"):
        priority = source.text("priority") or "primary"
        name = re.sub(r"[^A-Z0-9]", "_", (source.text("name") or "").upper())
        prefix = f"POETRY_HTTP_BASIC_{name}"
        login = _login(environment, f"{prefix}_USERNAME", f"{prefix}_PASSWORD")
        index = index_of(source.text("url") or "", login)
        if index is not None and priority != "explicit":
            has_default |= priority in {"primary", "default"}
            found.append(index)
    return found if has_default or not found else [*found, DEFAULT]


def _filled(url: str, environment: Mapping[str, str]) -> str:
    """PDM fills variables into the addresses of its sources."""
    return re.sub(r"\$\{(\w+)\}", lambda found: environment.get(found[1], ""), url)


def _from_environment(environment: Mapping[str, str]) -> list[Index]:
    named = next((environment[each] for each in INDEX_VARIABLES if environment.get(each)), None)
    extra = [
        url.partition("=")[2] if re.match(r"[\w-]+=https?://", url) else url
        for each in EXTRA_VARIABLES
        for url in environment.get(each, "").split()
    ]
    first = _from_urls([named]) if named is not None else []
    others = _from_urls(extra)
    if not first and not others:
        return []
    return [*(first or [DEFAULT]), *others]


def _from_pip_conf(environment: Mapping[str, str]) -> list[Index]:
    home = environment.get("HOME", "")
    config = environment.get("XDG_CONFIG_HOME") or (f"{home}/.config" if home else "")
    places = [environment.get("PIP_CONFIG_FILE", "")]
    places += [f"{environment['VIRTUAL_ENV']}/pip.conf"] if environment.get("VIRTUAL_ENV") else []
    places += [f"{config}/pip/pip.conf"] if config else []
    places += [f"{home}/.pip/pip.conf"] if home else []
    for name in (each for each in [*places, "/etc/pip.conf"] if each):
        path = Path(name)
        if not path.is_file() or path.stat().st_size > PIP_CONF_BYTES_MAX:
            continue
        found = _in_pip_conf(path)
        if found:
            return found
    return []


def _in_pip_conf(path: Path) -> list[Index]:
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(read_text(path, path.parent.resolve()))
    except (configparser.Error, ImageError):
        return []
    values: dict[str, str] = {}
    for section in ("global", "install", "download"):
        if parser.has_section(section):
            values.update(parser.items(section))
    first = _from_urls([values.get("index-url", "")])
    others = _from_urls(values.get("extra-index-url", "").split())
    return [*(first or [DEFAULT]), *others] if first or others else []
