"""Every model that a chain constructs finds the gateway in the environment."""

from penstock.chains.worker.environment import point_at_gateway


def pointed(**environment):
    point_at_gateway(environment, "http://127.0.0.1:8787/", "key")
    return environment


def test_the_providers_own_addresses_and_keys_are_replaced():
    came = pointed(
        OPENAI_API_KEY="real", OPENAI_API_BASE="https://a", ANTHROPIC_API_URL="https://b"
    )

    assert "OPENAI_API_BASE" not in came
    assert "ANTHROPIC_API_URL" not in came
    assert ("key", "http://127.0.0.1:8787/openai/v1") == (
        came["OPENAI_API_KEY"],
        came["OPENAI_BASE_URL"],
    )
    assert ("key", "http://127.0.0.1:8787/anthropic") == (
        came["ANTHROPIC_API_KEY"],
        came["ANTHROPIC_BASE_URL"],
    )
    assert "http://127.0.0.1:8787" == came["LANGSMITH_GATEWAY"]


def test_tracing_is_off_unless_the_operator_set_it():
    assert "false" == pointed()["LANGSMITH_TRACING"]
    assert "LANGSMITH_TRACING" not in pointed(LANGCHAIN_TRACING_V2="true")


def test_the_gateway_is_never_reached_through_a_proxy():
    assert "internal,127.0.0.1" == pointed(no_proxy="internal")["no_proxy"]
    assert "127.0.0.1" == pointed()["NO_PROXY"]
