"""An error in a stream that has begun: in the shape of its protocol."""

from __future__ import annotations

import json

import pytest

from penstock.errors import DeadlineExceeded, UpstreamRejected
from penstock.gateway.late_errors import late_error
from penstock.providers.base import Endpoint

REFUSAL = UpstreamRejected(400, b'{"error":{"message":"Too long.","type":"t","code":"c"}}')
NO_REFUSAL = UpstreamRejected(400, b'[{"error":{"message":"Too long."}}]')


def lines(*arguments):
    return late_error(*arguments).decode().split("\n")


@pytest.mark.parametrize(("endpoint", "head"), [(Endpoint.CHAT, 0), (Endpoint.MESSAGES, 1)])
def test_a_provider_s_refusal_is_passed_on_where_clients_can_read_it(endpoint, head):
    said = lines(REFUSAL, endpoint, "r", None, 0)

    assert ["event: error"] * head == said[:head]
    assert f"data: {REFUSAL.body.decode()}" == said[head]


def test_a_refusal_of_another_form_is_said_in_our_words():
    data = json.loads(lines(NO_REFUSAL, Endpoint.CHAT, "r", None, 0)[0].removeprefix("data: "))
    assert "status 400" in data["error"]["message"]


def test_a_responses_stream_tells_the_refusal_in_its_last_event():
    said = lines(REFUSAL, Endpoint.RESPONSES, "r", "resp_1", 4)

    failed = json.loads(said[1].removeprefix("data: "))
    assert "event: response.failed" == said[0]
    assert (4, "resp_1") == (failed["sequence_number"], failed["response"]["id"])
    assert "Too long." == failed["response"]["error"]["message"]


def test_a_responses_stream_that_never_began_is_created_first():
    said = lines(DeadlineExceeded("Too late."), Endpoint.RESPONSES, "r", None, 0)

    events = [json.loads(line[6:]) for line in said if line.startswith("data: ")]
    assert ["response.created", "response.failed"] == [event["type"] for event in events]
    assert [0, 1] == [event["sequence_number"] for event in events]
