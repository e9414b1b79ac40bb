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


def test_the_openai_package_calls_models_and_chains_alike(typescript: Script) -> None:
    seen = typescript("with_openai")

    assert {"sandbox", "chain:haiku", "chain:agent"} <= set(seen["models"])
    assert seen["model"]
    assert seen["chain"]
    assert seen["chain_streamed"]["pieces"] > 1
    assert seen["cancelled"] == "cancelled"
