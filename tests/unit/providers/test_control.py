"""What a body says of its time and its run: read where it has the form, and not sent on."""

from __future__ import annotations

import json

import pytest

from penstock.errors import InvalidRequest
from penstock.providers.base import Endpoint
from penstock.providers.registry import READERS

BODIES = {
    Endpoint.CHAT: {"model": "m", "messages": []},
    Endpoint.MESSAGES: {"model": "m", "messages": [], "max_tokens": 5},
    Endpoint.RESPONSES: {"model": "m", "input": "x"},
}


def parsed(endpoint, **fields):
    body = json.dumps({**BODIES[endpoint], **fields}).encode()
    return READERS[endpoint].parse(endpoint, body)


@pytest.mark.parametrize("endpoint", BODIES)
def test_time_and_run_are_read_and_background_options_stay_here(endpoint):
    options = {"completion_window": "15m", "continuation_id": "run-7"}
    call = parsed(endpoint, metadata={"deadline": "30"}, background_options=options)

    assert ("30", 900.0, "run-7") == (call.deadline, call.window_seconds, call.continuation_id)
    sent = json.loads(READERS[endpoint].upstream_body(call, "m"))
    assert {"deadline": "30"} == sent["metadata"]
    assert "background_options" not in sent


@pytest.mark.parametrize("metadata", [None, {}, {"deadline": None}, {"deadline": True}])
def test_metadata_without_a_deadline_say_nothing(metadata):
    assert parsed(Endpoint.CHAT, metadata=metadata).deadline is None


def test_metadata_of_another_form_are_the_caller_s_own():
    assert parsed(Endpoint.CHAT, metadata=["deadline"]).deadline is None


@pytest.mark.parametrize(
    "options",
    [
        "24h",
        {"completion_window": "soon"},
        {"completion_window": "1w"},
        {"completion_window": 5},
        {"continuation_id": ""},
        {"continuation_id": "a b"},
    ],
)
def test_background_options_of_another_form_are_refused_by_name(options):
    with pytest.raises(InvalidRequest) as caught:
        parsed(Endpoint.CHAT, background_options=options)
    assert "background_options" == caught.value.param
