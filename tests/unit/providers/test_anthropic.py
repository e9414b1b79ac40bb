"""Anthropic's wire, against answers written down in their true format."""

from __future__ import annotations

import json
import tracemalloc
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import InvalidRequest, UpstreamInvalid
from penstock.providers.anthropic import VERSION_DEFAULT, AnthropicAdapter
from penstock.providers.base import Endpoint, Failure, FailureKind
from penstock.units import LimitName, LimitReading, Usage

ADAPTER = AnthropicAdapter()


def message(**fields: object) -> bytes:
    return msgspec.json.encode(
        {"model": "claude", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
        | fields
    )


def event(name: str, **data: object) -> bytes:
    return f"event: {name}\ndata: ".encode() + msgspec.json.encode({"type": name} | data) + b"\n\n"


START = event("message_start", message={"usage": {"input_tokens": 25, "output_tokens": 1}})
DELTA = event("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hi"})
END = event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 15})
STOP = event("message_stop")
CALL = ADAPTER.parse(Endpoint.MESSAGES, message(stream=True))


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("model", "a b", "model"),
        ("messages", "a secret prompt", "messages"),
        ("max_tokens", -5, "max_tokens"),
        ("max_tokens", "a secret prompt", "max_tokens"),
        ("stream", "yes", "stream"),
        ("metadata", "a secret prompt", "metadata"),
        ("metadata", {"user_id": ["a secret prompt"]}, "metadata.user_id"),
        ("metadata", {"user_id": "u" * 513}, "metadata.user_id"),
    ],
)
def test_a_control_field_of_a_wrong_kind_is_refused_by_its_name(
    field: str, value: object, param: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ADAPTER.parse(Endpoint.MESSAGES, message(**{field: value}))

    assert caught.value.param == param
    assert f"'{param}'" in caught.value.message
    assert "secret" not in caught.value.message


def test_control_fields_are_read() -> None:
    call = ADAPTER.parse(
        Endpoint.MESSAGES,
        message(metadata={"user_id": "u1", "other": [1]}, service_tier="auto", priority=3),
    )

    assert (call.tokens_output_max, call.sub_tenant, call.priority) == (9, "u1", 3)
    assert ADAPTER.parse(Endpoint.MESSAGES, message(metadata=None)).sub_tenant is None


def test_the_body_passes_untouched_but_for_model_and_our_own_fields() -> None:
    body = b'{"model":"claude","api_base":"http://evil.example","messages":[ ],"max_tokens":1}'
    call = ADAPTER.parse(Endpoint.MESSAGES, body)
    tiered = b'{"service_tier":"auto",' + body[1:]

    assert ADAPTER.upstream_body(call, "claude") is body
    assert ADAPTER.upstream_body(call, "c2") == body.replace(b'"claude"', b'"c2"')
    assert ADAPTER.upstream_body(ADAPTER.parse(Endpoint.MESSAGES, tiered), "claude") == body


@pytest.mark.parametrize(
    ("caller", "version", "beta"),
    [
        ({}, VERSION_DEFAULT, None),
        ({"anthropic-version": "2024-01-02"}, "2024-01-02", None),
        ({"anthropic-version": "2024-01-02\r\nx: y"}, VERSION_DEFAULT, None),
        ({"anthropic-version": "latest"}, VERSION_DEFAULT, None),
        (
            {"anthropic-beta": "tools-2024-04-04, files-api-2025-04-14"},
            VERSION_DEFAULT,
            "tools-2024-04-04, files-api-2025-04-14",
        ),
        ({"anthropic-beta": "a\nb"}, VERSION_DEFAULT, None),
        ({"anthropic-beta": "a," * 1000}, VERSION_DEFAULT, None),
        ({"x-api-key": "sk-caller", "cookie": "c", "x-evil": "1"}, VERSION_DEFAULT, None),
    ],
)
def test_headers_are_built_from_scratch(
    caller: dict[str, str], version: str, beta: str | None
) -> None:
    headers = ADAPTER.upstream_headers(caller, "sk-operator")

    assert headers.pop("anthropic-beta", None) == beta
    assert headers.pop("anthropic-version") == version
    assert headers.pop("x-api-key") == "sk-operator"
    assert sorted(headers) == ["accept", "accept-encoding", "content-type", "user-agent"]


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            (
                '{"input_tokens":10,"cache_creation_input_tokens":5,"cache_read_input_tokens":85,'
                '"output_tokens":7}'
            ),
            Usage(100, 7, 85, tokens_input_written=5),
        ),
        ('{"input_tokens":10,"cache_read_input_tokens":null,"output_tokens":7}', Usage(10, 7)),
        ('{"input_tokens":-10,"output_tokens":7}', None),
        ('"many"', None),
        ("null", None),
    ],
)
def test_usage_counts_every_prompt_token(usage: str, expected: Usage | None) -> None:
    body = f'{{"type":"message","content":[],"usage":{usage}}}'.encode()

    assert ADAPTER.usage(CALL, body) == expected


@pytest.mark.parametrize("body", [b"", b"null", b"{}", b'{"content":"x"}', b'{"content":["\xff"]}'])
def test_an_answer_that_is_none_is_invalid(body: bytes) -> None:
    with pytest.raises(UpstreamInvalid):
        ADAPTER.usage(CALL, body)


def test_an_answer_of_many_items_takes_no_more_memory_than_its_bytes() -> None:
    body = b'{"content":[' + b"0," * 250_000 + b"0]}"
    tracemalloc.start()
    try:
        ADAPTER.usage(CALL, body)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak_bytes < 5 * len(body)


