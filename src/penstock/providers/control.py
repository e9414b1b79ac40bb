"""The control fields that both kinds share: their rules, and what is taken out before sending.

Only these fields of a body are read. Fields that other gateways obey (``api_base``,
``base_url``, ``api_key``, ``user_config``, ``extra_headers``, ``mock_response``, …) are unknown
fields here: they pass to the provider as opaque data and change neither the destination, nor
the key, nor a header. Rules name the field and what it must be; a value is never repeated,
because it may be a prompt in the wrong place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta

from penstock.config.model import TIER_PATTERN, Identifier
from penstock.errors import InvalidRequest
from penstock.providers.base import ParsedCall
from penstock.providers.request import join_fields, read_field

TOKENS_MAX = 10_000_000
CHOICES_MAX = 128
SUB_TENANT_LENGTH_MAX = 512
TIER_LENGTH_MAX = 32

_WINDOW_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


class _Metadata(msgspec.Struct):
    deadline: Any = None


class _BackgroundOptions(msgspec.Struct):
    completion_window: Annotated[str, Meta(pattern=r"^[0-9]{1,6}[smhd]\Z")] | None = None
    continuation_id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._:-]{1,128}\Z")] | None = None


_METADATA = msgspec.json.Decoder(_Metadata)
_BACKGROUND_OPTIONS = msgspec.json.Decoder(_BackgroundOptions | None)
Tokens: TypeAlias = Annotated[int, Meta(ge=0, le=TOKENS_MAX)] | None
Choices: TypeAlias = Annotated[int, Meta(ge=1, le=CHOICES_MAX)] | None
Priority: TypeAlias = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)] | None
ServiceTier: TypeAlias = Annotated[str, Meta(pattern=TIER_PATTERN)] | None
SubTenant: TypeAlias = Annotated[str, Meta(max_length=SUB_TENANT_LENGTH_MAX)] | None

_MODEL = msgspec.json.Decoder(Identifier)
_FLAG = msgspec.json.Decoder(bool | None)
_TOKENS = msgspec.json.Decoder(Tokens)
_CHOICES = msgspec.json.Decoder(Choices)
_PRIORITY = msgspec.json.Decoder(Priority)
_SERVICE_TIER = msgspec.json.Decoder(ServiceTier)
_SUB_TENANT = msgspec.json.Decoder(SubTenant)

OURS = frozenset(
    {"priority", "service_tier", "disable_fallbacks", "background", "background_options"}
)
"""Fields that speak to us alone. ``service_tier`` is a price as well as a wish: it goes to those
deployments alone whose configuration allows that tier, so no caller spends the operator's money.
``disable_fallbacks`` is LiteLLM's word; ``background`` is done here."""
_OURS_WITHOUT_TIER = OURS - {"service_tier"}


_WISHES = frozenset(
    {
        "priority", "service_tier", "safety_identifier", "user", "prompt_cache_key",
        "disable_fallbacks", "metadata", "background_options",
    }
)  # fmt: skip


def read_model(fields: Mapping[str, msgspec.Raw]) -> str:
    """The model's name. Raises InvalidRequest: it may stand in logs and metrics afterwards."""
    rule = (
        "a model name: 1 to 128 letters, digits or any of . _ : / @ -, "
        "the first a letter or digit (GET /v1/models lists those served)"
    )
    name: str | None = read_field(fields, "model", _MODEL, rule)
    if name is None:
        raise InvalidRequest(f"'model' is missing: it must be {rule}.", param="model")
    return name


def read_flag(fields: Mapping[str, msgspec.Raw], name: str) -> bool:
    """A boolean; absent or null is false."""
    return bool(read_field(fields, name, _FLAG, "true or false"))


def read_tokens(fields: Mapping[str, msgspec.Raw], name: str) -> int | None:
    """A number of tokens; absent or null is None."""
    tokens: int | None = read_field(
        fields, name, _TOKENS, f"an integer from 0 to {TOKENS_MAX} or null"
    )
    return tokens


