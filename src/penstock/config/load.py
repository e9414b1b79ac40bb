"""Reads ``penstock.toml``: one value out, or every problem at once with its line.

The order: the text, the fields of each table, the rules between tables, the directories and
modules, the secrets. A step that finds problems does not stop the next one, as far as its
input could be read.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from penstock.config import defaults, model
from penstock.config.addresses import AddressError, is_loopback, normalised_base_url
from penstock.config.fields import TableReader, unknown_tables
from penstock.config.model import Config
from penstock.config.positions import lines_of
from penstock.config.problems import Problems
from penstock.config.rules import (
    NamedTables,
    check_chain_modules,
    check_open_host,
    check_rules,
)
from penstock.config.secrets import Secrets, read_secrets

_FILE_BYTES_MAX = 1024 * 1024
_TOML_PLACE = re.compile(r" \(at (?:line (?P<line>\d+), column \d+|end of document)\)\Z")

Table = TypeVar("Table", bound=msgspec.Struct)


class Loaded(msgspec.Struct, frozen=True):
    """A configuration that can be served.

    ``secrets`` holds the values that ``config`` only names. ``warnings`` and ``notes`` are lines
    for the operator: what should be changed, and what was filled in. ``sandbox`` says that the
    built-in sandbox provider is in use, whose port the service fills in.
    """

    config: Config
    secrets: Secrets
    warnings: list[str] = []
    notes: list[str] = []
    sandbox: bool = False


class Overrides(msgspec.Struct, frozen=True):
    """What the command line puts on top of the file."""

    host: str | None = None
    port: int | None = None


def load(path: Path) -> Config:
    """The configuration in ``path``. Raises ConfigError with all its problems."""
    return load_with_secrets(path).config


def load_tables(path: Path | None) -> Config:
    """The configuration in ``path`` without a look at keys or environment.

    For commands that serve nothing: an operator's shell need not hold the providers' keys.
    Raises ConfigError with all problems of the file itself.
    """
    if path is None:
        return _finished(defaults.built_in(), Path.cwd())
    read = _read(path, Overrides())
    read.problems.raise_if_any()
    return _finished(read.config, read.folder)


def load_with_secrets(
    path: Path | None,
    *,
    overrides: Overrides | None = None,
    environment: Mapping[str, str] = os.environ,
    stored_key_count: Callable[[Path], int] = lambda _directory: 0,
) -> Loaded:
    """The configuration in ``path`` with the keys that it names; None is the one without a file.

    ``stored_key_count`` is asked, with the store's directory, how many keys stand there: a
    service that others can reach needs one. Raises ConfigError with all problems.
    """
    if path is None:
        return _without_file(overrides or Overrides(), stored_key_count)
    read = _read(path, overrides or Overrides())
    secrets = read_secrets(read.config, read.folder, environment, read.problems)
    config = _finished(read.config, read.folder)
    key_count = len(read.names["keys"]) or stored_key_count(Path(config.store.path))
    check_open_host(config, key_count, read.problems)
    read.problems.raise_if_any()
    loaded = Loaded(config=config, secrets=secrets, warnings=read.problems.warnings)
    return _filled_in(loaded, key_count=key_count)


class _Read(msgspec.Struct, frozen=True):
    """One file, read as far as it can be, with its problems so far."""

    config: Config
    names: NamedTables
    folder: Path
    problems: Problems


def _read(path: Path, overrides: Overrides) -> _Read:
    text = _text(path)
    raw = _tables(path, text)
    problems = Problems(str(path), lines_of(text))
    folder = path.absolute().parent
    config = _normalised(_overridden(_config(raw, problems), overrides), problems)
    names = NamedTables(raw, config)
    check_rules(config, names, problems)
    check_chain_modules(config, folder, problems)
    return _Read(config=config, names=names, folder=folder, problems=problems)


def _without_file(overrides: Overrides, stored_key_count: Callable[[Path], int]) -> Loaded:
    config = _overridden(_finished(defaults.built_in(), Path.cwd()), overrides)
    problems = Problems("without a file", {})
    check_open_host(config, stored_key_count(Path(config.store.path)), problems)
    problems.raise_if_any()
    loaded = Loaded(config=config, secrets=Secrets(), sandbox=True)
    return _with_dev_key(loaded) if is_loopback(config.server.host) else loaded


def _filled_in(loaded: Loaded, *, key_count: int) -> Loaded:
    """What a file may leave out: the sandbox, and the key of a loopback service."""
    config = loaded.config
    if not config.providers and not config.deployments:
        config = msgspec.structs.replace(
            config,
            providers=defaults.sandbox_providers(),
            deployments=defaults.sandbox_deployments(),
        )
        note = "the file names no provider: model `sandbox` is answered by the built-in sandbox"
        loaded = msgspec.structs.replace(
            loaded, config=config, notes=[*loaded.notes, note], sandbox=True
        )
    return loaded if key_count else _with_dev_key(loaded)


def _with_dev_key(loaded: Loaded) -> Loaded:
    name = defaults.DEV_KEY
    note = f"there is no key yet: this machine may call with the key `{name}`"
    return msgspec.structs.replace(
        loaded,
        config=msgspec.structs.replace(loaded.config, keys={name: defaults.dev_key()}),
        secrets=msgspec.structs.replace(loaded.secrets, keys={name: name}),
        notes=[*loaded.notes, note],
    )


def _text(path: Path) -> str:
    problems = Problems(str(path), {})
    content, text = b"", ""
    try:
        with path.open("rb") as stream:
            content = stream.read(_FILE_BYTES_MAX + 1)
        text = content.decode("utf-8")
    except OSError as error:
        problems.add_text(
            None,
            f"the file cannot be read ({os.strerror(error.errno or 0)}); give another with "
            "--config, or leave it out to run on the sandbox",
        )
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problems.add_text(line, "this is not UTF-8; save the file in that encoding")
    if len(content) > _FILE_BYTES_MAX:
        problems.add_text(None, f"the file is larger than {_FILE_BYTES_MAX} bytes")
    problems.raise_if_any()
    return text.replace("\r\n", "\n")


def _tables(path: Path, text: str) -> dict[str, Any]:
    problems = Problems(str(path), {})
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        place = _TOML_PLACE.search(message)
        line = text.count("\n") + 1
        if place is not None:
            message = message[: place.start()]
            line = int(place["line"] or line)
        problems.add_text(line, f"this is not TOML: {message}; see https://toml.io/en/v1.0.0")
    except (RecursionError, ValueError):  # nested without end; a number of thousands of digits
        problems.add_text(None, "this is not TOML that can be read: nested or long beyond reason")
    problems.raise_if_any()
    raise AssertionError("a problem was added above")


def _config(raw: dict[str, Any], problems: Problems) -> Config:
    """Every table that can be read; those that cannot are left out and reported."""
    unknown_tables(raw, problems)
    reader = TableReader(problems)

    def named(heading: str, kind: type[Table]) -> dict[str, Table]:
        return dict(reader.read_named(raw.get(heading, {}), kind, (heading,)))

    def single(heading: str, kind: type[Table]) -> Table:
        return reader.read(raw.get(heading, {}), kind, (heading,)) or kind()

    classes = raw.get("classes", {})
    if isinstance(classes, dict):
        classes = {
            name: {**defaults.CLASSES.get(name, {}), **own} if isinstance(own, dict) else own
            for name, own in {**defaults.CLASSES, **classes}.items()
        }
    return Config(
        path=reader.texts(raw.get("path", []), ("path",)),
        server=single("server", model.ServerTable),
        store=single("store", model.StoreTable),
        ledger=single("ledger", model.LedgerTable),
        workers=single("workers", model.WorkersTable),
        jobs=single("jobs", model.JobsTable),
        batches=single("batches", model.BatchesTable),
        webhooks=single("webhooks", model.WebhooksTable),
        cache=single("cache", model.CacheTable),
        providers=named("providers", model.ProviderTable),
        deployments=named("deployments", model.DeploymentTable),
        models=named("models", model.ModelTable),
        classes=dict(reader.read_named(classes, model.ClassTable, ("classes",))),
        tenants=named("tenants", model.TenantTable),
        keys=named("keys", model.KeyTable),
        chains=named("chains", model.ChainTable),
    )


def _overridden(config: Config, overrides: Overrides) -> Config:
    server = config.server
    if overrides.host is not None:
        server = msgspec.structs.replace(server, host=overrides.host)
    if overrides.port is not None:
        server = msgspec.structs.replace(server, port=overrides.port)
    return msgspec.structs.replace(config, server=server)


def _normalised(config: Config, problems: Problems) -> Config:
    """``config`` with every ``base_url`` in its SDK's spelling."""
    providers = {}
    for name, provider in config.providers.items():
        base_url = provider.base_url
        try:
            base_url = normalised_base_url(provider.kind, base_url)
        except AddressError as error:
            problems.add(("providers", name, "base_url"), str(error))
        providers[name] = msgspec.structs.replace(provider, base_url=base_url)
    return msgspec.structs.replace(config, providers=providers)


