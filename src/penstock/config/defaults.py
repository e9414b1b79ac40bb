"""What runs without a file, and what a file need not repeat.

Three things are filled in under a file: the three classes (key by key), the key ``dev`` for a
service on loopback that names no key, and the sandbox for a file that names neither provider
nor deployment, so that a first chain can be tried with four lines of configuration. Each of
them but the classes is said at start.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from penstock.config.model import (
    ChainTable,
    ClassTable,
    Config,
    DeploymentTable,
    KeyTable,
    ProviderTable,
)

DEV_KEY = "dev"
"""Name and value of the key for a service that only this machine can reach."""

SANDBOX = "sandbox"
"""The sandbox's model, and its provider and deployment under the OpenAI protocol."""

SANDBOX_ANTHROPIC = "sandbox-anthropic"
"""Its provider and deployment under Anthropic's protocol, with limits of its own."""

CLASSES: dict[str, dict[str, Any]] = {
    "interactive": {"rank": 0, "reserve": 0.0, "order": "remaining", "quantum_seconds": 16.0},
    "standard": {"rank": 1, "reserve": 1.0, "min_share": 0.05, "order": "deadline"},
    "batch": {"rank": 2, "reserve": 1.0, "min_share": 0.05},
}
"""The built-in classes as they would stand in a file; a file's own keys go on top."""


def example_chains() -> Path:
    """The directory of the example chains: beside the package in a wheel, else in a checkout."""
    package = Path(__file__).resolve().parents[1]
    shipped = package / "examples"
    return shipped if shipped.is_dir() else package.parents[1] / "examples" / "chains"


def sandbox_providers(port: int = 0) -> dict[str, ProviderTable]:
    """The sandbox, as an account under each protocol. Port 0: not known yet."""
    address = f"http://127.0.0.1:{port}"
    return {
        SANDBOX: ProviderTable(kind="openai", base_url=f"{address}/v1"),
        SANDBOX_ANTHROPIC: ProviderTable(kind="anthropic", base_url=address),
    }


def sandbox_deployments() -> dict[str, DeploymentTable]:
    """The sandbox's one model, under limits that a demonstration reaches within seconds."""
    return {
        name: DeploymentTable(
            provider=name,
            model=SANDBOX,
            serves=[SANDBOX],
            rpm=600.0,
            tpm=100_000.0,
            burst_seconds=60.0,
        )
        for name in (SANDBOX, SANDBOX_ANTHROPIC)
    }


def dev_key() -> KeyTable:
    """The key of a service that only this machine can reach: it may do everything, at once."""
    return KeyTable(tenant=DEV_KEY, class_default="interactive", admin=True)


def built_in() -> Config:
    """The configuration without a file: loopback, key ``dev``, sandbox, example chains."""
    return Config(
        path=[str(example_chains())],
        providers=sandbox_providers(),
        deployments=sandbox_deployments(),
        classes=msgspec.convert(CLASSES, dict[str, ClassTable]),
        chains={
            name: ChainTable(import_path=f"{name}:chain", show_steps=True, description=description)
            for name, description in (
                ("haiku", "a prompt, a model and a parser"),
                ("brief", "three calls in sequence"),
                ("agent", "a LangGraph graph with a tool"),
                ("keywords", "spaCy and numpy, without an LLM"),
            )
        },
    )


def with_sandbox_port(config: Config, port: int) -> Config:
    """``config`` with its built-in sandbox providers pointed at the sandbox's real port."""
    return msgspec.structs.replace(
        config, providers={**config.providers, **sandbox_providers(port)}
    )
