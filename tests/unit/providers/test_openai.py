"""OpenAI's wire, against answers written down in their true format."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.config.model import ProviderKind
from penstock.errors import InvalidRequest, UpstreamInvalid
from penstock.providers.base import Endpoint, Failure, FailureKind
from penstock.providers.openai import OpenAIAdapter
from penstock.providers.registry import ADAPTERS
from penstock.units import LimitName, LimitReading, Usage

ADAPTER = OpenAIAdapter()
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
FRAME = '{{"id":"c1","object":"chat.completion.chunk","model":"m","choices":[{}]{}}}'


def chat(**fields: object) -> bytes:
    return msgspec.json.encode({**CHAT, **fields})


def chunk(choices: str = '{"index":0,"delta":{"content":"Hi"}}', rest: str = "") -> bytes:
    return f"data: {FRAME.format(choices, rest)}\n\n".encode()


DONE = b"data: [DONE]\n\n"
USAGE = '"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13}'


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", None),
        ("model", 5),
        ("model", ""),
        ("model", "a\r\nb"),
        ("model", "a\u202eb"),
        ("model", "x" * 129),
        ("messages", None),
        ("messages", "a secret prompt"),
        ("messages", {}),
        ("stream", "true"),
        ("stream", 1),
        ("max_tokens", -1),
        ("max_tokens", 10**12),
        ("max_tokens", 1.5),
        ("max_completion_tokens", "a secret prompt"),
        ("n", 0),
        ("n", -1),
        ("n", 129),
        ("n", 2**70),
        ("stream_options", []),
        ("stream_options", {"include_usage": "a secret prompt"}),
        ("priority", 2**40),
        ("priority", "high"),
        ("service_tier", "a secret prompt"),
        ("user", ["a secret prompt"]),
        ("user", "u" * 513),
        ("safety_identifier", 7),
    ],
)
def test_a_control_field_of_a_wrong_kind_is_refused_by_its_name(field: str, value: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ADAPTER.parse(Endpoint.CHAT, chat(**{field: value}))

    assert caught.value.param == field
    assert f"'{field}'" in caught.value.message
    assert "secret" not in caught.value.message


def test_control_fields_are_read_and_null_is_absent() -> None:
    call = ADAPTER.parse(
        Endpoint.CHAT,
        chat(
            stream=True, n=3, max_tokens=5, max_completion_tokens=7, priority=-2,
            service_tier="flex", user="u1", safety_identifier="s1",
            stream_options={"include_usage": True},
        ),
    )  # fmt: skip
    names = ("stream", "n", "max_tokens", "stream_options", "priority", "service_tier", "user")
    empty = ADAPTER.parse(Endpoint.CHAT, chat(**dict.fromkeys(names)))

    assert (call.stream, call.choices, call.tokens_output_max) == (True, 3, 7)
    assert (call.priority, call.service_tier, call.sub_tenant) == (-2, "flex", "s1")
    assert call.include_usage
    assert (empty.stream, empty.choices, empty.tokens_output_max) == (False, 1, None)
    assert (empty.priority, empty.service_tier, empty.sub_tenant) == (None, None, None)


@pytest.mark.parametrize(
    ("body", "is_valid"),
    [
        (b'{"model":"e","input":"text"}', True),
        (b'{"model":"e","input":[[1,2],[3]]}', True),
        (b'{"model":"e","input":5}', False),
        (b'{"model":"e"}', False),
    ],
)
def test_embeddings_need_an_input(body: bytes, is_valid: bool) -> None:
    if is_valid:
        assert ADAPTER.parse(Endpoint.EMBEDDINGS, body).model == "e"
    else:
        with pytest.raises(InvalidRequest, match="'input'"):
            ADAPTER.parse(Endpoint.EMBEDDINGS, body)


def test_a_body_in_which_nothing_must_change_is_the_same_object() -> None:
    body = b'{ "messages" : [ ], "model":"gpt-4o", "temperature" : 1.0e0 }'
    call = ADAPTER.parse(Endpoint.CHAT, body)

    assert ADAPTER.upstream_body(call, "gpt-4o") is body
    assert ADAPTER.upstream_body(call, "x") == b'{"messages":[ ],"model":"x","temperature":1.0e0}'


def test_only_what_must_change_is_spliced() -> None:
    body = (
        b'{"priority":1,"x":{"b":1.50,"a":[ ]},"model":"gpt-4o","service_tier":"fast",'
        b'"stream":true,"stream_options":{"include_obfuscation":false,"include_usage":false},"messages":[]}'
    )

    assert ADAPTER.upstream_body(ADAPTER.parse(Endpoint.CHAT, body), "gpt-4o") == (
        b'{"x":{"b":1.50,"a":[ ]},"model":"gpt-4o","stream":true,'
        b'"stream_options":{"include_obfuscation":false,"include_usage":true},"messages":[]}'
    )


def test_a_tier_that_the_deployment_allows_stays_where_it_is() -> None:
    body = b'{"model":"gpt-4o", "service_tier": "flex", "messages":[]}'
    call = msgspec.structs.replace(ADAPTER.parse(Endpoint.CHAT, body), sends_tier=True)
    with_priority = ADAPTER.parse(Endpoint.CHAT, body[:-1] + b',"priority":1}')
    spliced = msgspec.structs.replace(with_priority, sends_tier=True)

    assert ADAPTER.upstream_body(call, "gpt-4o") is body
    assert ADAPTER.upstream_body(spliced, "gpt-4o") == (
        b'{"model":"gpt-4o","service_tier":"flex","messages":[]}'
    )


def test_fields_that_other_gateways_obey_change_neither_destination_nor_key() -> None:
    hostile = {
        "api_base": "http://evil.example",
        "base_url": "http://evil.example",
        "api_key": "sk-evil",
        "user_config": {"model_list": [{"litellm_params": {"api_base": "http://evil.example"}}]},
        "extra_headers": {"x-evil": "1"},
        "mock_response": "evil",
    }
    body = chat(**hostile)
    call = ADAPTER.parse(Endpoint.CHAT, body)
    headers = ADAPTER.upstream_headers(
        {"authorization": "Bearer sk-caller", "x-evil": "1", "cookie": "evil"}, "sk-operator"
    )

    assert ADAPTER.upstream_body(call, "gpt-4o") is body
    assert headers["authorization"] == "Bearer sk-operator"
    assert "evil" not in str(headers)
    assert sorted(headers) == [
        "accept", "accept-encoding", "authorization", "content-type", "user-agent",
    ]  # fmt: skip
    assert "authorization" not in ADAPTER.upstream_headers({}, None)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b"<html></html>", b"{}", b'{"choices":[]}', b'{"choices":null}',
        b'{"choices":{}}', b'{"choices":[{"x":"\xff"}]}', b'{"choices":[' + b"[" * 5000,
        b'{"choices":[ \n]}', b'{"choices":5}', b'{"choices":"[1]"}',
    ],
)  # fmt: skip
def test_an_answer_that_is_none_is_invalid(body: bytes) -> None:
    with pytest.raises(UpstreamInvalid):
        ADAPTER.usage(ADAPTER.parse(Endpoint.CHAT, chat()), body)


@pytest.mark.parametrize(
    "read",
    [
        lambda zeros: ADAPTER.usage(
            ADAPTER.parse(Endpoint.CHAT, chat()), b'{"choices":[' + zeros + b"]}"
        ),
        lambda zeros: ADAPTER.usage(
            ADAPTER.parse(Endpoint.EMBEDDINGS, b'{"model":"m","input":"x"}'),
            b'{"data":[' + zeros + b"]}",
        ),
        lambda zeros: ADAPTER.stream_reader(
            ADAPTER.parse(Endpoint.CHAT, chat(stream=True))
        ).feed(b'data: {"choices":[' + zeros + b"]}\n\n"),
    ],
    ids=["plain", "embeddings", "stream"],
)  # fmt: skip
def test_an_answer_of_many_items_takes_no_more_memory_than_its_bytes(
    read: Callable[[bytes], object],
) -> None:
    """64 MiB of zeros took 2.3 GiB."""
    zeros = b"0," * 250_000 + b"0"
    tracemalloc.start()
    try:
        read(zeros)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak_bytes < 5 * len(zeros)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            (
                '{"prompt_tokens":20,"completion_tokens":7,"total_tokens":27,'
                '"prompt_tokens_details":{"cached_tokens":12,"audio_tokens":0},'
                '"completion_tokens_details":{"reasoning_tokens":3}}'
            ),
            Usage(20, 7, 12, 3),
        ),
        ('{"prompt_tokens":5,"total_tokens":5}', Usage(5, 0)),
        ('{"prompt_tokens":5,"prompt_tokens_details":{"cached_tokens":99}}', Usage(5, 0, 5)),
        ('{"prompt_tokens":5,"prompt_tokens_details":null}', Usage(5, 0)),
        ("null", None),
        ('{"prompt_tokens":-1,"completion_tokens":1}', None),
        ('{"prompt_tokens":"5","completion_tokens":1}', None),
        ('{"prompt_tokens":1e300}', None),
        ("[]", None),
    ],
)
def test_usage_is_read_or_absent_never_guessed(usage: str, expected: Usage | None) -> None:
    body = f'{{"choices":[{{}}],"usage":{usage}}}'.encode()

    assert ADAPTER.usage(ADAPTER.parse(Endpoint.CHAT, chat()), body) == expected


@given(st.lists(st.integers(0, 1000), max_size=6), st.booleans())
def test_any_cut_of_a_stream_gives_the_same_bytes_and_counts(cuts: list[int], asked: bool) -> None:
    null = ',"usage":null'
    stream = b"".join(
        [
            b": queued\n\n", chunk(), chunk(rest=null), chunk(rest=null),
            chunk(rest=',"usage": null'),
            chunk("", "," + USAGE), DONE, b"\n",
        ]
    )  # fmt: skip
    options = {"include_usage": asked}
    call = ADAPTER.parse(Endpoint.CHAT, chat(stream=True, stream_options=options))
    reader = ADAPTER.stream_reader(call)
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    passed = b"".join(reader.feed(stream[a:b]) for a, b in pairwise(places))
    passed += reader.flush()
    hidden = stream.replace(chunk("", "," + USAGE), b"").replace(null.encode(), b"")

    assert passed == (stream if asked else hidden)
    assert (reader.usage, reader.finished, reader.failure) == (Usage(9, 4), True, None)
    assert reader.tokens_output_seen == 4


def test_a_stream_says_its_tier_with_its_usage() -> None:
    reader = ADAPTER.stream_reader(ADAPTER.parse(Endpoint.CHAT, chat(stream=True)))
    reader.feed(chunk() + chunk("", "," + USAGE + ',"service_tier":"flex"') + DONE)

    assert reader.usage == Usage(9, 4, service_tier="flex")


def test_usage_on_a_chunk_with_choices_stays_where_it_is() -> None:
    call = ADAPTER.parse(Endpoint.CHAT, chat(stream=True))
    reader = ADAPTER.stream_reader(call)
    last = chunk(rest="," + USAGE)

    assert reader.feed(chunk() + last + DONE) == chunk() + last + DONE
    assert reader.usage == Usage(9, 4)


def test_a_torn_stream_is_unfinished_and_its_torn_event_is_not_passed_on() -> None:
    reader = ADAPTER.stream_reader(ADAPTER.parse(Endpoint.CHAT, chat(stream=True)))

    assert reader.feed(chunk() + chunk()[:30]) == chunk()
    assert reader.flush() == b""
    assert not reader.finished
    assert reader.tokens_output_seen == 1


def test_an_end_without_its_blank_line_is_an_end() -> None:
    reader = ADAPTER.stream_reader(ADAPTER.parse(Endpoint.CHAT, chat(stream=True)))

    assert reader.feed(chunk() + b"data: [DONE]") + reader.flush() == chunk() + b"data: [DONE]"
    assert reader.finished


@pytest.mark.parametrize(
    "stream",
    [
        b"data: <html>\n\n", b"data: null\n\n", b"data: {\n\n", b"data: []\n\n",
        b'data: "\xff"\n\n',
        b'data: {"choices":5}\n\n', b'data: {"choices":"[1]"}\n\n',
        DONE, chunk() + b"data: {broken\n\n", chunk() + b'data: {"choices":[{\n\n' + chunk(),
    ],
)  # fmt: skip
def test_an_event_that_is_none_makes_the_answer_invalid(stream: bytes) -> None:
    reader = ADAPTER.stream_reader(ADAPTER.parse(Endpoint.CHAT, chat(stream=True)))

    with pytest.raises(UpstreamInvalid):
        reader.feed(stream)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ('{"message":"The server had an error","type":"server_error"}', FailureKind.UNAVAILABLE),
        ('{"message":"busy","code":503}', FailureKind.OVERLOADED),
        ('{"message":"slow down","code":429}', FailureKind.RATE),
        ('{"message":"x","type":"tokens","code":"rate_limit_exceeded"}', FailureKind.RATE),
        ('{"message":"no","type":"invalid_request_error"}', FailureKind.REJECTED),
        ('{"message":"no","type":"insufficient_quota"}', FailureKind.FATAL),
        ('"text only"', FailureKind.UNAVAILABLE),
    ],
)
def test_an_error_in_the_stream_is_held_back_and_classified(error: str, kind: FailureKind) -> None:
    reader = ADAPTER.stream_reader(ADAPTER.parse(Endpoint.CHAT, chat(stream=True)))
    event = f'data: {{"error":{error}}}\n\n'.encode()

    assert reader.feed(chunk() + event + chunk()) == chunk()
    assert reader.feed(chunk()) == b""
    assert reader.failure is not None
    assert reader.failure.kind == kind
    assert reader.failure_event == event


@pytest.mark.timeout(10)  # looked at one by one they take 12 s
def test_any_number_of_comments_and_blank_lines_passes_unread() -> None:
    reader = ADAPTER.stream_reader(ADAPTER.parse(Endpoint.CHAT, chat(stream=True)))
    flood = b":\n\n\n\n" * 10_000

    for _ in range(150):
        assert reader.feed(flood) == flood
    assert reader.feed(chunk()) == chunk()


def test_a_fat_event_counts_by_its_text() -> None:
    reader = ADAPTER.stream_reader(ADAPTER.parse(Endpoint.CHAT, chat(stream=True)))
    reader.feed(chunk('{"delta":{"content":"' + "word " * 2000 + '"}}'))

    assert 2000 <= reader.tokens_output_seen <= 3000


def test_limits_are_read_from_headers_in_their_true_format() -> None:
    headers = {
        "x-ratelimit-limit-requests": "5000",
        "x-ratelimit-remaining-requests": "4999",
        "x-ratelimit-reset-requests": "12ms",
        "x-ratelimit-limit-tokens": "150000",
        "x-ratelimit-remaining-tokens": "149984",
        "x-ratelimit-reset-tokens": "6m0s",
    }

    assert ADAPTER.limit_readings(headers, 0.0) == [
        LimitReading(LimitName.RPM, 5000.0, 4999.0, 0.012),
        LimitReading(LimitName.TPM, 150000.0, 149984.0, 360.0),
    ]


@pytest.mark.parametrize("wrong", ["NaN", "-1", "banana", "", "9" * 30, "1e9"])
def test_wrong_limit_headers_say_nothing(wrong: str) -> None:
    names = [f"x-ratelimit-{what}-requests" for what in ("limit", "remaining", "reset")]

    assert ADAPTER.limit_readings(dict.fromkeys(names, wrong), 0.0) == []


def error_body(message: str, kind: str | None = None, code: str | None = None) -> bytes:
    error = {"message": message, "type": kind, "param": None, "code": code}
    return json.dumps({"error": error}).encode()


PREFIX = "Rate limit reached for gpt-4o in organization org-x on "


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (
            429,
            error_body(
                PREFIX + "tokens per min (TPM): Limit 10000, Used 9990, Requested 40. "
                "Please try again in 6ms. Visit https://example.com to learn more.",
                "tokens",
                "rate_limit_exceeded",
            ),
            Failure(FailureKind.RATE, 0.006, LimitName.TPM),
        ),
        (
            429,
            error_body(
                PREFIX + "requests per min (RPM): Limit 3, Used 3, Requested 1. "
                "Please try again in 20s.",
                "requests",
            ),
            Failure(FailureKind.RATE, 20.0, LimitName.RPM),
        ),
        (
            429,
            error_body(
                PREFIX + "requests per day (RPD): Limit 200, Used 200, Requested 1. "
                "Please try again in 7m12s.",
                "requests",
            ),
            Failure(FailureKind.DAY, 432.0, LimitName.RPD),
        ),
        (
            429,
            error_body(PREFIX + "tokens per day (TPD): Limit 9, Used 9, Requested 1.", "tokens"),
            Failure(FailureKind.DAY, None, LimitName.TPD),
        ),
        (
            429,
            error_body("You exceeded your current quota", "insufficient_quota"),
            Failure(FailureKind.FATAL),
        ),
        (
            429,
            error_body(
                PREFIX + "requests per min (RPM): Limit 0, Used 0, Requested 1.", "requests"
            ),
            Failure(FailureKind.FATAL),
        ),
        (
            429,
            error_body("Request too large for gpt-4o on tokens per min (TPM): Limit 3", "tokens"),
            Failure(FailureKind.REJECTED, exceeds_context=True),
        ),
        (
            429,
            error_body("You have exceeded token rate limit. Please retry after 6 seconds."),
            Failure(FailureKind.RATE, 6.0, LimitName.TPM),
        ),
        (
            429,
            (
                b'[{"error":{"code":429,"message":"Quota exceeded","status":"RESOURCE_EXHAUSTED",'
                b'"details":[{"violations":[{"quotaId":"GenerateRequestsPerDayPerProject"}]}]}}]'
            ),
            Failure(FailureKind.DAY, None, LimitName.RPD),
        ),
        (429, b'{"error":{"code":"resource_unavailable"}}', Failure(FailureKind.OVERLOADED)),
        (429, b"<html>busy</html>", Failure(FailureKind.RATE)),
        (429, b"", Failure(FailureKind.RATE)),
        (429, b'{"error":' + b"[" * 5000, Failure(FailureKind.RATE)),
        (401, b"{}", Failure(FailureKind.AUTH)),
        (403, b"{}", Failure(FailureKind.AUTH)),
        (402, b"{}", Failure(FailureKind.FATAL)),
        (
            400,
            error_body("maximum context length"),
            Failure(FailureKind.REJECTED, exceeds_context=True),
        ),
        (404, b"{}", Failure(FailureKind.REJECTED)),
        (307, b"", Failure(FailureKind.UNAVAILABLE)),
        (408, b"", Failure(FailureKind.UNAVAILABLE)),
        (409, b"", Failure(FailureKind.UNAVAILABLE)),
        (500, b"", Failure(FailureKind.UNAVAILABLE)),
        (502, b"", Failure(FailureKind.UNAVAILABLE)),
        (503, b"", Failure(FailureKind.OVERLOADED)),
        (529, b"", Failure(FailureKind.OVERLOADED)),
    ],
)
def test_errors_are_classified_by_what_they_say(
    status: int, body: bytes, expected: Failure
) -> None:
    assert ADAPTER.classify(status, {}, body) == expected


@given(st.integers(100, 599), st.binary(max_size=200), st.text(max_size=30))
def test_no_answer_breaks_the_classification(status: int, body: bytes, value: str) -> None:
    for adapter in ADAPTERS.values():
        headers = {"retry-after": value, "retry-after-ms": value, "date": value}
        failure = adapter.classify(status, headers, body)
        wait_seconds = failure.retry_after_seconds

        assert wait_seconds is None or 0 <= wait_seconds <= 86_400


def test_the_registry_knows_each_kind_by_its_name() -> None:
    assert {kind: adapter.kind for kind, adapter in ADAPTERS.items()} == {
        kind: kind for kind in get_args(ProviderKind)
    }
