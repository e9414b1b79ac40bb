"""Chains in a real service, and callers who mean harm."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

CONFIG = f"""
path = ["{Path(__file__).parent}"]
[workers]
count = 1
[keys.person]
tenant = "web"
key_env = "PERSON_KEY"
[keys.narrow]
tenant = "narrow"
chains = ["upper"]
key_env = "NARROW_KEY"
"""
CHAINS = ("upper", "fail", "tokens", "prompt_chat", "configurable")
KEYS = {
    "PERSON_KEY": "person-key-with-enough-letters",
    "NARROW_KEY": "narrow-key-with-enough-letters",
}
MARKER = "a-prompt-that-is-nobodys-business"


@pytest.fixture(scope="module")
def service(serve):
    tables = (f'[chains.{name}]\nimport = "contract_chains:{name}"\n' for name in CHAINS)
    running = serve(CONFIG + "".join(tables), **KEYS)
    running.wait_ready()
    return running


@pytest.fixture(scope="module")
def http(service):
    headers = {"Authorization": f"Bearer {KEYS['PERSON_KEY']}"}
    with httpx.Client(base_url=f"{service.url}/chains", headers=headers, timeout=30) as client:
        yield client


def test_what_a_chain_was_working_on_reaches_the_log_no_more_than_the_caller(service, http, poll):
    """A chain's exceptions hold its input: their places and types are logged, not their texts."""
    for endpoint, body in (
        ("invoke", {"input": f"boom {MARKER}"}),
        ("stream", {"input": f"boom {MARKER}"}),
        ("batch", {"inputs": [f"boom {MARKER}"]}),
    ):
        assert 500 == http.post(f"/fail/{endpoint}", json=body).status_code

    poll(lambda: 3 == service.log.read_text().count("builtins.ValueError"))
    log = service.log.read_text()
    assert "contract_chains.py" in log
    assert MARKER not in log
    assert "SECRET" not in log
