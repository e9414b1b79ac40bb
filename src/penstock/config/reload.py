"""What a reload of the configuration can change, and what it cannot."""

from __future__ import annotations

from typing import Any

from penstock.config.model import Config


def chains_part(config: Config) -> tuple[Any, ...]:
    """What workers are started with: where it differs, they are replaced."""
    return config.chains, config.path, config.classes


def needing_restart(old: Config, new: Config) -> list[str]:
    """The changed settings that a running service cannot take over."""
    pairs = {
        "server.host": (old.server.host, new.server.host),
        "server.port": (old.server.port, new.server.port),
        "workers": (old.workers, new.workers),
        "store": (old.store, new.store),
        "cache.storage": (old.cache.storage, new.cache.storage),
    }
    return [name for name, (before, after) in pairs.items() if before != after]
