"""What each provider does differently over the same wire."""

from __future__ import annotations

import json

import pytest

from penstock.providers.base import Endpoint, FailureKind
from penstock.providers.registry import ADAPTERS, READERS
from penstock.units import LimitName

CHAT = {"x-ratelimit-limit-requests": "14400", "x-ratelimit-limit-tokens": "6000"}


@pytest.mark.parametrize(
    ("kind", "endpoint", "base", "version", "url"),
    [
        ("openai", Endpoint.CHAT, "https://h/v1", None, "https://h/v1/chat/completions"),
        ("anthropic", Endpoint.COUNT_TOKENS, "https://h", None, "https://h/v1/messages/count_tokens"),
        ("gemini", Endpoint.CHAT, "https://h/v1beta/openai", None,
         "https://h/v1beta/openai/chat/completions"),
        ("azure", Endpoint.CHAT, "https://h/openai/v1", None, "https://h/openai/v1/chat/completions"),
        ("azure", Endpoint.CHAT, "https://h/openai", "2024-10-21",
         "https://h/openai/deployments/m/chat/completions?api-version=2024-10-21"),
        ("azure", Endpoint.RESPONSES, "https://h/openai", "2025-03-01-preview",
         "https://h/openai/responses?api-version=2025-03-01-preview"),
    ],
)  # fmt: skip
def test_a_call_goes_where_its_provider_takes_it(kind, endpoint, base, version, url):
    assert url == ADAPTERS[kind].url(base, endpoint, "m", version)


def test_keys_stand_in_the_header_that_each_reads():
    names = {
        kind: set(adapter.upstream_headers({}, "secret"))
        & {"authorization", "api-key", "x-api-key"}
        for kind, adapter in ADAPTERS.items()
    }
    assert {"api-key"} == names.pop("azure")
    assert {"x-api-key"} == names.pop("anthropic")
    assert {frozenset({"authorization"})} == {frozenset(found) for found in names.values()}


@pytest.mark.parametrize(
    ("kind", "limits"),
    [
        ("openai", {LimitName.RPM: 14_400, LimitName.TPM: 6_000}),
        ("groq", {LimitName.RPD: 14_400, LimitName.TPM: 6_000}),
        ("azure", {LimitName.TPM: 6_000}),
        ("gemini", {}),
    ],
)
def test_limit_headers_mean_what_their_provider_means(kind, limits):
    readings = ADAPTERS[kind].limit_readings(CHAT, 0.0)
    assert limits == {reading.limit: reading.capacity for reading in readings}


@pytest.mark.parametrize(
    ("kind", "model", "limits"),
    [
        ("deepseek", "deepseek-v4-pro", {LimitName.CONCURRENCY: 500}),
        ("openrouter", "meta/llama:free", {LimitName.RPM: 20}),
        ("openrouter", "meta/llama", {}),
        ("openai", "gpt-4o", {}),
    ],
)
def test_only_limits_that_hold_for_every_account_are_assumed(kind, model, limits):
    assert limits == ADAPTERS[kind].catalogue(model)


def test_azure_charges_prompt_and_answer_together_and_gemini_the_prompt():
    charges = {kind: adapter.charge.output_at_admission for kind, adapter in ADAPTERS.items()}
    assert ("sum", "none", "maximum") == (charges["azure"], charges["gemini"], charges["openai"])


@pytest.mark.parametrize(
    ("kind", "status", "message", "expected"),
    [
        ("openrouter", 403, "Your chosen model requires moderation", FailureKind.REJECTED),
        ("openrouter", 403, "No access", FailureKind.AUTH),
        ("deepseek", 402, "Insufficient Balance", FailureKind.FATAL),
        ("groq", 498, "capacity_exceeded", FailureKind.OVERLOADED),
        ("azure", 429, "exceeded token rate limit. Please retry after 6 seconds", FailureKind.RATE),
        ("gemini", 429, "Quota exceeded for metric, limit: 0", FailureKind.FATAL),
    ],
)
def test_errors_mean_what_their_provider_means(kind, status, message, expected):
    body = json.dumps({"error": {"message": message}}).encode()
    assert expected is ADAPTERS[kind].classify(status, {}, body).kind


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("anthropic", "prompt is too long: 210000 tokens > 200000 maximum"),
        ("vllm", "This model's maximum context length is 4096 tokens."),
        ("mistral", "Prompt contains 40000 tokens, too large for model with 32768 maximum"),
        ("gemini", "The input token count (9) exceeds the maximum number of tokens allowed (8)."),
        ("groq", "Please reduce the length of the messages or completion."),
    ],
)
def test_a_call_that_is_too_long_is_told_from_other_refusals(kind, message):
    adapter = ADAPTERS[kind]
    said, other = (
        adapter.classify(400, {}, json.dumps({"error": {"message": text}}).encode())
        for text in (message, "temperature must be at most 2")
    )
    assert (FailureKind.REJECTED, True) == (said.kind, said.exceeds_context)
    assert (FailureKind.REJECTED, False) == (other.kind, other.exceeds_context)


def test_every_path_has_one_protocol_whatever_provider_answers():
    assert {"openai", "anthropic"} == {reader.kind for reader in READERS.values()}
    assert set(Endpoint) == set(READERS)
    for adapter in ADAPTERS.values():
        assert {adapter.wire} == {READERS[endpoint].wire for endpoint in adapter.endpoints}


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        (429, "Rate limited upstream", FailureKind.RATE),
        (502, "Provider returned error", FailureKind.UNAVAILABLE),
        (503, "No provider", FailureKind.OVERLOADED),
        (400, "Bad parameter", FailureKind.REJECTED),
        (402, "openrouter_in_flight_budget", FailureKind.RATE),
        (402, "Insufficient credits", FailureKind.FATAL),
    ],
)
def test_openrouters_error_in_a_200_is_what_its_code_says(code, message, kind):
    body = json.dumps({"error": {"code": code, "message": message}}).encode()
    failure = ADAPTERS["openrouter"].failure_within(body)

    assert failure is not None
    assert failure.kind is kind


def test_a_200_without_an_error_holds_none_and_other_kinds_never_look():
    body = b'{"error": {"code": 502, "message": "Provider returned error"}}'

    assert ADAPTERS["openrouter"].failure_within(b'{"choices": []}') is None
    assert ADAPTERS["openai"].failure_within(body) is None
    assert ADAPTERS["anthropic"].failure_within(body) is None
