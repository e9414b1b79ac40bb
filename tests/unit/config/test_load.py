"""What is said of a file that cannot be served, and what a good one becomes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.config import defaults
from penstock.config.checked import checked_key
from penstock.config.load import (
    Loaded,
    Overrides,
    load,
    load_tables,
    load_with_secrets,
)
from penstock.config.model import Config, ServerTable
from penstock.errors import ConfigError

Problems = Callable[..., list[str]]
Load = Callable[..., Loaded]

PROVIDER = '[providers.p]\nkind = "openai"\nbase_url = "https://host/v1"\n'


def test_a_key_that_is_nothing_s_neighbour_is_answered_with_all_there_are(
    problems_of: Problems,
) -> None:
    (found,) = problems_of("[server]\nzzz = 1\n")

    assert found.endswith("known: " + ", ".join(sorted(ServerTable.__struct_fields__)))


@pytest.mark.parametrize("value", ["1e-300", "1e300", "nan", "inf", "0"])
def test_a_limit_or_a_weight_that_no_clock_or_header_can_hold_is_refused(
    problems_of: Problems, value: str
) -> None:
    found = problems_of(f"[tenants.t]\nweight = {value}\nrpm = {value}\ntpm = {value}\n")

    assert [line.partition(" = ")[0] for line in found] == [
        "2: tenants.t.weight", "3: tenants.t.rpm", "4: tenants.t.tpm",
    ]  # fmt: skip


def test_every_problem_of_a_file_is_listed_at_once_in_the_order_of_its_lines(
    problems_of: Problems,
) -> None:
    found = problems_of(
        """\
