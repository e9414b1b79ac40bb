"""The Responses API, against answers written down in their true format."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import InvalidRequest, NotServed, UpstreamInvalid
from penstock.providers import responses
from penstock.providers.base import Endpoint, FailureKind
from penstock.providers.openai import OpenAIAdapter
from penstock.units import Usage

ADAPTER = OpenAIAdapter()
USAGE = {
    "input_tokens": 20,
    "input_tokens_details": {"cached_tokens": 8},
    "output_tokens": 5,
    "output_tokens_details": {"reasoning_tokens": 3},
}
ANSWER = {"id": "resp_1", "object": "response", "output": [], "usage": USAGE}


def event(name: str, number: int, **fields: object) -> bytes:
    data = {"type": name, "sequence_number": number, **fields}
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def stream(*last: bytes) -> bytes:
    begun = {"id": "resp_1", "output": [], "usage": None}
    deltas = [event("response.output_text.delta", number, delta="word ") for number in range(1, 6)]
    return b"".join([event("response.created", 0, response=begun), *deltas, *last])


WHOLE = stream(event("response.completed", 6, response=ANSWER))


def parsed(**fields: object):
    body = json.dumps({"model": "m", "input": "Hi", **fields}).encode()
    return ADAPTER.parse(Endpoint.RESPONSES, body)


def test_control_fields_are_read_and_ours_do_not_leave() -> None:
    call = parsed(max_output_tokens=9, background=True, prompt_cache_key="k", stream=False)

    assert (9, True, "k") == (call.tokens_output_max, call.background, call.cache_key)
    assert b"background" not in ADAPTER.upstream_body(call, "m")


def test_a_body_in_which_nothing_must_change_is_the_same_object() -> None:
    call = parsed(previous_response_id="resp_1", some_new_field={"a": [1]})
    assert call.body is ADAPTER.upstream_body(call, "m")


@pytest.mark.parametrize(
    "fields",
    [{"input": 1}, {"previous_response_id": "a b"}, {"previous_response_id": ""},
     {"background": "yes"}, {"max_output_tokens": -1}],
)  # fmt: skip
def test_a_control_field_of_a_wrong_kind_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest):
        parsed(**fields)


def test_state_that_all_tenants_would_share_is_refused_by_name() -> None:
    with pytest.raises(NotServed, match="conversation"):
        parsed(conversation={"id": "conv_1"})


def test_usage_is_read_or_absent() -> None:
    call = parsed()
    assert Usage(20, 5, 8, 3) == ADAPTER.usage(call, json.dumps(ANSWER).encode())
    assert ADAPTER.usage(call, b'{"output":[],"usage":{"input_tokens":-1}}') is None
    for body in (b"{}", b"null", b"<html>", b'{"output":"x"}', b'{"output":[],"id":"\xff"}'):
        with pytest.raises(UpstreamInvalid):
            ADAPTER.usage(call, body)


@given(st.lists(st.integers(0, len(WHOLE)), max_size=8))
def test_any_cut_of_a_stream_passes_it_untouched_and_counts_it(cuts: list[int]) -> None:
    reader = ADAPTER.stream_reader(parsed(stream=True))
    places = sorted({0, *cuts, len(WHOLE)})
    passed = b"".join(reader.feed(WHOLE[a:b]) for a, b in pairwise(places))
    assert WHOLE == passed + reader.flush()
    assert reader.finished
    assert (Usage(20, 5, 8, 3), "resp_1", 7) == (
        reader.usage, reader.response_id, reader.events_seen,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("server_error", FailureKind.UNAVAILABLE),
        ("rate_limit_exceeded", FailureKind.RATE),
        ("insufficient_quota", FailureKind.FATAL),
        ("invalid_prompt", FailureKind.REJECTED),
        ("context_length_exceeded", FailureKind.REJECTED),
    ],
)
@pytest.mark.parametrize("flat", [True, False])
def test_an_error_in_the_stream_is_held_back_and_classified(
    code: str, kind: FailureKind, flat: bool
) -> None:
    error = {"code": code, "message": "no"}
    last = (
        event("error", 6, **error)
        if flat
        else event("response.failed", 6, response={**ANSWER, "error": error})
    )
    reader = ADAPTER.stream_reader(parsed(stream=True))

    assert stream() == reader.feed(stream(last))
    assert reader.failure is not None
    assert kind is reader.failure.kind
    assert last == reader.failure_event
    assert code == json.loads(reader.failure_body)["error"]["code"]
    assert reader.failure.exceeds_context == (code == "context_length_exceeded")


def test_our_own_late_error_is_the_protocol_s_end() -> None:
    head, data = responses.failed_event("resp_1", 7, "odd", "It broke.").split(b"\n", 1)
    said = json.loads(data.removeprefix(b"data: "))
    assert b"event: response.failed" == head
    assert (7, "resp_1", "failed", "server_error") == (
        said["sequence_number"], said["response"]["id"],
        said["response"]["status"], said["response"]["error"]["code"],
    )  # fmt: skip