def _finished(config: Config, folder: Path) -> Config:
    """``config`` with paths made absolute and names filled in: it means the same everywhere."""
    return msgspec.structs.replace(
        config,
        path=[str(folder / entry) for entry in config.path],
        store=msgspec.structs.replace(config.store, path=str(folder / config.store.path)),
        providers={name: _with_file(table, folder) for name, table in config.providers.items()},
        keys={name: _with_file(table, folder) for name, table in config.keys.items()},
        deployments={name: _with_names(name, table) for name, table in config.deployments.items()},
    )


def _with_names(name: str, table: model.DeploymentTable) -> model.DeploymentTable:
    upstream = table.model or name
    return msgspec.structs.replace(table, model=upstream, serves=table.serves or [upstream])


KeyHolder = TypeVar("KeyHolder", model.ProviderTable, model.KeyTable)


def _with_file(table: KeyHolder, folder: Path) -> KeyHolder:
    if table.key_file is None:
        return table
    return msgspec.structs.replace(table, key_file=str(folder / table.key_file))


def with_sandbox(loaded: Loaded, port: int) -> Loaded:
    """With the built-in sandbox at that port, which wants a key, as a real provider does."""
    keys = {**loaded.secrets.providers, **dict.fromkeys(defaults.sandbox_providers(), "sandbox")}
    return msgspec.structs.replace(
        loaded,
        config=defaults.with_sandbox_port(loaded.config, port),
        secrets=msgspec.structs.replace(loaded.secrets, providers=keys),
    )
