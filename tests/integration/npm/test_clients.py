"""The JavaScript SDKs of the providers work unmodified: answers, streams, refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Script = Callable[[str], dict[str, Any]]

pytestmark = pytest.mark.node


def test_the_openai_package_gets_answers_streams_and_errors_in_its_own_shape(
    script: Script, target: dict[str, str]
) -> None:
    seen = script("openai_chat.mjs")
    plain, stream, counted = seen["plain"], seen["stream"], seen["stream_with_usage"]

    assert "three rivers" in plain["text"]
    assert (plain["ending"], stream["ending"]) == ("stop", "stop")
    assert plain["usage"]["completion_tokens"] > 0
    assert plain["request"]
    assert stream["text"] == counted["text"] == plain["text"]
    assert stream["pieces"] > 1
    assert stream["usage"] is None, "usage is shown to those only who asked for it"
    assert counted["usage"] == plain["usage"]
    assert (seen["unknown_model"]["name"], seen["unknown_model"]["status"]) == (
        "NotFoundError",
        404,
    )
    assert "model" in seen["unknown_model"]["message"]
    # The sandbox takes any key; what is checked is ours.
    if target["KEY"] != "any":
        assert (seen["wrong_key"]["name"], seen["wrong_key"]["status"]) == (
            "AuthenticationError",
            401,
        )


def test_the_anthropic_package_gets_answers_streams_and_errors_in_its_own_shape(
    script: Script, target: dict[str, str]
) -> None:
    seen = script("anthropic_messages.mjs")
    plain, stream = seen["plain"], seen["stream"]

    assert "three rivers" in plain["text"]
    assert (plain["ending"], stream["ending"]) == ("end_turn", "end_turn")
    assert plain["usage"]["output_tokens"] > 0
    assert plain["request"]
    assert stream["text"] == plain["text"]
    assert stream["pieces"] > 1
    assert stream["usage"]["output_tokens"] == plain["usage"]["output_tokens"]
    assert seen["unknown_model"]["name"] == "NotFoundError"
    assert seen["unknown_model"]["type"] == "not_found_error"
    if target["KEY"] != "any":
        assert seen["wrong_key"]["name"] == "AuthenticationError"
        assert seen["wrong_key"]["type"] == "authentication_error"
