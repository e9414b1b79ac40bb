"""``penstock tenants``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

Penstock = Callable[..., tuple]

FILE = "[tenants.team]\nrpm = 60\nweight = 2\n"


def test_what_is_set_holds_above_the_file_until_it_is_reset(penstock: Penstock) -> None:
    Path("penstock.toml").write_text(FILE)
    done = penstock(
        "tenants", "set", "team", "--rpm", "none", "--tpm", "900", "--budget-month-usd", "5",
        "--budget-soft",
    )  # fmt: skip
    shown = json.loads(penstock("tenants", "show", "team", "--json")[1])

    assert done[:2] == (0, "")
    assert done[2] == (
        "The tenant team: rpm 60.0 -> null, tpm null -> 900.0, budget_month_usd null -> 5.0, "
        "budget_hard true -> false.\nNo key names this tenant yet.\n"
    )
    assert (shown["rpm"], shown["tpm"], shown["weight"]) == (None, 900.0, 2.0)
    assert shown["budget_month_usd"] == 5.0
    sources = shown["sources"]
    assert [sources[f] for f in ("rpm", "weight", "budget_hard", "budget_day_usd")] == [
        "store", "file", "store", "default",
    ]  # fmt: skip
    assert penstock("tenants", "reset", "team", "rpm")[0] == 0
    assert json.loads(penstock("tenants", "show", "team", "--json")[1])["rpm"] == 60.0
    assert penstock("tenants", "reset", "team")[0] == 0
    assert penstock("tenants", "reset", "team")[0] == 2
    head, *rows = penstock("tenants", "show", "team")[1].splitlines()
    assert head.split() == ["field", "value", "source"]
    assert rows[1].split() == ["rpm", "60", "file"]


def test_the_list_names_those_of_tables_keys_and_store(penstock: Penstock) -> None:
    Path("penstock.toml").write_text(FILE)
    penstock(
        "keys", "create", "ci", "--tenant", "of-a-key", "--acts-for", "others", "--acts-for", "*"
    )
    penstock("tenants", "set", "of-the-store", "--concurrency", "3")
    head, *rows = penstock("tenants", "list")[1].splitlines()
    listed = json.loads(penstock("tenants", "list", "--json")[1])

    assert head.split()[:5] == ["name", "weight", "rpm", "tpm", "concurrency"]
    assert [row.split()[:5] for row in rows] == [
        ["of-a-key", "1", "-", "-", "-"],
        ["of-the-store", "1", "-", "-", "3"],
        ["others", "1", "-", "-", "-"],
        ["team", "2", "60", "-", "-"],
    ]
    assert [one["name"] for one in listed] == ["of-a-key", "of-the-store", "others", "team"]


def test_without_tenants_there_is_a_hint_and_no_store_is_made(penstock: Penstock) -> None:
    Path("penstock.toml").write_text("")
    code, out, err = penstock("tenants", "list")

    assert (code, out) == (0, "")
    assert "penstock keys create" in err
    assert [path.name for path in Path().iterdir()] == ["penstock.toml"]


def test_what_breaks_a_rule_is_not_set(penstock: Penstock) -> None:
    for arguments, words in (
        (("team", "--rpm", "-1", "--weight", "0"), "must be a number from 0.001"),
        (("a b", "--rpm", "1"), "must be a name"),
        (("team", "--budget-day-usd", "2e6"), "from 0 to 1e+06"),
        (("team", "--concurrency", "1.5"), "not a valid integer"),
        (("team", "--tpm", "inf"), "must be a number from 0.001"),
        (("team",), "name what is to be set"),
    ):
        code, out, err = penstock("tenants", "set", *arguments)
        assert (code, out) == (2, "")
        assert words in err
    assert penstock("tenants", "reset", "team", "nothing")[0] == 2
    assert not Path(".penstock").exists()
