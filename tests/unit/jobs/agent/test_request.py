"""Bodies of the Agent Server protocol: each field by its name, or a refusal that names it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from penstock.errors import CallError
from penstock.jobs.agent.request import (
    _FIELDS,
    RunBody,
    RunRequest,
    assistant_id,
    read_run,
    uuid_of,
)


def read(**fields: Any) -> RunRequest:
    return read_run(json.dumps({"assistant_id": "a", **fields}).encode())


def test_what_the_graph_understands_passes_as_the_bytes_that_came() -> None:
    request = read_run(b'{"assistant_id":"a","input":{"x": 1.10},"config":null}')

    assert bytes(request.to_worker["input"]) == b'{"x": 1.10}'
    assert "config" not in request.to_worker
    assert bytes(request.to_worker["stream_mode"]) == b'["values"]'
    assert (request.multitask, request.creates_thread) == ("enqueue", False)
    assert request.cancels_on_disconnect is False


def test_a_checkpoint_can_be_named_in_either_way() -> None:
    assert bytes(read(checkpoint_id="1-a").to_worker["checkpoint_id"]) == b'"1-a"'
    whole = {"checkpoint_id": "1-a", "checkpoint_ns": "", "thread_id": "t"}
    assert bytes(read(checkpoint=whole).to_worker["checkpoint_id"]) == b'"1-a"'
    assert bytes(read(checkpoint_during=False).to_worker["durability"]) == b'"exit"'


@pytest.mark.parametrize(
    ("fields", "status", "named"),
    [
        ({"colour": 1}, 422, "colour"),
        ({"feedback_keys": ["a"]}, 501, "feedback_keys"),
        ({"checkpoint": {"checkpoint_ns": "inner"}}, 501, "subgraphs"),
        ({"checkpoint_id": "../x"}, 422, "checkpoint"),
        ({"multitask_strategy": "both"}, 422, "multitask_strategy"),
        ({"stream_mode": ["a b"]}, 400, "stream_mode"),
        ({"after_seconds": -1}, 400, "after_seconds"),
        ({"metadata": {"a": "x" * 20_000}}, 422, "metadata"),
        ({"assistant_id": None}, 422, "assistant_id"),
    ],
)
def test_a_refusal_names_the_field(fields: dict[str, Any], status: int, named: str) -> None:
    with pytest.raises(CallError, match=named) as refused:
        read(**fields)

    assert refused.value.status == status


def test_the_ids_of_threads_are_uuids_and_those_of_assistants_stay() -> None:
    text = "6BA7B821-9DAD-11D1-80B4-00C04FD430C8"

    assert uuid_of(text, "thread's id") == text.lower()
    assert assistant_id("agent") == assistant_id("agent") != assistant_id("Agent")
    for bad in ("x", "../../etc", "0" * 100):
        with pytest.raises(CallError):
            uuid_of(bad, "thread's id")


def test_every_field_that_is_described_is_one_that_is_read() -> None:
    names = {field.encode_name for field in msgspec.structs.fields(RunBody)}

    assert names <= _FIELDS
    body = RunBody(assistant_id="a", multitask_strategy="reject", stream_mode=["values"])
    assert read_run(msgspec.json.encode(body)).assistant == "a"
