"""The rules between tables: what names what, and what may not stand beside what."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from penstock.config.addresses import is_host, is_loopback
from penstock.config.model import IDENTIFIER_PATTERN, Config, KeyRights
from penstock.config.positions import KeyPath
from penstock.config.problems import Problems, did_you_mean

_IDENTIFIER = re.compile(IDENTIFIER_PATTERN)

OPEN_HOST_REMEDY = (
    "callers from elsewhere need a key: `penstock keys create NAME --tenant TENANT`, or a "
    '[keys.NAME] table, or host = "127.0.0.1"'
)


class NamedTables:
    """The names that a file holds, those of broken tables too.

    A table that could not be read still counts as named, lest one mistake be reported at
    every place that mentions it.
    """

    def __init__(self, raw: Mapping[str, object], config: Config) -> None:
        self._raw = raw
        self._config = config

    def __getitem__(self, heading: str) -> set[str]:
        """All names under ``heading``, built-in ones included."""
        table = self._raw.get(heading)
        names = {name for name in table if isinstance(name, str)} if isinstance(table, dict) else ()
        return set(getattr(self._config, heading)).union(names)

    def models(self) -> set[str]:
        """The public models, those of broken deployments too."""
        found = public_models(self._config)
        table = self._raw.get("deployments")
        for name, deployment in table.items() if isinstance(table, dict) else ():
            if isinstance(deployment, dict):
                serves = deployment.get("serves", [deployment.get("model", name)])
                served = serves if isinstance(serves, list) else []
                found.update(public for public in served if isinstance(public, str))
        return found


def public_models(config: Config) -> set[str]:
    """The names under which callers ask for models."""
    return {
        public
        for name, deployment in config.deployments.items()
        for public in deployment.serves or [deployment.model or name]
    }


def check_rules(config: Config, names: NamedTables, problems: Problems) -> None:
    """All rules between tables but those on directories and addresses."""
    _check_server(config, problems)
    _check_deployments(config, names, problems)
    _check_pools(config, problems)
    _check_providers(config, problems)
    _check_models(config, names, problems)
    _check_cache(config, names.models(), problems)
    _check_classes(config, names, problems)
    for name, key in config.keys.items():
        check_key(("keys", name), key, config, names, problems)
    if config.chains and config.workers.count == 0:
        problems.add(("workers", "count"), "chains need at least one worker", 0)


def _check_server(config: Config, problems: Problems) -> None:
    if not is_host(config.server.host):
        problems.add(("server", "host"), "must be an address or a host name", config.server.host)


def check_open_host(config: Config, key_count: int, problems: Problems) -> None:
    """A host that others can reach needs a key that they could have."""
    host = config.server.host
    if is_host(host) and not is_loopback(host) and not key_count:
        problems.add(("server", "host"), f"there is no key; {OPEN_HOST_REMEDY}", host)


_LIMITS = (
    "rpm", "tpm", "itpm", "otpm", "rpd", "tpd", "concurrency",
    "burst_seconds", "request_window_seconds",
)  # fmt: skip


def _check_pools(config: Config, problems: Problems) -> None:
    """A shared pool has one set of limits: another one beside it would be silently ignored."""
    stated: dict[str, str] = {}
    for name, deployment in config.deployments.items():
        if deployment.pool is None or all(getattr(deployment, key) is None for key in _LIMITS):
            continue
        first = stated.setdefault(deployment.pool, name)
        if first != name:
            problems.add(
                ("deployments", name, "pool"),
                f"the limits of this pool stand at deployments.{first} already; "
                "remove those that stand here",
                deployment.pool,
            )


def _check_deployments(config: Config, names: NamedTables, problems: Problems) -> None:
    targets: dict[tuple[str, str], str] = {}
    for name, deployment in config.deployments.items():
        if deployment.provider not in names["providers"]:
            _unknown(
                ("deployments", name, "provider"),
                "provider", deployment.provider, names["providers"], problems,
            )  # fmt: skip
        model = deployment.model or name
        first = targets.setdefault((deployment.provider, model), name)
        if first != name:
            problems.add(
                ("deployments", name),
                f"is the same target as deployments.{first} (provider and model), so they would "
                "share its limits unknowingly; put the names of both into one `serves`",
            )
        served = deployment.serves
        if served is None and not _IDENTIFIER.match(model):
            problems.add(
                ("deployments", name, "model"),
                'callers cannot ask for a model of this name; add serves = ["NAME"]',
                model,
            )
        if (deployment.price_input is None) != (deployment.price_output is None) or (
            deployment.price_input_cached is not None and deployment.price_input is None
        ):
            problems.add(
                ("deployments", name),
                "state price_input and price_output together: one alone is no price",
            )
        if served is not None and (not served or len(set(served)) < len(served)):
            problems.add(
                ("deployments", name, "serves"), "must hold names, each of them once", served
            )


def _check_providers(config: Config, problems: Problems) -> None:
    for name, provider in config.providers.items():
        if provider.api_version is not None and provider.kind != "azure":
            problems.add(
                ("providers", name, "api_version"),
                'only kind = "azure" has one; remove it',
                provider.api_version,
            )


def _check_models(config: Config, names: NamedTables, problems: Problems) -> None:
    served = names.models()
    for name, table in config.models.items():
        if name not in served:
            _unknown(("models", name), "served model", name, served, problems)
        for number, fallback in enumerate(table.fallbacks):
            path: KeyPath = ("models", name, "fallbacks", number)
            if fallback not in served:
                _unknown(path, "served model", fallback, served, problems)
            elif fallback == name or fallback in table.fallbacks[:number]:
                problems.add(path, "must be another model, named once", fallback)


def _check_cache(config: Config, served: set[str], problems: Problems) -> None:
    for number, name in enumerate(config.cache.models):
        if name not in served:
            _unknown(("cache", "models", number), "served model", name, served, problems)


def _check_classes(config: Config, names: NamedTables, problems: Problems) -> None:
    owners: dict[int, str] = {}
    for name, table in sorted(config.classes.items(), key=lambda item: item[1].rank):
        owner = owners.setdefault(table.rank, name)
        if owner != name:
            problems.add(
                ("classes", name, "rank"),
                f"{owner} has this rank already; give each class its own",
                table.rank,
            )
    total = sum(table.min_share for table in config.classes.values())
    if total >= 1:
        problems.add(
            ("classes",), f"the min_share of all classes add up to {total:g}; stay below 1"
        )
    for name, chain in config.chains.items():
        if chain.class_default is not None and chain.class_default not in names["classes"]:
            _unknown(
                ("chains", name, "class"),
                "class", chain.class_default, names["classes"], problems,
            )  # fmt: skip


def check_key(
    path: KeyPath, key: KeyRights, config: Config, names: NamedTables, problems: Problems
) -> None:
    """What a key names must exist, and its class must not be above its ceiling."""
    known = names["classes"]
    for field, name in (("class", key.class_default), ("ceiling", key.ceiling)):
        if name not in known:
            _unknown((*path, field), "class", name, known, problems)
    default, ceiling = config.classes.get(key.class_default), config.classes.get(key.ceiling)
    if default is not None and ceiling is not None and default.rank < ceiling.rank:
        problems.add(
            (*path, "class"),
            f'it is above the key\'s ceiling; set ceiling = "{key.class_default}", or a less '
            "urgent class",
            key.class_default,
        )
    models = names.models()
    for number, model in enumerate(key.models or ()):
        if model not in models:
            _unknown((*path, "models", number), "served model", model, models, problems)
    for number, chain in enumerate(key.chains or ()):
        if chain not in names["chains"]:
            _unknown((*path, "chains", number), "chain", chain, names["chains"], problems)


def _unknown(path: KeyPath, what: str, name: str, known: Iterable[str], problems: Problems) -> None:
    problems.add(path, f"there is no such {what}; {did_you_mean(name, known)}", name)


def check_chain_modules(config: Config, folder: Path, problems: Problems) -> None:
    """Whether ``path`` holds directories, and each chain's module is there. Imports nothing."""
    directories: list[Path] = []
    for number, entry in enumerate(config.path):
        directory = folder / entry
        if directory.is_dir():
            directories.append(directory)
        else:
            problems.add(
                ("path", number),
                "there is no such directory; it is relative to the configuration file",
                entry,
            )
    for name, chain in config.chains.items():
        module = chain.import_path.partition(":")[0]
        if _is_module_in(directories, module) or _is_importable(module):
            continue
        where = ", ".join(config.path) or "`path`, which is empty"
        problems.add(
            ("chains", name, "import"),
            f"there is no module {module} in {where}, nor among the installed packages; add its "
            "directory to `path`, or install it",
            chain.import_path,
        )


def _is_module_in(directories: list[Path], module: str) -> bool:
    parts = module.split(".")
    for directory in directories:
        place = directory.joinpath(*parts)
        if place.is_dir() or any(
            place.with_name(place.name + suffix).is_file()
            for suffix in importlib.machinery.all_suffixes()
        ):
            return True
    return False


def _is_importable(module: str) -> bool:
    """Whether the package that ``module`` begins with is installed.

    Only that: to find what is inside it would run it.
    """
    try:
        return importlib.util.find_spec(module.partition(".")[0]) is not None
    except (ImportError, ValueError):  # found half, or a module made at run time
        return False
