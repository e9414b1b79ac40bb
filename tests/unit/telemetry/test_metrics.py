"""Metrics are bounded, readable by Prometheus, and documented."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from penstock.telemetry.metrics import Metrics
from penstock.units import LimitName, Outcome, Usage

DOCUMENT = Path(__file__).parents[3] / "docs" / "metrics.md"


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.exposition().decode())
        for sample in family.samples
    }


def everything(metrics: Metrics, name: str) -> None:
    metrics.request("gateway", Outcome.SUCCESS, 0.1, class_name=name, tenant=name, chain=name)
    metrics.units_waiting(name, name, 3)
    metrics.unit_waited(name, 0.2)
    metrics.first_byte(name, 0.3)
    metrics.upstream_answer(name, 200)
    metrics.tokens(name, Usage(10, 20, 5, 1))
    metrics.limit(name, LimitName.RPM, level=1, capacity=2)


@given(st.lists(st.text(max_size=30), max_size=30))
def test_names_from_outside_the_configuration_make_no_series(names: list[str]) -> None:
    metrics = Metrics()
    metrics.know(["known"])
    everything(metrics, "known")
    everything(metrics, "made up")
    before = set(samples(metrics))
    for name in names:
        everything(metrics, name)
    added = set(samples(metrics)) - before
    assert all(dict(labels).get("class") == "" for _, labels in added), added


def test_what_is_counted_is_what_is_exposed() -> None:
    metrics = Metrics()
    metrics.know(["batch", "gpt", "main", "web"])
    for _ in range(2):
        metrics.request("gateway", Outcome.SUCCESS, 0.5, class_name="batch", tenant="web")
    metrics.upstream_answer("main", 429)
    metrics.upstream_answer("main", None)
    metrics.tokens("main", Usage(100, 20, 30, 0))
    metrics.limit("main", LimitName.TPM, level=7.5, capacity=100)
    metrics.units_waiting("batch", "gpt", 4)
    got = samples(metrics)

    def value(name: str, **labels: str) -> float:
        return got[name, tuple(sorted(labels.items()))]

    request = {"door": "gateway", "outcome": "success", "class": "batch", "tenant": "web"}
    assert value("penstock_requests_total", chain="", **request) == 2
    assert value("penstock_request_seconds_sum", door="gateway") == 1.0
    assert value("penstock_upstream_429_total", deployment="main") == 1
    assert value("penstock_upstream_answers_total", deployment="main", status_class="4xx") == 1
    assert value("penstock_upstream_answers_total", deployment="main", status_class="none") == 1
    assert value("penstock_tokens_total", deployment="main", kind="input") == 100
    assert value("penstock_tokens_total", deployment="main", kind="input_cached") == 30
    assert value("penstock_limit_level", deployment="main", limit="tpm") == 7.5
    assert value("penstock_units_waiting", **{"class": "batch", "model": "gpt"}) == 4


def test_two_services_in_one_process_count_apart() -> None:
    one, two = Metrics(), Metrics()
    one.request("gateway", Outcome.SUCCESS, 0.1)
    assert not [key for key in samples(two) if key[0] == "penstock_requests_total"]


def test_the_document_lists_every_metric_with_its_labels_and_no_other() -> None:
    row = re.compile(r"^\| `(penstock_\w+)` \| (\w+) \|([^|]*)\|", re.MULTILINE)
    documented = {
        name: (kind, tuple(sorted(re.findall(r"`(\w+)`", labels))))
        for name, kind, labels in row.findall(DOCUMENT.read_text())
    }
    metrics = Metrics()
    exposed = {}
    for family in metrics.registry.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        collector = metrics.registry._names_to_collectors[family.name]
        names = collector.labelnames if hasattr(collector, "labelnames") else collector._labelnames
        exposed[name] = (family.type, tuple(sorted(names)))
    assert documented == exposed


def test_the_document_lists_every_outcome_and_no_other() -> None:
    section = DOCUMENT.read_text().partition("| outcome | meaning |")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == [
        outcome.value for outcome in Outcome
    ]
