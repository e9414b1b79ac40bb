"""What the tests of the configuration share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from penstock.config.load import Loaded, load_with_secrets
from penstock.errors import ConfigError


@pytest.fixture
def loaded(tmp_path: Path) -> Callable[..., Loaded]:
    """Loads a text as ``penstock.toml``, in an environment that holds nothing else."""

    def load(text: str, environment: Mapping[str, str] | None = None, **options: object) -> Loaded:
        file = tmp_path / "penstock.toml"
        file.write_text(text, "utf-8")
        return load_with_secrets(file, environment=environment or {}, **options)  # type: ignore[arg-type]

    return load


@pytest.fixture
def problems_of(tmp_path: Path, loaded: Callable[..., Loaded]) -> Callable[..., list[str]]:
    """The problems of a text, each as ``LINE: name: rule``."""

    def problems(text: str, environment: Mapping[str, str] | None = None) -> list[str]:
        with pytest.raises(ConfigError) as raised:
            loaded(text, environment)
        prefix = f"{tmp_path}/penstock.toml:"
        assert all(problem.startswith(prefix) for problem in raised.value.problems)
        return [problem.removeprefix(prefix) for problem in raised.value.problems]

    return problems
