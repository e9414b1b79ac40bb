"""Points every model that a chain constructs at the gateway, by environment variables alone.

``LANGSMITH_GATEWAY`` redirects unmodified LangChain models (langchain-core >= 1.5) and leaves
their streaming usage on, which an explicit base URL would switch off; ``OPENAI_BASE_URL`` and
``ANTHROPIC_BASE_URL`` do the same for the bare SDKs. Variables that would win over them are
removed. Must run before the first chain is imported: models read the environment when they are
constructed, which is mostly at import.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from urllib.parse import urlsplit

OVERRULING = ("OPENAI_API_BASE", "ANTHROPIC_API_URL", "OPENAI_PROXY", "ANTHROPIC_PROXY")
"""Variables that LangChain reads before ``LANGSMITH_GATEWAY``."""

TRACING = ("LANGSMITH_TRACING", "LANGSMITH_TRACING_V2", "LANGCHAIN_TRACING", "LANGCHAIN_TRACING_V2")


def point_at_gateway(
    environment: MutableMapping[str, str], gateway_url: str, gateway_key: str
) -> None:
    """Change ``environment`` so that LangChain, openai and anthropic call the gateway.

    ``gateway_url`` is an origin such as ``http://127.0.0.1:8787``. Tracing to LangSmith is
    switched off unless the operator said something about it; the gateway's host is never
    reached through a proxy.
    """
    gateway_url = gateway_url.rstrip("/")
    for name in OVERRULING:
        environment.pop(name, None)
    environment.update(
        LANGSMITH_GATEWAY=gateway_url,
        LANGSMITH_GATEWAY_API_KEY=gateway_key,
        OPENAI_BASE_URL=f"{gateway_url}/openai/v1",
        OPENAI_API_KEY=gateway_key,
        ANTHROPIC_BASE_URL=f"{gateway_url}/anthropic",
        ANTHROPIC_API_KEY=gateway_key,
    )
    if not any(name in environment for name in TRACING):
        environment["LANGSMITH_TRACING"] = "false"
    host = urlsplit(gateway_url).hostname or ""
    for name in ("NO_PROXY", "no_proxy"):
        direct = [part for part in environment.get(name, "").split(",") if part]
        if host not in direct:
            environment[name] = ",".join([*direct, host])