def read_choices(fields: Mapping[str, msgspec.Raw], name: str = "n") -> int:
    """How many answers are wanted; absent or null is 1."""
    rule = f"an integer from 1 to {CHOICES_MAX} or null"
    choices: int | None = read_field(fields, name, _CHOICES, rule)
    return 1 if choices is None else choices


def read_priority(fields: Mapping[str, msgspec.Raw]) -> int | None:
    """The caller's wish for a class as a number, lower first."""
    priority: int | None = read_field(
        fields, "priority", _PRIORITY, "an integer of 32 bits (lower goes first) or null"
    )
    return priority


def read_service_tier(fields: Mapping[str, msgspec.Raw]) -> str | None:
    """The caller's wish for a class as a word."""
    tier: str | None = read_field(
        fields, "service_tier", _SERVICE_TIER, "a word such as 'default', 'flex' or 'priority'"
    )
    return tier


def tier_said(value: object) -> str:
    """The tier that an answer names, whatever stands in its place."""
    return value if isinstance(value, str) and len(value) <= TIER_LENGTH_MAX else ""


def read_sub_tenant(fields: Mapping[str, msgspec.Raw], name: str) -> str | None:
    """Whom the caller names as its own user; absent, null and empty are None."""
    rule = f"a string of at most {SUB_TENANT_LENGTH_MAX} characters or null"
    sub_tenant: str | None = read_field(fields, name, _SUB_TENANT, rule)
    return sub_tenant or None


def with_wishes(call: ParsedCall) -> ParsedCall:
    """The call with what its body says beyond its prompt: how urgent it is, whose, in which run.

    Most bodies say nothing of the kind. Raises InvalidRequest naming the field and the rule.
    """
    fields = call.fields
    if _WISHES.isdisjoint(fields):
        return call
    sub_tenant = read_sub_tenant(fields, "safety_identifier")
    user = read_sub_tenant(fields, "user")
    call = msgspec.structs.replace(
        call,
        priority=read_priority(fields),
        service_tier=read_service_tier(fields),
        sub_tenant=sub_tenant or user or call.sub_tenant,
        cache_key=read_sub_tenant(fields, "prompt_cache_key"),
        fallbacks=not read_flag(fields, "disable_fallbacks"),
    )
    is_timed = "metadata" in fields or "background_options" in fields
    return _with_time(call) if is_timed else call


def _with_time(call: ParsedCall) -> ParsedCall:
    """The call with what its body says of its time and its run.

    ``metadata`` is the caller's own: what does not look like a deadline there is none.
    Raises InvalidRequest for ``background_options`` of another form.
    """
    fields = call.fields
    deadline = None
    if "metadata" in fields:
        try:
            found = _METADATA.decode(fields["metadata"]).deadline
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            found = None
        if isinstance(found, str | int | float) and not isinstance(found, bool):
            deadline = str(found)
    rule = (
        'an object whose \'completion_window\' is a time such as "90s", "15m" or "24h", and '
        "'continuation_id' 1 to 128 letters, digits or any of . _ : -"
    )
    options: _BackgroundOptions = (
        read_field(fields, "background_options", _BACKGROUND_OPTIONS, rule) or _BackgroundOptions()
    )
    window = options.completion_window
    return msgspec.structs.replace(
        call,
        deadline=deadline,
        window_seconds=None if window is None else int(window[:-1]) * _WINDOW_SECONDS[window[-1]],
        continuation_id=options.continuation_id or "",
    )


def with_changes(call: ParsedCall, model: str, changed: Mapping[str, bytes]) -> bytes:
    """The body to send: ``call.body`` itself where nothing must change.

    ``changed`` are fields to set, in place where they exist, else at the end. Order and the
    raw bytes of all other fields stay.
    """
    changes = dict(changed)
    if model != call.model:
        changes["model"] = msgspec.json.encode(model)
    removed = _OURS_WITHOUT_TIER if call.sends_tier else OURS
    if not changes and removed.isdisjoint(call.fields):
        return call.body
    fields: dict[str, bytes | msgspec.Raw] = {
        name: raw for name, raw in call.fields.items() if name not in removed
    }
    fields.update(changes)
    return join_fields(fields)