path = ["nowhere"]
[server]
prot = 1
port = "8787"
[providers.p]
kind = "opnai"
base_url = "ftp://host"
[deployments.d]
provider = "q"
rpm = -1
[classes.batch]
rank = 1
[keys.k]
key_env = "NOT_SET"
class = "urgent"
[chains.c]
import = "no_such_module"
[chain.d]
"""
    )

    assert found == [
        (
            '1: path[0] = "nowhere": there is no such directory; it is relative to the '
            "configuration file"
        ),
        "3: server.prot: there is no such key here; did you mean port?",
        (
            '4: server.port = "8787": must be a whole number from 0 to 65535; port to listen on; 0 '
            "lets the system choose"
        ),
        (
            '6: providers.p.kind = "opnai": must be one of "anthropic", "azure", "deepseek", '
            '"gemini", "groq", "mistral", "ollama", "openai", "openai-compatible", "openrouter", '
            '"vllm"; who it is: how it is asked, how it limits and fails'
        ),
        "7: providers.p.base_url: must begin with https:// or http://",
        '9: deployments.d.provider = "q": there is no such provider; known: p',
        "10: deployments.d.rpm = -1: must be a number from 0.001 to 1e+15; requests per minute",
        "12: classes.batch.rank = 1: standard has this rank already; give each class its own",
        (
            "13: keys.k: tenant is missing; it must be a name of at most 128 letters, digits and "
            ". _ : / @ -, the first one a letter or digit"
        ),
        (
            '14: keys.k.key_env = "NOT_SET": this environment variable is not set; export '
            "NOT_SET=... first"
        ),
        (
            '15: keys.k.class = "urgent": there is no such class; known: batch, interactive, '
            "standard"
        ),
        (
            '17: chains.c.import = "no_such_module": must be an import path like '
            '"package.module:attribute"; the runnable, as package.module:attribute'
        ),
        "18: chain: there is no such table; did you mean chains?",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[server]\nport = true", "2: server.port = true: must be a whole number"),
        ("[server]\nport = 65536", "2: server.port = 65536: must be a whole number from 0 to"),
        ("[server]\nport = 1e3", "2: server.port = 1000.0: must be a whole number"),
        ("[server]\ndrain_seconds = inf", "2: server.drain_seconds = inf: must be a number"),
        ("[server]\ndrain_seconds = nan", "2: server.drain_seconds = nan: must be a number"),
        ("[server]\ndrain_seconds = 0", "2: server.drain_seconds = 0: must be a number greater"),
        ("[server]\nhost = ''", '2: server.host = "": must be a text in quotes, not an empty'),
        ("[server]\nhost = 'a b'", '2: server.host = "a b": must be an address or a host name'),
        ("[server]\nhost = 1979-05-27", "2: server.host = date: must be a text in quotes"),
        ("[server]\nallowed_hosts = 'a'", '2: server.allowed_hosts = "a": must be a list in [ ]'),
        ("[server]\nallowed_hosts = ['a',\n2]", "3: server.allowed_hosts[1] = 2: must be a text"),
        ("server = 1", "1: server = 1: must be a table"),
        (
            PROVIDER + "[deployments.d]\nprovider = 'p'\nservice_tiers = ['flex']",
            '6: deployments.d.service_tiers = ["flex"]: must be a table in { } of names with',
        ),
        (
            PROVIDER + "[deployments.d]\nprovider = 'p'\nservice_tiers = { flex = 0 }",
            "6: deployments.d.service_tiers = {...}: must be a table in { } of names with",
        ),
        ("[[server]]\nport = 1", "1: server ="),
        ("providers = []", "1: providers = []: must hold tables: [providers.NAME]"),
        ("providers.x = 3", "1: providers.x = 3: must be a table"),
        ("path = 'chains'", '1: path = "chains": must be a list in [ ]'),
        ("[tenants.'a b']", '1: tenants."a b": must be a name of at most 128'),
        ("[tenants.'']", '1: tenants."": must be a name of at most 128'),
        ("[tenants.a]\nweight = {}", "2: tenants.a.weight = {...}: must be a number from 0.001"),
        ("[classes.slow]", "1: classes.slow: rank is missing; it must be a whole number"),
        ("[classes.batch]\nmin_share = 0.95", "1: classes: the min_share of all classes add up"),
        ("[classes.batch]\nmin_share = 1", "2: classes.batch.min_share = 1: must be a number at"),
        ("[keys.a]\ntenant = 't'", "1: keys.a: names no key; set key_env or key_file"),
        ("x", "1: this is not TOML: Expected '=' after a key"),
        ("a = 1\na = 2", "2: this is not TOML: Cannot overwrite a value"),
        ("[chains.c]\nimport = 'os:x'\n[workers]\ncount = 0", "4: workers.count = 0: chains need"),
        ("[chains.c]\nimport = 'os:x'\nclass = 'batsh'", "did you mean batch?"),
        (PROVIDER + "[deployments.d]\nprovider = 'p'\nserves = []", "6: deployments.d.serves = []"),
        (
            PROVIDER + "[deployments.d]\nprovider = 'p'\nserves = ['a', 'a']",
            '6: deployments.d.serves = ["a", "a"]: must hold names, each of them once',
        ),
        (
            PROVIDER + "[deployments.d]\nprovider = 'p'\nmodel = 'a b'",
            '6: deployments.d.model = "a b": callers cannot ask for a model of this name',
        ),
        (
            PROVIDER
            + "[deployments.d]\nprovider='p'\npool='o'\nrpm=1\n"
            + "[deployments.e]\nprovider='p'\npool='o'\nrpm=2",
            '10: deployments.e.pool = "o": the limits of this pool stand at deployments.d already',
        ),
        (
            PROVIDER + "[deployments.d]\nprovider='p'\n[deployments.e]\nprovider='p'\nmodel='d'",
            "6: deployments.e: is the same target as deployments.d",
        ),
    ],
)
def test_a_problem_names_line_value_and_rule(
    problems_of: Problems, text: str, expected: str
) -> None:
    found = problems_of(text)

    assert len(found) == 1
    assert expected in found[0]


def test_a_file_that_cannot_be_parsed_names_its_line(tmp_path: Path) -> None:
    file = tmp_path / "penstock.toml"
    for content, expected in (
        (b"a = 1\nb = \xff", ":2: this is not UTF-8"),
        (b"a = 1\n[b", ":2: this is not TOML"),
        (b"a = " + b"[" * 100_000, ": this is not TOML that can be read"),
        (b"a = " + b"9" * 5000, ": this is not TOML that can be read"),
        (b"#" * 1_100_000, ": the file is larger than"),
    ):
        file.write_bytes(content)

        with pytest.raises(ConfigError) as raised:
            load(file)
        assert len(raised.value.problems) == 1
        assert f"{file}{expected}" in raised.value.problems[0]


def test_a_file_that_is_not_there_is_one_problem_with_a_way_out(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(ConfigError, match=r"cannot be read .* --config"):
            load(path)


def test_names_and_values_of_a_file_are_escaped_and_cut(problems_of: Problems) -> None:
    found = problems_of(
        '"\\u001b[31m" = 1\n[server]\n"\\u202E" = 1\nhost = "\\u001b]0;\\u202E' + "x" * 999 + '"'
    )

    assert len(found) == 3
    assert all(line.isprintable() and line.isascii() and len(line) < 300 for line in found)


def test_no_secret_is_shown_wherever_it_was_pasted(problems_of: Problems) -> None:
    secret = "sk-Ab12secretsecret"
    text = f"""
