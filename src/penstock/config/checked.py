"""Keys and tenants that stand in no file, under the rules of those that do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.config.fields import TableReader
from penstock.config.model import Config, KeyRights, TenantTable
from penstock.config.problems import Problems
from penstock.config.rules import NamedTables, check_key


def checked_key(name: str, fields: Mapping[str, object], config: Config) -> KeyRights:
    """What a stored key may do. ``fields`` are those of ``[keys.NAME]`` that say it.

    Raises ConfigError with all problems.
    """
    problems = Problems("the key", {})
    if name in config.keys:
        problems.add(("keys", name), "the configuration file has a key of this name; take another")
    tables = dict(TableReader(problems).read_named({name: fields}, KeyRights, ("keys",)))
    names = NamedTables({}, config)
    for key in tables.values():
        check_key(("keys", name), key, config, names, problems)
    problems.raise_if_any()
    return tables[name]


def checked_tenant(name: str, fields: Mapping[str, object]) -> dict[str, Any]:
    """Some fields of ``[tenants.NAME]``, as that table would hold them.

    Raises ConfigError with all problems.
    """
    problems = Problems("the tenant", {})
    tables = dict(TableReader(problems).read_named({name: fields}, TenantTable, ("tenants",)))
    problems.raise_if_any()
    return {field: getattr(tables[name], field) for field in fields}
