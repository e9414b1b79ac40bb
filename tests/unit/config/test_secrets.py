"""How the keys that a file names are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.config.load import Loaded
from penstock.config.secrets import Secrets

Problems = Callable[..., list[str]]
Load = Callable[..., Loaded]

PROVIDER = '[providers.p]\nkind = "openai"\nbase_url = "https://host/v1"\n'
KEY = '[keys.k]\ntenant = "t"\n'


@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        (PROVIDER + 'key_env = "A"', {}, '4: providers.p.key_env = "A": this environment variable'),
        (PROVIDER + 'key_env = "A"', {"A": ""}, "4: providers.p.key_env: it is empty"),
        (PROVIDER + 'key_env = "A"', {"A": "two words"}, "4: providers.p.key_env: what it holds"),
        (PROVIDER + 'key_env = "A"', {"A": "li\nne"}, "4: providers.p.key_env: what it holds is"),
        (PROVIDER + 'key_env = "A"', {"A": "ü" * 30}, "4: providers.p.key_env: what it holds is"),
        (PROVIDER + 'key_env = "A"', {"A": "x" * 5000}, "4: providers.p.key_env: what it holds"),
        (PROVIDER + 'key_file = "gone"', {}, "4: providers.p.key_file: the file cannot be read"),
        (PROVIDER + 'key_file = "."', {}, "4: providers.p.key_file: the file cannot be read"),
        (PROVIDER + 'key_file = "\\u0000"', {}, "4: providers.p.key_file: is no path"),
        (PROVIDER + 'key_file = "x"\nkey_env = "A"', {"A": "a"}, "1: providers.p: has both"),
        (KEY + 'key_file = "x"\nkey_env = "A"', {"A": "a"}, "1: keys.k: has both"),
        (KEY + 'key_env = "A"', {"A": "x" * 600}, "1: keys.k: is longer than 512 characters"),
        (
            KEY + 'key_env = "A"\n[keys.l]\ntenant = "u"\nkey_env = "B"',
            {"A": "x" * 32, "B": "x" * 32},
            "4: keys.l: is the same key as keys.k; each needs its own",
        ),
    ],
)
def test_a_key_that_cannot_be_used_is_a_problem_that_does_not_show_it(
    problems_of: Problems, text: str, environment: dict[str, str], expected: str
) -> None:
    found = problems_of(text, environment)

    assert len(found) == 1
    assert found[0].startswith(expected)
    assert not any(value and value in found[0] for value in environment.values() if len(value) > 1)


def test_a_key_comes_from_the_environment_or_from_a_file_without_its_line_break(
    loaded: Load, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("f" * 32 + "\r\n")
    (tmp_path / "key").chmod(0o600)
    result = loaded(PROVIDER + 'key_env = "A"\n' + KEY + 'key_file = "key"', {"A": "sk-1"})

    assert dict(result.secrets.providers) == {"p": "sk-1"}
    assert dict(result.secrets.keys) == {"k": "f" * 32}
    assert result.warnings == []


def test_a_file_that_others_may_read_and_a_short_key_are_warnings(
    loaded: Load, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("short")
    (tmp_path / "key").chmod(0o644)
    warnings = loaded(KEY + 'key_file = "key"').warnings

    assert [warning.partition("penstock.toml:")[2] for warning in warnings] == [
        "3: keys.k.key_file: others on this machine may read the file; chmod 600 it",
        (
            "1: keys.k: the key has 5 characters and may be guessed; `penstock keys create` makes "
            "a strong one"
        ),
    ]


def test_secrets_show_their_names_only() -> None:
    secrets = Secrets(providers={"p": "hidden-1"}, keys={"k": "hidden-2"})

    assert "hidden" not in f"{secrets!r} {secrets} {[secrets]}"
    assert "'p'" in repr(secrets)
