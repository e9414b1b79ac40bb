"""Six JavaScript clients in every situation of a call, each as its own process does them all."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytestmark = pytest.mark.node

HERE = Path(__file__).parent
CLIENTS = (
    "openai",
    "anthropic",
    "langchainOpenai",
    "langchainAnthropic",
    "vercelOpenai",
    "vercelAnthropic",
)
CONFIG = """
[workers]
count = 0
[providers.openai]
kind = "openai"
base_url = "{url}/v1"
key_env = "SANDBOX_KEY"
[providers.anthropic]
kind = "anthropic"
base_url = "{url}"
key_env = "SANDBOX_KEY"
[providers.openai-paced]
kind = "openai"
base_url = "{paced}/v1"
key_env = "SANDBOX_KEY"
[providers.anthropic-paced]
kind = "anthropic"
base_url = "{paced}"
key_env = "SANDBOX_KEY"
[providers.openai-rare]
kind = "openai"
base_url = "{rare}/v1"
key_env = "SANDBOX_KEY"
[providers.anthropic-rare]
kind = "anthropic"
base_url = "{rare}"
key_env = "SANDBOX_KEY"
[keys.person]
tenant = "web"
key_env = "PERSON_KEY"
"""
DEPLOYMENTS = """
[deployments.{kind}-free]
provider = "{kind}"
model = "sandbox"
serves = ["free"]
concurrency = 50
[deployments.{kind}-tight]
provider = "{kind}"
model = "tight"
rpm = 30
burst_seconds = 2
[deployments.{kind}-paced]
provider = "{kind}-paced"
model = "sandbox"
serves = ["paced"]
concurrency = 50
[deployments.{kind}-rare]
provider = "{kind}-rare"
model = "sandbox"
serves = ["rare"]
rpm = 13
burst_seconds = 4.6
"""
KEYS = {"SANDBOX_KEY": "upstream-key", "PERSON_KEY": "person-key-with-enough-letters"}


@pytest.fixture(scope="module")
def sandboxes(running: Callable[..., Any], fast_sandbox: Callable[..., Any]) -> tuple[Any, Any]:
    """A provider that answers at once, and one that takes its time."""
    pace = ["--latency-ms", "5", "--tokens-per-second", "20"]
    return fast_sandbox("--model", "tight"), running("sandbox", "--port", "0", *pace)


@pytest.fixture(scope="module")
def service(
    sandboxes: tuple[Any, Any], fast_sandbox: Callable[..., Any], serve: Callable[..., Any]
) -> Any:
    fast, paced = sandboxes
    config = CONFIG.format(url=fast.url, paced=paced.url, rare=fast_sandbox().url)
    for kind in ("openai", "anthropic"):
        config += DEPLOYMENTS.format(kind=kind)
    started = serve(config, **KEYS)
    started.wait_ready()
    return started


@pytest.fixture(scope="module", params=CLIENTS)
def seen(request, program, packages: None, service, sandboxes) -> dict[str, Any]:
    target = {"URL": service.url, "KEY": KEYS["PERSON_KEY"], "SANDBOX": sandboxes[0].url}
    finished = subprocess.run(
        [program("node"), "matrix.mjs"],
        cwd=HERE,
        env={"PATH": os.environ["PATH"], "PENSTOCK_CLIENT": request.param}
        | {f"PENSTOCK_{name}": value for name, value in target.items()},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert finished.returncode == 0, finished.stderr
    printed: dict[str, Any] = msgspec.json.decode(finished.stdout)
    return printed


def test_every_client_gets_what_it_asked_for(seen: dict[str, Any]) -> None:
    assert "three rivers" in seen["plain"]
    assert seen["stream"]["pieces"] > 3
    assert seen["stream"]["text"] == seen["plain"]
    assert seen["tool"] == "weather"


def test_pressure_is_a_wait_and_an_impossible_wait_a_429(seen: dict[str, Any]) -> None:
    assert "three rivers" in seen["waited"]["text"]
    assert seen["waited"]["ms"] >= 1_000
    assert "text" not in seen["refused"]
    assert seen["refused"]["status"] == 429 or seen["refused"]["code"] == "MODEL_RATE_LIMIT"


def test_a_stream_that_is_told_of_its_wait_for_seconds_comes_whole(seen: dict[str, Any]) -> None:
    """Its head came after a second, then comments: at once and three seconds later."""
    for one in seen["told"]:
        assert one["text"] == seen["plain"]
        assert one["pieces"] > 3
    assert max(one["ms"] for one in seen["told"]) >= 4_300


def test_a_cancelled_call_ends_at_once_on_both_sides(
    seen: dict[str, Any], service: Any, sandboxes: tuple[Any, Any], poll: Callable[..., None]
) -> None:
    assert "text" not in seen["cancelledWaiting"]
    assert seen["cancelledWaiting"]["ms"] < 1_500, "the wait was two seconds"
    assert seen["cancelledStreaming"]["ms"] < 2_000, "the whole stream takes longer"
    poll(lambda: sandboxes[1].get("/stats")[1]["in_flight"] == 0)
    outcomes = [line for line in service.logged() if line.get("door") == "gateway"]
    assert {line["outcome"] for line in outcomes} >= {"cancelled_waiting", "cancelled_sent"}
    assert sandboxes[1].get("/stats")[1]["cancelled"] >= 1


def test_a_provider_that_fails_is_asked_again_or_told_of_never_a_good_end(
    seen: dict[str, Any],
) -> None:
    failing = seen["failing"]

    for fault in ("500", "529", "reset-before"):
        assert "three rivers" in failing[fault]["text"], "asked again, unseen"
    for fault, status in {"401": 502, "400-context": 400, "html": 502, "empty": 502}.items():
        assert "text" not in failing[fault], fault
        assert failing[fault]["status"] in (status, None), fault
    for fault in ("reset-mid-stream", "error-mid-stream", "truncated-json"):
        assert "text" not in failing[fault], fault
