"""``penstock check-config``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from penstock.config.schema import schema_text

GOOD = """\
[providers.p]
kind = "openai"
base_url = "https://host/v1"
[deployments.d]
provider = "p"
"""


def test_a_good_file_is_summed_up(penstock: Callable[..., tuple]) -> None:
    Path("penstock.toml").write_text(GOOD)
    code, out, err = penstock("check-config")

    assert (code, out) == (
        0,
        (
            "ok: penstock.toml\n  providers: p\n  deployments: d\n  chains: (none)\n  keys: dev\n"
            "  classes: interactive, standard, batch\n"
        ),
    )
    assert err == "note: there is no key yet: this machine may call with the key `dev`\n"


def test_a_bad_file_ends_with_2_and_every_problem(penstock: Callable[..., tuple]) -> None:
    Path("x.toml").write_text("[server]\nport = -1\nhsot = 1\n")
    code, out, err = penstock("check-config", "x.toml")

    assert (code, out) == (2, "")
    assert [line.partition(": ")[0] for line in err.splitlines()] == [
        "x.toml:2",
        "x.toml:3",
        "error",
    ]


def test_both_endings_can_be_json(penstock: Callable[..., tuple]) -> None:
    Path("good.toml").write_text(GOOD)
    Path("bad.toml").write_text("[server]\nport = -1\n")
    good, bad = (
        penstock("check-config", "--json", "good.toml"),
        penstock("check-config", "--json", "bad.toml"),
    )

    assert (good[0], json.loads(good[1])["deployments"]) == (0, ["d"])
    assert (bad[0], json.loads(bad[1])["ok"]) == (2, False)
    assert len(json.loads(bad[1])["problems"]) == 1


def test_a_stored_key_counts_for_a_host_that_others_can_reach(
    penstock: Callable[..., tuple],
) -> None:
    Path("penstock.toml").write_text(GOOD + '[server]\nhost = "::"\n')

    assert penstock("check-config")[0] == 2
    assert penstock("keys", "create", "ci", "--tenant", "t")[0] == 0
    assert penstock("check-config")[0] == 0


def test_the_schema_is_printed_without_a_file(penstock: Callable[..., tuple]) -> None:
    assert penstock("check-config", "--schema") == (0, schema_text(), "")
