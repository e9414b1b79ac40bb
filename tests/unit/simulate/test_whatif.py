"""What if: changes of a configuration, and the world that it stands for."""

from __future__ import annotations

import msgspec
import pytest

from penstock.config.model import ClassTable, Config
from penstock.dispatch.planning import plan_of
from penstock.errors import ConfigError
from penstock.simulate.report import play
from penstock.simulate.rows import Row
from penstock.simulate.whatif import changed, scenario_of_config
from penstock.simulate.workloads import Shape

CONFIG = msgspec.convert(
    {
        "providers": {"p": {"kind": "openai", "base_url": "http://127.0.0.1/v1"}},
        "deployments": {"gpt.4": {"provider": "p", "model": "gpt", "rpm": 60, "burst_seconds": 5}},
        "classes": {"interactive": {"rank": 0}, "batch": {"rank": 1, "reserve": 1.0}},
    },
    Config,
)
SHAPE = Shape(seconds=120.0)
ROWS = [Row(n * 0.5, 100, 10, class_name="interactive", model="gpt") for n in range(240)]


def test_a_change_multiplies_or_sets():
    assert changed(CONFIG, "deployments.gpt.4.rpm=2x").deployments["gpt.4"].rpm == 120
    assert changed(CONFIG, "deployments.gpt.4.tpm=1_000").deployments["gpt.4"].tpm == 1_000
    assert changed(CONFIG, "classes.batch.order=deadline").classes["batch"].order == "deadline"
    assert changed(CONFIG, "tenants.new.weight=3").tenants["new"].weight == 3
    assert CONFIG.deployments["gpt.4"].rpm == 60


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("deployments.gpt.4.rpm", "write TABLE.NAME.FIELD=VALUE"),
        ("server.port.x=1", "write TABLE.NAME.FIELD=VALUE"),
        ("deployments.other.rpm=2x", "no deployments.other; there are gpt.4"),
        ("deployments.gpt.4.tpm=2x", "on a number that is set"),
        ("deployments.gpt.4.rpm=0x", "a factor above 0"),
        ("deployments.gpt.4.rpm=fast", "rpm"),
        ("deployments.gpt.4.rpmm=1", "rpmm"),
        ("classes.batch.rank=0", "share a rank"),
    ],
)
def test_a_bad_change_is_told(change, said):
    with pytest.raises(ConfigError) as raised:
        changed(CONFIG, change)
    assert said in raised.value.problems[0]


def test_twice_the_limit_halves_the_wait():
    waits = []
    for config in (CONFIG, changed(CONFIG, "deployments.gpt.4.rpm=2x")):
        scenario = scenario_of_config(config, plan_of(config), ROWS, SHAPE)
        waits.append(play(scenario, "penstock").wait.p95)

    assert waits[0] > 45.0
    assert waits[1] < 5.0


def test_rows_keep_what_they_name_and_sessions_are_chains():
    rows = [
        Row(5.0, 10, 1, session="s", tenant="a"),
        Row(6.0, 20, 1, session="s", tenant="a"),
        Row(7.0, 30, 1, tenant="b", class_name="batch", deadline_seconds=9.0),
        Row(500.0, 40, 1),
    ]
    runs = scenario_of_config(CONFIG, plan_of(CONFIG), rows, SHAPE).runs

    assert [(run.arrival, run.tenant, run.class_name, len(run.steps)) for run in runs] == [
        (0.0, "a", "interactive", 2),
        (2.0, "b", "batch", 1),
    ]
    assert [run.patience_seconds for run in runs] == [None, 9.0]
    assert {run.model for run in runs} == {"openai/gpt"}


