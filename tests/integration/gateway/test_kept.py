"""A conversation that a provider keeps goes on after a restart, with its own tenant alone."""

from __future__ import annotations

import openai
import pytest

CONFIG = """
[workers]
count = 0
[store]
path = "{store}"
[providers.one]
kind = "openai"
base_url = "{url}/v1"
[providers.two]
kind = "openai"
base_url = "{url}/v1"
key_env = "UPSTREAM_KEY"
[deployments.one]
provider = "one"
model = "sandbox"
[deployments.two]
provider = "two"
model = "sandbox"
[keys.mine]
tenant = "mine"
key_env = "MY_KEY"
[keys.theirs]
tenant = "theirs"
key_env = "THEIR_KEY"
"""
KEYS = {
    "UPSTREAM_KEY": "upstream-key",
    "MY_KEY": "my-key-with-enough-letters",
    "THEIR_KEY": "their-key-with-enough-letters",
}


def test_a_conversation_goes_on_where_it_is_kept_after_a_restart(fast_sandbox, serve, tmp_path):
    config = CONFIG.replace("{url}", fast_sandbox().url).replace("{store}", str(tmp_path))

    def client(service, name):
        return openai.OpenAI(base_url=f"{service.url}/v1", api_key=KEYS[name], max_retries=0)

    before = serve(config, **KEYS)
    with client(before, "MY_KEY") as mine:
        first = mine.responses.with_raw_response.create(model="sandbox", input="Tell me of rivers")
        keeper, response_id = first.headers["penstock-deployment"], first.parse().id
    assert 0 == before.stop()

    after = serve(config, **KEYS)
    with client(after, "MY_KEY") as mine, client(after, "THEIR_KEY") as theirs:
        keepers = [
            mine.responses.with_raw_response.create(
                model="sandbox", input="And lakes?", previous_response_id=response_id
            ).headers["penstock-deployment"]
            for _ in range(3)
        ]
        with pytest.raises(openai.BadRequestError, match="names no response that is kept"):
            theirs.responses.create(
                model="sandbox", input="Go on", previous_response_id=response_id
            )
    assert [keeper] * 3 == keepers
