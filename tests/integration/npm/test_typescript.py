"""The TypeScript example compiles without complaint, and does what it says against a service."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Script = Callable[[str], dict[str, Any]]

pytestmark = pytest.mark.node


def test_fetch_calls_streams_bounds_and_cancels_a_chain(typescript: Script) -> None:
    seen = typescript("with_fetch")

    assert seen["whole"]
    assert seen["streamed"]["pieces"] > 1
    assert seen["streamed"]["text"]
    assert seen["cancelled"] == "AbortError"
    assert seen["too_late"] == {"status": 504, "code": "deadline_exceeded"}
    assert seen["bad_input"] == {"status": 422, "code": "unprocessable"}


def test_the_langgraph_sdk_runs_streams_joins_and_remembers(typescript: Script) -> None:
    seen = typescript("with_langgraph")

    assert {"haiku", "agent"} <= set(seen["assistants"])
    assert seen["whole"]
    assert set(seen["streamed"]["modes"]) == {"metadata", "messages", "updates"}
    assert seen["streamed"]["text"]
    assert (seen["come_back_to"]["status"], seen["come_back_to"]["events"]) == (
        "success",
        ["metadata", "values"],
    )
    assert seen["come_back_to"]["joined"]
    assert seen["remembered"]["second"] > seen["remembered"]["first"]
    assert seen["remembered"]["shown"] == seen["remembered"]["second"]
    assert seen["remembered"]["status"] == "idle"
    assert seen["cancelled"] == "interrupted"


def test_the_openai_package_calls_models_and_chains_alike(typescript: Script) -> None:
    seen = typescript("with_openai")

    assert {"sandbox", "chain:haiku", "chain:agent"} <= set(seen["models"])
    assert seen["model"]
    assert seen["chain"]
    assert seen["chain_streamed"]["pieces"] > 1
    assert seen["cancelled"] == "cancelled"
