"""What may stand in ``penstock.toml``, table by table. Structs without behaviour.

A field's comment is its documentation: ``docs/configuration.md`` repeats it, and a test
compares the two. Secrets are never values in the file: they are named by ``key_env`` or
``key_file`` and read at start.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

Positive: TypeAlias = Annotated[float, Meta(gt=0)]
PositiveInt: TypeAlias = Annotated[int, Meta(gt=0)]
NonNegativeInt: TypeAlias = Annotated[int, Meta(ge=0)]
Identifier: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}\Z")]
"""Names that may stand in headers, metrics and paths: nothing else is ever copied there."""
ImportPath: TypeAlias = Annotated[
    str, Meta(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*\Z", description="package.module:attribute")
]


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file: unknown names are errors, never ignored."""


class ServerTable(_Table, frozen=True):
    """``[server]``: where it listens, and the caps that hold for every door."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8787
    allowed_hosts: list[str] = []  # Host headers answered besides loopback names and `host`
    body_bytes_max: PositiveInt = 8 * 1024 * 1024
    header_bytes_max: PositiveInt = 64 * 1024
    connections_max: PositiveInt = 4096
    header_timeout_seconds: Positive = 10.0
    body_timeout_seconds: Positive = 120.0
    write_timeout_seconds: Positive = 60.0  # a reader that takes nothing for so long is cut off
    drain_seconds: Positive = 30.0  # what a stopping service gives to calls in flight


class StoreTable(_Table, frozen=True):
    """``[store]``: where durable state lives."""

    path: str = ".penstock"  # a directory; relative to the file


class ProviderTable(_Table, frozen=True):
    """``[providers.NAME]``: one account at a provider."""

    kind: Literal["openai", "anthropic"]
    base_url: str
    key_env: str | None = None  # environment variable that holds the provider's key
    key_file: str | None = None  # or the file that holds it
    connect_timeout_seconds: Positive = 10.0
    first_byte_timeout_seconds: Positive = 300.0
    idle_timeout_seconds: Positive = 120.0  # between two reads of an answer
    total_timeout_seconds: Positive = 3600.0


class DeploymentTable(_Table, frozen=True):
    """``[deployments.NAME]``: one callable target and its limits (per minute, as published)."""

    provider: str
    model: str | None = None  # the provider's name for it; default: NAME
    serves: list[Identifier] | None = None  # public model names; default: [model]
    rpm: Positive | None = None
    tpm: Positive | None = None
    itpm: Positive | None = None
    otpm: Positive | None = None
    rpd: Positive | None = None
    concurrency: PositiveInt | None = None
    burst_seconds: Positive | None = None  # bucket size as seconds of its rate; default: learnt


class ClassTable(_Table, frozen=True):
    """``[classes.NAME]``: who goes first. The built-in three can be changed, others added."""

    rank: NonNegativeInt  # lower goes first
    reserve: Annotated[float, Meta(ge=0, le=1)] = 0.0  # share of a bucket kept from it
    min_share: Annotated[float, Meta(ge=0, lt=1)] = 0.0  # floor against starvation
    order: Literal["arrival", "deadline"] = "arrival"
    queue_max: PositiveInt = 10_000  # units that may wait; more are refused with 429
    wait_seconds_max: Positive = 600.0  # the caller's patience where it names none


class TenantTable(_Table, frozen=True):
    """``[tenants.NAME]``: who is treated fairly."""

    weight: Positive = 1.0


class KeyTable(_Table, frozen=True):
    """``[keys.NAME]``: one API key of a caller."""

    tenant: Identifier
    key_env: str | None = None
    key_file: str | None = None
    class_default: Identifier = msgspec.field(name="class", default="standard")
    ceiling: Identifier = "interactive"  # the most urgent class it may ask for
    models: list[Identifier] | None = None  # None: all
    chains: list[Identifier] | None = None  # None: all
    admin: bool = False  # may see the queue of every tenant


class ChainTable(_Table, frozen=True):
    """``[chains.NAME]``: one deployed runnable."""

    import_path: ImportPath = msgspec.field(name="import")
    class_default: Identifier | None = msgspec.field(name="class", default=None)
    config_keys: list[str] = msgspec.field(default_factory=lambda: ["configurable"])
    include_callback_events: bool = False
    timeout_seconds: Positive = 600.0
    description: str = ""


class WorkersTable(_Table, frozen=True):
    """``[workers]``: the processes that run chains."""

    count: NonNegativeInt = 2
    runs_max: PositiveInt = 100  # concurrent runs in one worker; more wait in the front
    start_timeout_seconds: Positive = 120.0


class Config(_Table, frozen=True):
    """The whole file."""

    path: list[str] = []  # directories from which chain modules are imported
    server: ServerTable = ServerTable()
    store: StoreTable = StoreTable()
    workers: WorkersTable = WorkersTable()
    providers: dict[Identifier, ProviderTable] = {}
    deployments: dict[Identifier, DeploymentTable] = {}
    classes: dict[Identifier, ClassTable] = {}
    tenants: dict[Identifier, TenantTable] = {}
    keys: dict[Identifier, KeyTable] = {}
    chains: dict[Identifier, ChainTable] = {}
