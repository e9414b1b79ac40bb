"""What may stand in ``penstock.toml``, table by table. Structs without behaviour.

A field's description is its documentation: it becomes the tooltip of the published JSON
Schema, the end of an error's message, and a row of ``docs/configuration.md`` (a test compares
them). Secrets are never values in the file: they are named by ``key_env`` or ``key_file`` and
read at start. ``load`` hands out this value with every path absolute and every default set.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

IDENTIFIER_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}\Z"
ACTED_FOR_PATTERN = r"^([A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}|\*)\Z"
IMPORT_PATTERN = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*\Z"
ENVIRONMENT_PATTERN = r"^[A-Z_][A-Z0-9_]{0,63}\Z"
TIER_PATTERN = r"^[A-Za-z][A-Za-z0-9_-]{0,31}\Z"
API_VERSION_PATTERN = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(-preview)?\Z"

Positive: TypeAlias = Annotated[float, Meta(gt=0)]
Rate: TypeAlias = Annotated[float, Meta(ge=0.001, le=1e15)]
"""So many in a minute or a day: beyond, moments and numbers that are told would have no end."""
Weight: TypeAlias = Annotated[float, Meta(ge=0.001, le=1_000_000)]
PositiveInt: TypeAlias = Annotated[int, Meta(gt=0)]
Dollars: TypeAlias = Annotated[float, Meta(ge=0, le=1_000_000)]
PriceFactor: TypeAlias = Annotated[float, Meta(gt=0, le=100)]
NonNegativeInt: TypeAlias = Annotated[int, Meta(ge=0)]
Text: TypeAlias = Annotated[str, Meta(min_length=1)]
Identifier: TypeAlias = Annotated[str, Meta(pattern=IDENTIFIER_PATTERN)]
"""Names that may stand in headers, metrics and paths: nothing else is ever copied there."""
EVERY_TENANT = "*"
"""What stands in ``acts_for`` for all tenants; no tenant can be called so."""
ActedFor: TypeAlias = Annotated[str, Meta(pattern=ACTED_FOR_PATTERN)]
ImportPath: TypeAlias = Annotated[str, Meta(pattern=IMPORT_PATTERN)]
ApiVersion: TypeAlias = Annotated[str, Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(-preview)?\Z")]
ProviderKind: TypeAlias = Literal[
    "openai",
    "anthropic",
    "azure",
    "openai-compatible",
    "vllm",
    "ollama",
    "groq",
    "mistral",
    "deepseek",
    "openrouter",
    "gemini",
]
EnvironmentName: TypeAlias = Annotated[str, Meta(pattern=ENVIRONMENT_PATTERN)]
"""Strict on purpose: a key pasted in place of a variable's name does not look like this."""


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file: unknown names are errors, never ignored."""


class ServerTable(_Table, frozen=True):
    """``[server]``: where it listens, and the caps that hold for every door."""

    host: Annotated[Text, Meta(description="address or name to listen on")] = "127.0.0.1"
    port: Annotated[
        int, Meta(ge=0, le=65535, description="port to listen on; 0 lets the system choose")
    ] = 8787
    allowed_hosts: Annotated[
        list[Text],
        Meta(description="`Host` headers answered besides the loopback names and `host`"),
    ] = []
    body_bytes_max: Annotated[
        PositiveInt, Meta(description="largest request body; larger ones are refused with 413")
    ] = 8 * 1024 * 1024
    bodies_bytes_max: Annotated[
        PositiveInt,
        Meta(
            description="bytes of all bodies held at once, one tenant half of them; over it: 503; "
            "and of answers that callers do not take: over it the largest are cut off"
        ),
    ] = 256 * 1024 * 1024
    header_bytes_max: Annotated[
        PositiveInt, Meta(description="largest request head; larger ones are refused with 431")
    ] = 64 * 1024
    connections_max: Annotated[
        PositiveInt, Meta(description="open connections; more get 503 and are closed")
    ] = 4096
    connections_per_address_max: Annotated[
        PositiveInt | None,
        Meta(
            description="open connections from one address (IPv6: its first 64 bits); more get "
            "429 and are closed; not counted from this machine; default: half of connections_max"
        ),
    ] = None
    header_timeout_seconds: Annotated[
        Positive, Meta(description="time to send a whole request head")
    ] = 10.0
    body_timeout_seconds: Annotated[
        Positive, Meta(description="time to send a whole request body")
    ] = 120.0
    write_timeout_seconds: Annotated[
        Positive, Meta(description="a reader that takes nothing for so long is cut off")
    ] = 60.0
    drain_seconds: Annotated[
        Positive, Meta(description="what a stopping service gives to calls in flight")
    ] = 30.0


class StoreTable(_Table, frozen=True):
    """``[store]``: where durable state lives."""

    path: Annotated[
        Text, Meta(description="a directory, made at first use; relative to the file")
    ] = ".penstock"


class LedgerTable(_Table, frozen=True):
    """``[ledger]``: the record of every call."""

    keep_days: Annotated[
        PositiveInt, Meta(description="how long a call's row is kept; sums by day stay")
    ] = 90


class WorkersTable(_Table, frozen=True):
    """``[workers]``: the processes that run chains."""

    count: Annotated[NonNegativeInt, Meta(description="how many processes run chains")] = 2
    runs_max: Annotated[
        PositiveInt,
        Meta(description="concurrent runs in one worker; more wait in the front process"),
    ] = 100
    start_timeout_seconds: Annotated[
        Positive, Meta(description="time for a worker to import its chains")
    ] = 120.0
    memory_bytes_max: Annotated[
        PositiveInt | None,
        Meta(description="a worker that holds more is replaced, its runs let end; default: none"),
    ] = None


class JobsTable(_Table, frozen=True):
    """``[jobs]``: durable runs, and what is kept of them."""

    running_max: Annotated[
        PositiveInt,
        Meta(
            description="runs at once; of n classes the least urgent gets an n-th of them, "
            "the next one two, and so on"
        ),
    ] = 100
    attempts_max: Annotated[
        PositiveInt,
        Meta(
            description="attempts in a row that may break off before one more call is finished; "
            "those lost while waiting for a call count a hundredth"
        ),
    ] = 3
    keep_days: Annotated[
        Positive, Meta(description="how long results, events and idempotency keys are kept")
    ] = 7.0
    queue_max: Annotated[
        PositiveInt, Meta(description="runs of one tenant that have not ended; more get 429")
    ] = 10_000
    queue_bytes_max: Annotated[
        PositiveInt, Meta(description="bytes that their bodies may have together")
    ] = 256 * 1024 * 1024
    result_bytes_max: Annotated[
        PositiveInt, Meta(description="largest result; a larger one ends the run as an error")
    ] = 8 * 1024 * 1024
    events_bytes_max: Annotated[
        PositiveInt, Meta(description="what is kept of one run's events; the rest is left out")
    ] = 16 * 1024 * 1024


class WebhooksTable(_Table, frozen=True):
    """``[webhooks]``: whom this service may tell that a run has ended."""

    hosts: Annotated[
        list[Text] | None, Meta(description="hosts that it may call; default: every public one")
    ] = None
    allow_private: Annotated[
        bool, Meta(description="also addresses that are not public, and http")
    ] = False


class BatchesTable(_Table, frozen=True):
    """``[batches]``: uploaded files, and batches of lines over them."""

    file_bytes_max: Annotated[
        PositiveInt, Meta(description="largest file; larger ones are refused with 413")
    ] = 256 * 1024 * 1024
    tenant_bytes_max: Annotated[
        PositiveInt, Meta(description="bytes of one tenant's files; more get 429")
    ] = 4 * 1024 * 1024 * 1024
    lines_max: Annotated[PositiveInt, Meta(description="lines of one batch")] = 100_000
    lines_in_flight_max: Annotated[
        PositiveInt, Meta(description="lines of all batches that wait for a limit or an answer")
    ] = 512
    running_max: Annotated[
        PositiveInt,
        Meta(description="batches at work at once, one tenant half of them; the others wait"),
    ] = 8
    queue_max: Annotated[
        PositiveInt, Meta(description="batches of one tenant that have not ended; more get 429")
    ] = 100
    keep_days: Annotated[Positive, Meta(description="how long files and batches are kept")] = 30.0


class CacheTable(_Table, frozen=True):
    """``[cache]``: whose answers are given again, and shared by those who ask the same at once."""

    models: Annotated[
        list[Identifier], Meta(description="models whose answers are reused, whoever asks")
    ] = []
    keys: Annotated[
        list[Identifier], Meta(description="API keys whose answers are reused, whatever they ask")
    ] = []
    ttl_seconds: Annotated[
        float,
        Meta(ge=0, description="how long an answer is kept; 0: only calls under way are shared"),
    ] = 3600.0
    bytes_max: Annotated[
        PositiveInt, Meta(description="bytes of all kept answers; the oldest go first")
    ] = 64 * 1024 * 1024
    storage: Annotated[
        Literal["memory", "store"],
        Meta(description="where answers are kept: until the process ends, or in `[store]`"),
    ] = "memory"


class ProviderTable(_Table, frozen=True):
    """``[providers.NAME]``: one account at a provider."""

    kind: Annotated[
        ProviderKind, Meta(description="who it is: how it is asked, how it limits and fails")
    ]
    base_url: Annotated[
        Text,
        Meta(description="where it is, as its own SDK takes it, such as https://host/v1"),
    ]
    key_env: Annotated[
        EnvironmentName | None,
        Meta(description="environment variable that holds the provider's key"),
    ] = None
    key_file: Annotated[
        Text | None,
        Meta(description="or the file that holds it; relative to penstock.toml"),
    ] = None
    api_version: Annotated[
        ApiVersion | None,
        Meta(description='`azure`: the dated API, such as "2024-10-21"; default: its v1 API'),
    ] = None
    connect_timeout_seconds: Annotated[Positive, Meta(description="time to connect")] = 10.0
    first_byte_timeout_seconds: Annotated[
        Positive, Meta(description="time from sending a call to the first byte of its answer")
    ] = 300.0
    idle_timeout_seconds: Annotated[
        Positive, Meta(description="time between two reads of an answer")
    ] = 120.0
    total_timeout_seconds: Annotated[
        Positive, Meta(description="time from sending a call to the end of its answer")
    ] = 3600.0


class DeploymentTable(_Table, frozen=True):
    """``[deployments.NAME]``: one callable target and its limits, as the provider states them."""

    provider: Annotated[Text, Meta(description="the provider's name in this file")]
    model: Annotated[
        Text | None, Meta(description="the provider's name for the model; default: NAME")
    ] = None
    serves: Annotated[
        list[Identifier] | None,
        Meta(description="names under which callers ask for it; default: [model]"),
    ] = None
    rpm: Annotated[Rate | None, Meta(description="requests per minute")] = None
    tpm: Annotated[Rate | None, Meta(description="tokens per minute, both ways")] = None
    itpm: Annotated[Rate | None, Meta(description="input tokens per minute")] = None
    otpm: Annotated[Rate | None, Meta(description="output tokens per minute")] = None
    rpd: Annotated[Rate | None, Meta(description="requests per day")] = None
    tpd: Annotated[Rate | None, Meta(description="tokens per day, both ways")] = None
    concurrency: Annotated[PositiveInt | None, Meta(description="calls in flight")] = None
    burst_seconds: Annotated[
        Positive | None,
        Meta(description="size of the buckets, in seconds of their rate; default: learnt"),
    ] = None
    algorithm: Annotated[
        Literal["bucket", "window"],
        Meta(description="how the provider counts a minute: refilled all the time, or reset"),
    ] = "bucket"
    request_window_seconds: Annotated[
        Positive | None,
        Meta(description="it holds requests to their share of every so many seconds, too"),
    ] = None
    pool: Annotated[
        Identifier | None,
        Meta(description="deployments that name the same pool share the limits that one states"),
    ] = None
    price_input: Annotated[
        Dollars | None,
        Meta(description="dollars for a million input tokens; default: as known for the model"),
    ] = None
    price_output: Annotated[
        Dollars | None, Meta(description="dollars for a million output tokens")
    ] = None
    price_input_cached: Annotated[
        Dollars | None,
        Meta(description="dollars for a million cached input tokens; default: price_input"),
    ] = None
    service_tiers: Annotated[
        dict[Annotated[str, Meta(pattern=TIER_PATTERN)], PriceFactor],
        Meta(
            description="values of `service_tier` that callers may have sent on, each with its "
            "price as a multiple of the ordinary one: `{ flex = 0.5 }`"
        ),
    ] = {}


class ModelTable(_Table, frozen=True):
    """``[models.NAME]``: a public model, beyond what its deployments say."""

    fallbacks: Annotated[
        list[Identifier],
        Meta(description="models to be asked instead, in this order, where this one cannot answer"),
    ] = []


class ClassTable(_Table, frozen=True):
    """``[classes.NAME]``: who goes first. The built-in three can be changed, others added."""

    rank: Annotated[NonNegativeInt, Meta(description="lower goes first; no two classes share one")]
    reserve: Annotated[
        float,
        Meta(ge=0, le=1, description="share of each bucket that it leaves to more urgent classes"),
    ] = 0.0
    min_share: Annotated[
        float, Meta(ge=0, lt=1, description="floor against starvation, as a share of the limit")
    ] = 0.0
    order: Annotated[
        Literal["arrival", "deadline", "remaining"],
        Meta(
            description="what decides between the units of one tenant: its run's arrival, the "
            "deadline, or how many steps its run has left"
        ),
    ] = "arrival"
    seniority_seconds: Annotated[
        Positive | None,
        Meta(
            description="how much earlier than it came a later step of a run counts, at most; "
            "default: as early as its run"
        ),
    ] = None
    quantum_seconds: Annotated[
        float,
        Meta(
            ge=0,
            description="seconds of the limit by which tenants may differ before fairness "
            "decides instead of arrival",
        ),
    ] = 0.0
    queue_max: Annotated[
        PositiveInt, Meta(description="units that may wait; more are refused with 429")
    ] = 10_000
    queue_tenant_share: Annotated[
        float, Meta(gt=0, le=1, description="share of that queue that one tenant may fill")
    ] = 0.5
    wait_seconds_max: Annotated[
        Positive, Meta(description="the caller's patience where it names none")
    ] = 600.0


class Budgeted(_Table, frozen=True, kw_only=True):
    """What may be spent in a day or month (UTC): of a key, or of all keys of a tenant."""

    budget_day_usd: Annotated[
        Dollars | None, Meta(description="dollars that its calls may cost in a day (UTC)")
    ] = None
    budget_month_usd: Annotated[
        Dollars | None, Meta(description="dollars that its calls may cost in a month (UTC)")
    ] = None
    budget_day_tokens: Annotated[
        NonNegativeInt | None, Meta(description="tokens, both ways, of its calls in a day (UTC)")
    ] = None
    budget_month_tokens: Annotated[
        NonNegativeInt | None, Meta(description="tokens, both ways, of its calls in a month (UTC)")
    ] = None
    budget_hard: Annotated[
        bool, Meta(description="over a budget calls are refused with 402; if false, only warned")
    ] = True


class TenantTable(Budgeted, frozen=True):
    """``[tenants.NAME]``: who is treated fairly."""

    weight: Annotated[
        Weight, Meta(description="share in its class, relative to the other tenants")
    ] = 1.0
    rpm: Annotated[
        Rate | None, Meta(description="requests per minute of all its keys together")
    ] = None
    tpm: Annotated[
        Rate | None, Meta(description="tokens per minute, both ways, of all its keys together")
    ] = None
    concurrency: Annotated[
        PositiveInt | None, Meta(description="calls in flight of all its keys together")
    ] = None


class KeyBounds(Budgeted, frozen=True, kw_only=True):
    """What a key is held to: all of this may be changed while it is in force."""

    class_default: Annotated[Identifier, Meta(description="class of a call that asks for none")] = (
        msgspec.field(name="class", default="standard")
    )
    ceiling: Annotated[
        Identifier, Meta(description="the most urgent class that a call may ask for")
    ] = "interactive"
    models: Annotated[
        list[Identifier] | None, Meta(description="models it may call; default: all")
    ] = None
    chains: Annotated[
        list[Identifier] | None, Meta(description="chains it may run; default: all")
    ] = None
    acts_for: Annotated[
        list[ActedFor],
        Meta(description="tenants that a call may name to be theirs, `*` for all; default: none"),
    ] = []


class KeyRights(KeyBounds, frozen=True, kw_only=True):
    """What a key may do, wherever it stands: in the file or in the store."""

    tenant: Annotated[Identifier, Meta(description="who the key belongs to")]
    admin: Annotated[bool, Meta(description="may see and change what every tenant may do")] = False


class KeyTable(KeyRights, frozen=True):
    """``[keys.NAME]``: one API key of a caller."""

    key_env: Annotated[
        EnvironmentName | None, Meta(description="environment variable that holds the key")
    ] = None
    key_file: Annotated[
        Text | None,
        Meta(description="or the file that holds it; relative to penstock.toml"),
    ] = None


class ChainTable(_Table, frozen=True):
    """``[chains.NAME]``: one deployed runnable."""

    import_path: Annotated[
        ImportPath, Meta(description="the runnable, as package.module:attribute")
    ] = msgspec.field(name="import")
    class_default: Annotated[
        Identifier | None, Meta(description="class of its runs; default: the key's")
    ] = msgspec.field(name="class", default=None)
    config_keys: Annotated[
        list[Text], Meta(description="keys of a request's `config` that reach the chain")
    ] = msgspec.field(default_factory=lambda: ["configurable"])
    include_callback_events: Annotated[
        bool, Meta(description="answers of `invoke` and `batch` hold the run's callback events")
    ] = False
    show_steps: Annotated[
        bool,
        Meta(description="`stream_events` and `stream_log` show the run's steps, prompts and all"),
    ] = False
    timeout_seconds: Annotated[Positive, Meta(description="longest run")] = 600.0
    description: Annotated[str, Meta(description="a line for the list of chains")] = ""


class Config(_Table, frozen=True):
    """The whole file."""

    path: Annotated[
        list[Text],
        Meta(description="directories from which chain modules are imported; relative to the file"),
    ] = []
    server: ServerTable = ServerTable()
    store: StoreTable = StoreTable()
    ledger: LedgerTable = LedgerTable()
    workers: WorkersTable = WorkersTable()
    jobs: JobsTable = JobsTable()
    batches: BatchesTable = BatchesTable()
    webhooks: WebhooksTable = WebhooksTable()
    cache: CacheTable = CacheTable()
    providers: dict[Identifier, ProviderTable] = {}
    deployments: dict[Identifier, DeploymentTable] = {}
    models: dict[Identifier, ModelTable] = {}
    classes: dict[Identifier, ClassTable] = {}
    tenants: dict[Identifier, TenantTable] = {}
    keys: dict[Identifier, KeyTable] = {}
    chains: dict[Identifier, ChainTable] = {}
