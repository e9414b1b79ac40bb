"""``penstock simulate``: tables, JSON, pictures, what-if, and its exit code."""

from __future__ import annotations

import json

FAST = (
    "--seconds", "120",
    "--policy", "penstock", "--policy", "alone-fifo", "--policy", "alone-urgent",
)  # fmt: skip


def test_a_workload_side_by_side(penstock):
    ended = penstock("simulate", "--workload", "poisson", *FAST, "--policy", "fifo")

    assert ended.code == 0, ended.out
    assert [line.split()[0] for line in ended.out.splitlines()[2:7]] == [
        "policy", "penstock", "alone-fifo", "alone-urgent", "fifo",
    ]  # fmt: skip
    assert "bounds hold" in ended.out


def test_json_has_a_version_and_the_same_hash_each_time(penstock):
    arguments = ("simulate", "--workload", "azure2023_code", *FAST, "--seed", "7", "--json")
    one, other = (json.loads(penstock(*arguments).out) for _ in range(2))

    assert one["version"] == 1
    assert one["figures"] == other["figures"]
    assert len(one["figures"][0]["digest"]) == 64


def test_a_picture_is_written(penstock, tmp_path):
    ended = penstock("simulate", *FAST, "--picture", "it.svg")

    assert ended.code in (0, 1)
    assert (tmp_path / "it.svg").read_text().startswith("<svg")


def test_what_if_prints_before_and_after(penstock, tmp_path):
    (tmp_path / "p.toml").write_text(
        '[providers.p]\nkind = "openai"\nbase_url = "http://127.0.0.1:1/v1"\n'
        '[deployments.gpt]\nprovider = "p"\nrpm = 60\ntpm = 100_000\n'
    )
    ended = penstock(
        "simulate", "--config", "p.toml", "--change", "deployments.gpt.rpm=2x",
        "--workload", "poisson", "--seconds", "120",
    )  # fmt: skip

    assert ended.code == 0, ended.err
    assert ended.out.startswith("before\n")
    assert "\nafter: deployments.gpt.rpm=2x\n" in ended.out
    assert "deployment gpt: rpm 120, tpm 100,000, burst_seconds 60\n" in ended.out
    assert ended.out.count("\ninteractive alone ") == 2
    assert "rpm binds: " in ended.out


def test_bad_input_is_told(penstock, tmp_path):
    for arguments, said in (
        (("--workload", "nowhere"), "nowhere"),
        (("--burst", "long"), "'long' is neither"),
        (("--change", "a.b.c=1"), "--change goes with --config"),
        (("--suite", "--traces", str(tmp_path)), "there is no trace"),
    ):
        ended = penstock("simulate", *arguments)
        assert ended.code == 2, arguments
        assert said in ended.err
