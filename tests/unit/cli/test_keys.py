"""``penstock keys``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

Penstock = Callable[..., tuple]

BUDGET = {
    "budget_day_usd": None, "budget_month_usd": None, "budget_day_tokens": None,
    "budget_month_tokens": None, "budget_hard": True,
}  # fmt: skip


def test_a_key_is_created_listed_and_revoked(penstock: Penstock) -> None:
    made = penstock(
        "keys", "create", "ci", "--tenant", "team", "--class", "batch", "--ceiling", "standard",
        "--model", "sandbox", "--chain", "haiku", "--chain", "brief", "--admin",
    )  # fmt: skip
    listed = json.loads(penstock("keys", "list", "--json")[1])

    assert made[0] == 0
    assert re.fullmatch(r"psk_[0-9a-f]{12}_[0-9a-f]{64}\n", made[1])
    assert [{**row, "created": ""} for row in listed] == [
        {
            "name": "ci", "id": made[1].split("_")[1], "tenant": "team", "class": "batch",
            "ceiling": "standard", "models": ["sandbox"], "chains": ["haiku", "brief"],
            "acts_for": [], "admin": True, "created": "", "expires": None, "revoked": None,
            **BUDGET,
        }
    ]  # fmt: skip

    assert penstock("keys", "revoke", "ci") == (0, "", "The key ci is revoked.\n")
    assert json.loads(penstock("keys", "list", "--json")[1])[0]["revoked"]
    assert penstock("keys", "revoke", "ci")[0] == 2


def test_the_list_is_a_table_that_shows_no_key(penstock: Penstock) -> None:
    key = penstock("keys", "create", "ci", "--tenant", "team")[1].strip()
    head, row = penstock("keys", "list")[1].splitlines()

    assert head.split() == [
        "name", "id", "tenant", "class", "ceiling", "models", "chains", "acts_for", "admin",
        "created", "expires", "revoked",
    ]  # fmt: skip
    assert row.split()[:8] == [
        "ci", key.split("_")[1], "team", "standard", "interactive", "-", "-", "none",
    ]  # fmt: skip
    assert key.split("_")[2] not in row


def test_an_empty_list_is_no_data_and_a_hint(penstock: Penstock) -> None:
    assert penstock("keys", "list", "--json") == (0, "[]\n", "")
    code, out, err = penstock("keys", "list")

    assert (code, out) == (0, "")
    assert "penstock keys create" in err
    assert list(Path().iterdir()) == []


def test_a_key_that_breaks_a_rule_is_not_created(penstock: Penstock) -> None:
    code, out, err = penstock(
        "keys", "create", "ci", "--tenant", "a b", "--class", "batsh", "--model", "gpt"
    )

    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 4
    assert "did you mean batch?" in err
    assert penstock("keys", "list", "--json")[1] == "[]\n"


def test_the_store_is_that_of_the_configuration_whose_own_names_are_taken(
    penstock: Penstock,
) -> None:
    Path("sub").mkdir()
    Path("sub/penstock.toml").write_text(
        '[store]\npath = "state"\n[keys.web]\ntenant = "t"\nkey_env = "NOT_SET_IN_THIS_SHELL"\n'
    )
    made = penstock("keys", "create", "ci", "--tenant", "t", "--config", "sub/penstock.toml")
    taken = penstock("keys", "create", "web", "--tenant", "t", "--config", "sub/penstock.toml")

    assert made[0] == 0
    assert Path("sub/state/penstock.db").exists()
    assert taken[0] == 2
    assert "has a key of this name" in taken[2]


def test_a_store_that_cannot_be_used_ends_with_3(penstock: Penstock) -> None:
    Path(".penstock").mkdir()
    Path(".penstock/penstock.db").write_bytes(b"x" * 5000)
    code, out, err = penstock("keys", "list")

    assert (code, out) == (3, "")
    assert err.startswith("error: ")
    assert "is damaged" in err


def test_a_key_has_an_end_and_a_budget_and_can_be_rotated(penstock: Penstock) -> None:
    made = penstock(
        "keys", "create", "ci", "--tenant", "team", "--expires-in", "90d",
        "--budget-month-usd", "20", "--budget-soft",
    )  # fmt: skip
    rotated = penstock("keys", "rotate", "ci", "--overlap", "12h")
    row = json.loads(penstock("keys", "list", "--json")[1])[0]

    assert rotated[0] == 0
    assert rotated[1].split("_")[1] == made[1].split("_")[1]
    assert rotated[1] != made[1]
    assert row["expires"] > row["created"]
    assert (row["budget_month_usd"], row["budget_hard"]) == (20.0, False)
    assert penstock("keys", "rotate", "nobody")[0] == 2
    for bad in (["--expires-in", "soon"], ["--budget-day-usd", "-1"]):
        assert penstock("keys", "create", "other", "--tenant", "team", *bad)[0] == 2


def test_what_a_key_may_do_is_edited_without_its_secret(penstock: Penstock) -> None:
    made = penstock(
        "keys", "create", "ci", "--tenant", "team", "--model", "sandbox", "--chain", "haiku",
        "--expires-in", "90d", "--budget-day-usd", "3", "--acts-for", "a",
    )  # fmt: skip
    done = penstock(
        "keys", "edit", "ci", "--name", "nightly", "--class", "batch", "--ceiling", "standard",
        "--model", "*", "--chain", "brief", "--expires-in", "none", "--budget-day-usd", "none",
        "--acts-for", "",
    )  # fmt: skip
    (row,) = json.loads(penstock("keys", "list", "--json")[1])

    assert done[:2] == (0, "")
    assert done[2].startswith('The key ci: name "ci" -> "nightly", budget_day_usd 3.0 -> null, ')
    assert made[1].split("_")[2].strip() not in done[2]
    assert {**row, "created": ""} == {
        "name": "nightly", "id": made[1].split("_")[1], "tenant": "team", "class": "batch",
        "ceiling": "standard", "models": None, "chains": ["brief"], "acts_for": [],
        "admin": False, "created": "", "expires": None, "revoked": None,
        **BUDGET,
    }  # fmt: skip


def test_an_edit_that_breaks_a_rule_changes_nothing(penstock: Penstock) -> None:
    penstock("keys", "create", "ci", "--tenant", "team", "--ceiling", "standard")
    penstock("keys", "create", "other", "--tenant", "team")
    before = penstock("keys", "list", "--json")[1]

    for arguments, words in (
        (("ci",), "name what is to be changed"),
        (("nobody", "--ceiling", "batch"), "there is no stored key nobody"),
        (("ci", "--name", "other"), "there is a key other already"),
        (("ci", "--name", "a b"), "must be a name"),
        (("ci", "--class", "interactive"), "above the key's ceiling"),
        (("ci", "--model", "gpt"), "no such served model"),
        (("ci", "--acts-for", "a b"), "must be the name of a tenant"),
        (("ci", "--budget-day-tokens", "-1"), "at least 0"),
        (("ci", "--tenant", "b"), "--tenant b: a key belongs to one tenant for good"),
        (("ci", "--admin"), "--admin: a key is an admin's from the first or never"),
        (("ci", "--no-admin", "--name", "x"), "penstock keys revoke ci"),
    ):
        code, out, err = penstock("keys", "edit", *arguments)
        assert (code, out) == (2, "")
        assert words in err
    assert penstock("keys", "list", "--json")[1] == before