[providers.p]
kind = "openai"
base_url = "https://user:{secret}@host/v1"
key_env = "{secret}"
api_key = "{secret}"
[providers.q]
kind = "openai"
base_url = "https://host/v1?key={secret}"
key_file = "{secret}"
[providers.r]
kind = "openai"
base_url = ["{secret}"]
key_env = ["{secret}"]
[keys.k]
tenant = "t"
key = "{secret}"
key_file = "{secret}"
[{{]
"""
    found = problems_of(text.replace("[{]\n", ""))

    assert len(found) == 9
    assert not any("secretsecret" in line for line in found)


def test_a_broken_table_is_not_reported_again_where_it_is_named(problems_of: Problems) -> None:
    found = problems_of(
        """\
[providers.p]
kind = "x"
base_url = "https://host"
[deployments.d]
provider = "p"
serves = ["a", 1]
[classes.urgent]
rank = -1
[chains.c]
import = 1
[keys.k]
tenant = "t"
key_env = "K"
class = "urgent"
models = ["a"]
chains = ["c"]
""",
        {"K": "k" * 32},
    )

    assert [line.partition(":")[0] for line in found] == ["2", "6", "8", "10"]


def test_a_key_names_what_exists_and_stays_below_its_ceiling(problems_of: Problems) -> None:
    text = (
        PROVIDER
        + """\
[deployments.fast]
provider = "p"
[keys.k]
tenant = "t"
key_env = "K"
class = "interactive"
ceiling = "standard"
models = ["fast", "fsat"]
chains = ["c"]
"""
    )

    assert problems_of(text, {"K": "k" * 32}) == [
        (
            '9: keys.k.class = "interactive": it is above the key\'s ceiling; set ceiling = '
            '"interactive", or a less urgent class'
        ),
        '11: keys.k.models[1] = "fsat": there is no such served model; did you mean fast?',
        '12: keys.k.chains[0] = "c": there is no such chain; there is none',
    ]


def test_a_file_changes_one_key_of_a_built_in_class_and_keeps_the_others(loaded: Load) -> None:
    classes = loaded("[classes.batch]\nreserve = 0.9\n[classes.late]\nrank = 3").config.classes

    assert list(classes) == ["interactive", "standard", "batch", "late"]
    assert (classes["batch"].rank, classes["batch"].reserve) == (2, 0.9)
    assert classes["batch"].min_share == defaults.CLASSES["batch"]["min_share"]


def test_a_file_without_keys_answers_to_dev_on_loopback_and_says_so(loaded: Load) -> None:
    result = loaded(PROVIDER)

    assert dict(result.secrets.keys) == {"dev": "dev"}
    assert list(result.config.keys) == ["dev"]
    assert result.notes == ["there is no key yet: this machine may call with the key `dev`"]


def test_the_key_dev_is_gone_when_there_is_another(loaded: Load) -> None:
    stored = loaded(PROVIDER, stored_key_count=lambda directory: 1)
    named = loaded('[keys.k]\ntenant = "t"\nkey_env = "K"', {"K": "k" * 32})

    assert (dict(stored.secrets.keys), stored.config.keys) == ({}, {})
    assert dict(named.secrets.keys) == {"k": "k" * 32}


def test_one_public_model_may_be_served_under_both_protocols(loaded: Load) -> None:
    deployments = load_tables(None).deployments

    assert {deployment.model for deployment in deployments.values()} == {"sandbox"}
    assert loaded(
        PROVIDER
        + '[providers.q]\nkind = "anthropic"\nbase_url = "https://host"\n'
        + "[deployments.d]\nprovider='p'\n[deployments.e]\nprovider='q'\nserves=['d']"
    )


@pytest.mark.parametrize("host", ["::", "192.168.0.1", "penstock.example.com"])
def test_a_host_that_others_can_reach_needs_a_key(loaded: Load, host: str) -> None:
    text = PROVIDER + f'[server]\nhost = "{host}"'

    with pytest.raises(ConfigError, match=r":5: server.host = .*penstock keys create"):
        loaded(text)
    with pytest.raises(ConfigError, match=r"server.host = .*penstock keys create"):
        load_with_secrets(None, overrides=Overrides(host=host))
    assert loaded(text, stored_key_count=lambda directory: 1).secrets.keys == {}


def test_a_file_without_providers_runs_on_the_sandbox_and_says_so(loaded: Load) -> None:
    result = loaded("[server]\nport = 1")
    with_port = defaults.with_sandbox_port(result.config, 4711)

    assert result.sandbox
    assert list(result.config.deployments) == ["sandbox", "sandbox-anthropic"]
    assert [provider.base_url for provider in with_port.providers.values()] == [
        "http://127.0.0.1:4711/v1",
        "http://127.0.0.1:4711",
    ]
    assert "no provider" in result.notes[0]
    assert not loaded(PROVIDER).sandbox


def test_without_a_file_the_example_chains_run_on_the_sandbox() -> None:
    result = load_with_secrets(None, environment={})
    config = result.config

    assert result.sandbox
    assert (config.server.host, config.server.port) == ("127.0.0.1", 8787)
    assert list(config.chains) == ["haiku", "brief", "agent", "keywords"]
    for chain in config.chains.values():
        module = chain.import_path.partition(":")[0]
        assert Path(config.path[0], f"{module}.py").is_file()


def test_the_command_line_goes_above_the_file(loaded: Load) -> None:
    result = loaded("[server]\nport = 1", overrides=Overrides(host="::1", port=2))

    assert (result.config.server.host, result.config.server.port) == ("::1", 2)


def test_paths_are_relative_to_the_file_and_come_out_absolute(loaded: Load, tmp_path: Path) -> None:
    (tmp_path / "chains").mkdir()
    (tmp_path / "key").write_text("s" * 32 + "\n")
    (tmp_path / "key").chmod(0o600)
    result = loaded('path = ["chains"]\n' + PROVIDER + 'key_file = "key"\n[store]\npath = "s"')

    assert result.config.path == [str(tmp_path / "chains")]
    assert result.config.store.path == str(tmp_path / "s")
    assert result.config.providers["p"].key_file == str(tmp_path / "key")
    assert dict(result.secrets.providers) == {"p": "s" * 32}


def test_a_deployment_comes_out_with_its_names_filled_in(loaded: Load) -> None:
    deployments = loaded(
        PROVIDER
        + '[deployments.a]\nprovider = "p"\n[deployments.b]\nprovider = "p"\nmodel = "m"\n'
        + '[deployments.c]\nprovider = "p"\nserves = ["x", "y"]'
    ).config.deployments

    assert [(table.model, table.serves) for table in deployments.values()] == [
        ("a", ["a"]),
        ("m", ["m"]),
        ("c", ["x", "y"]),
    ]


def test_a_chain_module_is_looked_for_without_importing_it(
    loaded: Load, problems_of: Problems, tmp_path: Path
) -> None:
    package = tmp_path / "chains" / "team_package"
    package.mkdir(parents=True)
    (package / "one.py").write_text("raise SystemExit")
    (package / "__init__.py").write_text("raise SystemExit")
    good = ["team_package.one", "team_package", "json.tool", "msgspec"]
    tables = [f'[chains.c{number}]\nimport = "{name}:x"' for number, name in enumerate(good)]
    text = 'path = ["chains"]\n' + "\n".join(tables)

    assert len(loaded(text).config.chains) == 4
    assert "team_package" not in sys.modules
    assert problems_of(text + '\n[chains.d]\nimport = "team_package.two:x"') == [
        (
            '11: chains.d.import = "team_package.two:x": there is no module team_package.two in '
            "chains, nor among the installed packages; add its directory to `path`, or install it"
        )
    ]


def test_tables_can_be_read_where_the_environment_lacks_their_keys(tmp_path: Path) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text(PROVIDER + 'key_env = "NOT_SET"\n[server]\nhost = "0.0.0.0"\n[store]\npath="s"')

    assert load_tables(file).store.path == str(tmp_path / "s")
    assert isinstance(load_tables(None), Config)


def test_a_key_outside_the_file_obeys_the_rules_of_one_inside() -> None:
    config = load_tables(None)

    assert checked_key("ci", {"tenant": "t", "chains": ["haiku"]}, config).chains == ["haiku"]
    assert checked_key("ci", {"tenant": "t", "acts_for": ["a", "*"]}, config).acts_for == ["a", "*"]
    for name, fields, rule in (
        ("ci", {"tenant": "t", "class": "interactive", "ceiling": "batch"}, "above the key's"),
        ("ci", {"tenant": "t", "models": ["gpt"]}, "there is no such served model; known: sandbox"),
        ("ci", {"tenant": "a\nb"}, "must be a name"),
        ("ci", {"tenant": "t", "acts_for": ["a b"]}, "must be the name of a tenant"),
        ("ci", {"tenant": "t", "acts_for": "a"}, "must be a list"),
        ("ci", {"tenant": "*"}, "must be a name"),
        ("a b", {"tenant": "t"}, "must be a name"),
    ):
        with pytest.raises(ConfigError, match=rule):
            checked_key(name, fields, config)
