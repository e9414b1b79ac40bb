"""Every metric, in one place: name, labels and help text.

The labels come from closed lists (outcomes, limits, doors, status classes) and from names of the
configuration. The second kind is checked: ``know`` is told the names at start and after each
reload, and any other value is counted as ``other``. So nothing that a caller sends can make a
time series. ``docs/metrics.md`` lists what stands here; a test compares the two.

Each ``Metrics`` has its own registry, so that two services in one process (as in tests) do not
count into each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Final, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics import MetricWrapperBase

from penstock.telemetry.families import CounterFamily, HistogramFamily
from penstock.units import LimitName, Outcome, Usage

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
OTHER: Final = "other"
"""The label of every name that the configuration does not have."""

_WAIT_BUCKETS: Final = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_TIME_BUCKETS: Final = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


_STATUS_CLASSES: Final[Mapping[int | None, str]] = {
    status: f"{status // 100}xx" for status in range(100, 600)
}

_Metric = TypeVar("_Metric", bound=MetricWrapperBase)


def _series(metric: _Metric) -> Callable[..., _Metric]:
    """The series of a metric by its labels, remembered: they come from closed lists."""
    return cache(metric.labels)


class Metrics:
    """What the service counts. Times in seconds."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self._known: dict[str, str] = {}
        self._call_metrics()
        self._upstream_metrics()
        self._service_metrics()

    def _call_metrics(self) -> None:
        registry = self.registry
        self._requests = CounterFamily(
            "penstock_requests",
            "Requests answered, by door, outcome, class, tenant and chain.",
            ["door", "outcome", "class", "tenant", "chain"],
            registry,
        )
        self._request_seconds = HistogramFamily(
            "penstock_request_seconds",
            "Time from a request's head to the end of its answer, by door.",
            ["door"],
            _TIME_BUCKETS,
            registry,
        )
        self._waiting = _series(
            Gauge(
                "penstock_units_waiting",
                "Units that wait for their grant now, by class and model.",
                ["class", "model"],
                registry=registry,
            )
        )
        self._wait_seconds = HistogramFamily(
            "penstock_wait_seconds",
            "Time that granted units waited, by class.",
            ["class"],
            _WAIT_BUCKETS,
            registry,
        )
        self._first_byte_seconds = HistogramFamily(
            "penstock_first_byte_seconds",
            "Time from a grant to the first byte of the provider's answer, by deployment.",
            ["deployment"],
            _TIME_BUCKETS,
            registry,
        )

    def _upstream_metrics(self) -> None:
        registry = self.registry
        self._answers = CounterFamily(
            "penstock_upstream_answers",
            "Answers of providers, by deployment and status class (2xx to 5xx, none).",
            ["deployment", "status_class"],
            registry,
        )
        self._answers_429 = CounterFamily(
            "penstock_upstream_429",
            "Answers of providers with status 429, by deployment.",
            ["deployment"],
            registry,
        )
        self._tokens = CounterFamily(
            "penstock_tokens",
            "Tokens used, by deployment and kind (input, input_cached, output, reasoning).",
            ["deployment", "kind"],
            registry,
        )
        self._limit_level = _series(
            Gauge(
                "penstock_limit_level",
                "What a deployment's bucket holds now, by limit.",
                ["deployment", "limit"],
                registry=registry,
            )
        )
        self._limit_capacity = _series(
            Gauge(
                "penstock_limit_capacity",
                "What a deployment's bucket can hold, by limit.",
                ["deployment", "limit"],
                registry=registry,
            )
        )

    def _service_metrics(self) -> None:
        registry = self.registry
        self._workers_alive = Gauge(
            "penstock_workers_alive", "Chain workers that answer now.", registry=registry
        )
        self._worker_restarts = Counter(
            "penstock_worker_restarts", "Chain workers started again.", registry=registry
        )
        self._loop_lag_seconds = Gauge(
            "penstock_loop_lag_seconds",
            "How late the event loop ran its last timer: high when something blocks it.",
            registry=registry,
        )
        self._reloads = _series(
            Counter(
                "penstock_config_reloads",
                "Reloads of the configuration, by result (taken, refused).",
                ["result"],
                registry=registry,
            )
        )
        self._connections_refused = _series(
            Counter(
                "penstock_connections_refused",
                "Connections over a bound, by bound (all, address).",
                ["bound"],
                registry=registry,
            )
        )
        self._ledger_rows_lost = Counter(
            "penstock_ledger_rows_lost",
            "Rows of the ledger that the store could not take in time.",
            registry=registry,
        )
        self._build = _series(
            Gauge(
                "penstock_build_info",
                "Always 1; the label says which version runs.",
                ["version"],
                registry=registry,
            )
        )

    def know(self, names: Iterable[str]) -> None:
        """All names of the configuration: classes, models, deployments, chains, tenants."""
        self._known = {name: name for name in names}

    def request(
        self,
        door: str,
        outcome: Outcome,
        seconds: float,
        *,
        class_name: str = "",
        tenant: str = "",
        chain: str = "",
    ) -> None:
        """One request ended. What it does not have stays empty."""
        known = self._known
        self._requests.add(
            (
                door,
                str(outcome),
                known.get(class_name, OTHER) if class_name else "",
                known.get(tenant, OTHER) if tenant else "",
                known.get(chain, OTHER) if chain else "",
            )
        )
        self._request_seconds.observe((door,), seconds)

    def units_waiting(self, class_name: str, model: str, count: int) -> None:
        """So many units wait now."""
        self._waiting(self._known.get(class_name, OTHER), self._known.get(model, OTHER)).set(count)

    def unit_waited(self, class_name: str, seconds: float) -> None:
        """One unit got its grant."""
        self._wait_seconds.observe((self._known.get(class_name, OTHER),), seconds)

    def first_byte(self, deployment: str, seconds: float) -> None:
        """The first byte of an answer came so long after its grant."""
        self._first_byte_seconds.observe((self._known.get(deployment, OTHER),), seconds)

    def upstream_answer(self, deployment: str, status: int | None) -> None:
        """A provider answered with that status; None when it did not answer at all."""
        name = self._known.get(deployment, OTHER)
        self._answers.add((name, _STATUS_CLASSES.get(status, "none")))
        if status == 429:
            self._answers_429.add((name,))

    def tokens(self, deployment: str, usage: Usage) -> None:
        """What one call used. Cached tokens are part of the input, reasoning of the output."""
        name = self._known.get(deployment, OTHER)
        self._tokens.add((name, "input"), usage.tokens_input)
        self._tokens.add((name, "output"), usage.tokens_output)
        if usage.tokens_input_cached:
            self._tokens.add((name, "input_cached"), usage.tokens_input_cached)
        if usage.tokens_reasoning:
            self._tokens.add((name, "reasoning"), usage.tokens_reasoning)

    def limit(self, deployment: str, limit: LimitName, *, level: float, capacity: float) -> None:
        """One bucket as it stands."""
        name = self._known.get(deployment, OTHER)
        self._limit_level(name, limit.value).set(level)
        self._limit_capacity(name, limit.value).set(capacity)

    def workers_alive(self, count: int) -> None:
        """So many chain workers answer now."""
        self._workers_alive.set(count)

    def connection_refused(self, bound: str) -> None:
        """One connection was over a bound: ``all`` that there may be, or of its ``address``."""
        self._connections_refused(bound).inc()

    def worker_restarted(self) -> None:
        """A chain worker was started again."""
        self._worker_restarts.inc()

    def loop_lag(self, seconds: float) -> None:
        """How late the event loop was."""
        self._loop_lag_seconds.set(seconds)

    def reloaded(self, *, taken: bool) -> None:
        """The configuration was read again."""
        self._reloads("taken" if taken else "refused").inc()

    def ledger_rows_lost(self, count: int) -> None:
        """So many calls have no row in the ledger."""
        self._ledger_rows_lost.inc(count)

    def build(self, version: str) -> None:
        """Which version runs."""
        self._build(version).set(1)

    def exposition(self) -> bytes:
        """All of it in Prometheus' text format; ``CONTENT_TYPE`` goes with it."""
        return generate_latest(self.registry)