def test_what_comes_before_the_beginning_is_left_out():
    rows = [Row(100.0, 10, 1), Row(3_700.0, 20, 1), Row(3_760.0, 30, 1)]
    later = Shape(seconds=200.0, begin_seconds=3_500.0)
    runs = scenario_of_config(CONFIG, plan_of(CONFIG), rows, later).runs

    assert [(run.arrival, run.steps[0].tokens_input) for run in runs] == [(100.0, 20), (160.0, 30)]
    with pytest.raises(ConfigError, match=r"no calls after 2 h; it has 1\.02 h"):
        scenario_of_config(
            CONFIG, plan_of(CONFIG), rows, Shape(seconds=60.0, begin_seconds=7_200.0)
        )


def test_calls_at_once_may_be_the_only_limit():
    tables = msgspec.to_builtins(CONFIG)
    one = tables["deployments"]["gpt.4"]
    del one["rpm"]
    one["concurrency"] = 1
    config = msgspec.convert(tables, Config)
    rows = [Row(n * 3.0, 10, 56, tenant=f"t{n % 2}", class_name="batch") for n in range(40)]
    rows += [row._replace(at=row.at + 0.2) for row in rows]
    scenario = scenario_of_config(config, plan_of(config), sorted(rows), SHAPE)
    found = play(scenario, "penstock")

    assert found.binding == "concurrency"
    assert found.answers_429 == 0
    assert found.wait_batch.maximum == pytest.approx(0.8, abs=0.2), "each takes 1.04 s"


def test_a_run_of_the_ledger_is_one_chain_with_the_time_of_its_tools():
    """The first call was busy for 6 s, the second came 1 s later. Of the others less is known."""
    rows = [
        Row(0.0, 10, 8, tenant="a", run="r", busy_seconds=6.0),
        Row(7.0, 20, 8, tenant="a", run="r"),
        Row(12.0, 30, 8, tenant="a", run="r"),
        *[Row(13.0 + n, 40, 8, tenant="a", run="r", busy_seconds=1.5) for n in range(4)],
    ]
    [run] = scenario_of_config(CONFIG, plan_of(CONFIG), rows, SHAPE).runs

    tools = [step.tool_seconds for step in run.steps]
    assert tools[:2] == [0.0, 1.0]
    assert tools[2] == pytest.approx(5.0 - 0.4, abs=0.001), "an answer of 8 tokens takes 0.4 s"
    assert tools[4:] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("row", [Row(0.0, 1, 1, model="other"), Row(0.0, 1, 1, class_name="none")])
def test_a_row_that_does_not_fit_the_configuration_is_told(row):
    with pytest.raises(ConfigError, match="the workload names"):
        scenario_of_config(CONFIG, plan_of(CONFIG), [row], SHAPE)


def test_a_configuration_without_deployments_is_told():
    empty = Config(classes={"interactive": ClassTable(rank=0)})
    with pytest.raises(ConfigError, match="no deployment"):
        scenario_of_config(empty, plan_of(empty), ROWS, SHAPE)


def test_deployments_of_one_pool_share_one_account():
    tables = msgspec.to_builtins(CONFIG)
    one = tables["deployments"]["gpt.4"]
    tables["deployments"] = {
        "a": {**one, "pool": "shared"},
        "b": {"provider": "p", "model": "gpt", "pool": "shared"},
    }
    config = msgspec.convert(tables, Config)
    scenario = scenario_of_config(config, plan_of(config), ROWS, SHAPE)
    alone = scenario_of_config(CONFIG, plan_of(CONFIG), ROWS, SHAPE)

    assert scenario.rates() == alone.rates()
    for policy in ("penstock", "fifo", "alone-fifo"):
        assert play(scenario, policy).wait.p95 == pytest.approx(
            play(alone, policy).wait.p95, abs=0.2
        )
        assert play(scenario, policy).use <= 1.2


def test_a_configuration_without_a_rate_is_told():
    tables = msgspec.to_builtins(CONFIG)
    del tables["deployments"]["gpt.4"]["rpm"]
    config = msgspec.convert(tables, Config)
    with pytest.raises(ConfigError, match="no deployment states a limit"):
        scenario_of_config(config, plan_of(config), ROWS, SHAPE)