@given(st.lists(st.integers(0, 1200), max_size=6))
def test_any_cut_of_a_stream_passes_it_untouched_and_counts_it(cuts: list[int]) -> None:
    stream = START + event("ping") + DELTA * 4 + END + STOP
    reader = ADAPTER.stream_reader(CALL)
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    passed = b"".join(reader.feed(stream[a:b]) for a, b in pairwise(places))

    assert passed + reader.flush() == stream
    assert (reader.usage, reader.finished) == (Usage(25, 15), True)
    assert reader.tokens_output_seen == 4


def test_a_tier_is_said_at_the_beginning_of_a_stream() -> None:
    reader = ADAPTER.stream_reader(CALL)
    tiered = START.replace(b'"input_tokens"', b'"service_tier":"priority","input_tokens"', 1)
    reader.feed(tiered + DELTA + END + STOP)

    assert reader.usage == Usage(25, 15, service_tier="priority")


def test_a_broken_stream_is_charged_for_what_has_passed() -> None:
    reader = ADAPTER.stream_reader(CALL)
    reader.feed(START + DELTA * 6 + DELTA[:20])

    assert reader.flush() == b""
    assert not reader.finished
    assert reader.usage == Usage(25, 6)


def test_an_error_in_the_stream_is_held_back_and_classified() -> None:
    error = event("error", error={"type": "overloaded_error", "message": "Overloaded"})
    reader = ADAPTER.stream_reader(CALL)

    assert reader.feed(START + error) == START
    assert reader.failure == Failure(FailureKind.OVERLOADED)
    assert reader.failure_event == error


def test_an_event_that_is_none_makes_the_answer_invalid() -> None:
    for data in (b"data: {}\n\n", b"data: null\n\n", b"data: x\n\n"):
        with pytest.raises(UpstreamInvalid):
            ADAPTER.stream_reader(CALL).feed(START + data)


LIMITS = {
    "anthropic-ratelimit-requests-limit": "50",
    "anthropic-ratelimit-requests-remaining": "49",
    "anthropic-ratelimit-requests-reset": "2026-11-03T12:00:01Z",
    "anthropic-ratelimit-input-tokens-limit": "2000000",
    "anthropic-ratelimit-input-tokens-remaining": "1996000",
    "anthropic-ratelimit-input-tokens-reset": "2026-11-03T12:00:00.5Z",
    "anthropic-ratelimit-tokens-limit": "2400000",
    "anthropic-ratelimit-tokens-remaining": "2390000",
    "date": "Tue, 03 Nov 2026 12:00:00 GMT",
}


def test_resets_are_read_against_the_answers_own_date() -> None:
    wrong_wall = 5.0

    assert ADAPTER.limit_readings(LIMITS, wrong_wall) == [
        LimitReading(LimitName.RPM, 50.0, 49.0, 1.0),
        LimitReading(LimitName.ITPM, 2_000_000.0, 1_996_000.0, 0.5, 1_000.0),
    ]


def test_the_tightest_limit_is_read_only_where_the_real_ones_are_missing() -> None:
    alone = {name: value for name, value in LIMITS.items() if "-tokens-" in name}
    alone = {name: value for name, value in alone.items() if "input" not in name}

    assert ADAPTER.limit_readings(alone, 0.0) == [
        LimitReading(LimitName.TPM, 2_400_000.0, 2_390_000.0, None, 1_000.0)
    ]
    assert ADAPTER.limit_readings(dict.fromkeys(LIMITS, "banana"), 0.0) == []


def error_body(kind: str, text: str) -> bytes:
    return json.dumps({"type": "error", "error": {"type": kind, "message": text}}).encode()


@pytest.mark.parametrize(
    ("status", "headers", "body", "expected"),
    [
        (
            429,
            {"retry-after": "7"},
            error_body(
                "rate_limit_error",
                "This request would exceed your organization's rate limit of 50,000 input tokens "
                "per minute.",
            ),
            Failure(FailureKind.RATE, 7.0, LimitName.ITPM),
        ),
        (
            429,
            {"retry-after": "7", "anthropic-ratelimit-output-tokens-remaining": "0"},
            error_body("rate_limit_error", "Slow down."),
            Failure(FailureKind.RATE, 7.0, LimitName.OTPM),
        ),
        (
            429,
            {},
            error_body("rate_limit_error", "You have reached your monthly spend limit."),
            Failure(FailureKind.FATAL),
        ),
        (
            429,
            {"retry-after": "banana"},
            error_body("rate_limit_error", "Number of requests is over the limit."),
            Failure(FailureKind.RATE, None, LimitName.RPM),
        ),
        (
            400,
            {},
            error_body("invalid_request_error", "Your credit balance is too low to access"),
            Failure(FailureKind.FATAL),
        ),
        (529, {}, error_body("overloaded_error", "Overloaded"), Failure(FailureKind.OVERLOADED)),
        (500, {}, error_body("overloaded_error", "Overloaded"), Failure(FailureKind.OVERLOADED)),
        (500, {}, error_body("api_error", "x"), Failure(FailureKind.UNAVAILABLE)),
        (401, {}, error_body("authentication_error", "x"), Failure(FailureKind.AUTH)),
        (402, {}, error_body("billing_error", "x"), Failure(FailureKind.FATAL)),
        (403, {}, error_body("permission_error", "x"), Failure(FailureKind.AUTH)),
        (404, {}, error_body("not_found_error", "x"), Failure(FailureKind.REJECTED)),
        (413, {}, error_body("request_too_large", "x"), Failure(FailureKind.REJECTED)),
    ],
)
def test_errors_are_classified_by_what_they_say(
    status: int, headers: dict[str, str], body: bytes, expected: Failure
) -> None:
    assert ADAPTER.classify(status, headers, body) == expected
