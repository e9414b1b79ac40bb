"""The composition root: a configuration in, a running service out.

The only module that knows every part. Nothing is decided here; parts are made, connected,
started in order and stopped in the reverse order.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from starlette.routing import Route

from penstock import __version__
from penstock.admin.keys import KeysDoor
from penstock.admin.routes import AdminDoor, admin_routes
from penstock.admin.tenants import TenantsDoor
from penstock.chains.door import ChainsDoor
from penstock.chains.playground import playground_routes
from penstock.chains.routes import chain_routes
from penstock.chains.spec import WorkerSpec
from penstock.chains.supervisor import ReloadFailed, WorkerPool
from penstock.chains.watch import changes
from penstock.config.addresses import own_host
from penstock.config.key_files import KeyFiles
from penstock.config.load import Loaded, with_sandbox
from penstock.config.model import Config
from penstock.config.reload import chains_part, needing_restart
from penstock.dashboard.gather import live_snapshot
from penstock.dashboard.page import routes as dashboard_routes
from penstock.dashboard.snapshot import DeploymentView, LiveSnapshot, WorkerView
from penstock.dispatch.calls import Calls
from penstock.dispatch.dispatcher import Dispatcher
from penstock.dispatch.planning import dearest_prices, plan_of, targets_of
from penstock.dispatch.prices import prices_of
from penstock.dispatch.upstream import CONNECTIONS_MAX, Upstream
from penstock.errors import ConfigError, Draining, PenstockError
from penstock.gateway.accounts import Accounts
from penstock.gateway.calls import GatewayCalls
from penstock.gateway.journal import Journal
from penstock.gateway.kept import KeptResponses
from penstock.gateway.models import ModelList, models_by_wire
from penstock.gateway.reuse import Reuse
from penstock.gateway.routes import OPENAI_ENDPOINTS, OPENAI_PREFIXES, gateway_routes
from penstock.http.auth import Authenticator, Principal, digest
from penstock.http.door import Access, Desk, Door, ErrorShape, Handler
from penstock.http.entrance import Entrance
from penstock.http.exchange import Exchange
from penstock.http.inside import InsideCalls
from penstock.http.known_keys import budgets_of, principals_of
from penstock.http.open_files import raise_open_files
from penstock.http.openapi import with_document
from penstock.http.server import HttpServer
from penstock.jobs import responses
from penstock.jobs.agent.door import AgentDoor
from penstock.jobs.batch_room import BatchRoom
from penstock.jobs.door import KIND, JobsDoor
from penstock.jobs.engine import Clocks, Jobs
from penstock.jobs.execution import RequestExecutor
from penstock.jobs.responses import BackgroundResponses
from penstock.jobs.shapes import JobShown
from penstock.providers.estimate import Estimator
from penstock.sandbox.child import SandboxChild, enforced
from penstock.scheduler.events import Replanned, Restored, TenantsReplanned
from penstock.scheduler.scheduler import Scheduler
from penstock.store.budgets import Budgets, first_of_month, spent_since
from penstock.store.changes import changes as stored_changes
from penstock.store.database import DATABASE_FILE
from penstock.store.jobs import JobStore
from penstock.store.journal import JournalStore
from penstock.store.kept_responses import ResponseStore
from penstock.store.keys import KeyStore, Snapshot
from penstock.store.ledger import Ledger, day_of, forget_old
from penstock.store.owner import Owner
from penstock.store.reader import Reader
from penstock.store.tenants import overridden, tenants_in_force
from penstock.store.threads import ThreadStore
from penstock.store.writer import Writer
from penstock.telemetry.metrics import CONTENT_TYPE, Metrics
from penstock.units import Outcome

_log = logging.getLogger("penstock")

WATCH_SECONDS = 1.0
"""How often the key store is asked for changes, and the gauges are set."""

WORKERS_KEY_ID = "penstock-workers"
"""The key id of our own chain workers; not an identifier that a configuration can have."""

WORKERS_TENANT = "penstock-workers"
"""Whom the calls of a chain's own threads belong to, which carry no run."""


class Service:
    """One running service. ``load`` reads the configuration again on a reload."""

    def __init__(
        self, loaded: Loaded, load: Callable[[], Loaded], *, watches_chains: bool = False
    ) -> None:
        self._watches_chains = watches_chains
        self._loaded = loaded
        self._config = loaded.config
        self._stored: Snapshot | None = None
        self._load = load
        self._run_key = secrets.token_bytes(32)
        self._workers_key = secrets.token_urlsafe(32)
        self._tasks: list[asyncio.Task[Any]] = []
        self._is_draining = False
        self._sandbox_port: int | None = None
        self.failed = asyncio.Event()

    @property
    def config(self) -> Config:
        """What is being served: the file's configuration, with what was set of tenants since."""
        return self._config

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._server.port

    @property
    def is_ready(self) -> bool:
        """Whether chains and gateway answer."""
        return not self._is_draining and self._pool.ready

    @property
    def waiting_count(self) -> int:
        """How many calls wait for their turn."""
        return self._dispatcher.scheduler.waiting_count

    async def start(self) -> None:
        """Listen, and begin to start the chain workers. Raises PenstockError, OSError."""
        _allow_files(self._config)
        self._sandbox = SandboxChild(enforced(self.config))
        if self._loaded.sandbox:
            self._sandbox_port = await self._sandbox.start()
            self._loaded = with_sandbox(self._loaded, self._sandbox_port)
        self._config = config = self._loaded.config
        self._metrics = Metrics()
        self._metrics.build(__version__)
        self._key_store = KeyStore(Path(config.store.path))
        self._writer = Writer(Path(config.store.path) / DATABASE_FILE)
        self._reader = Reader(Path(config.store.path) / DATABASE_FILE)
        # A reader of its own: a long look at the ledger must hold up no job.
        self._jobs_reader = Reader(Path(config.store.path) / DATABASE_FILE)
        self._budgets = Budgets(time.time)
        self._desk = Desk(self._authenticator(), config.server, self._metrics)
        self._upstream = Upstream()
        scheduler = Scheduler(plan_of(self.config), time.monotonic())
        self._dispatcher = Dispatcher(scheduler, time.monotonic)
        self._calls = Calls(self._dispatcher, self._upstream, self._metrics, time.time)
        self._calls.targets = targets_of(config, self._loaded.secrets)
        self._key_files = KeyFiles(config)
        self._ledger = Ledger(self._writer, self._metrics.ledger_rows_lost)
        await self._begin_budgets()
        self._accounts = Accounts(self._ledger, self._budgets, time.time, time.monotonic)
        self._price(config)
        self._pool = WorkerPool(config.workers, classes=config.classes)
        self._chains = ChainsDoor(self._pool, config.chains, config.classes, self._run_key)
        self._gateway = self._make_gateway(config)
        self._models = ModelList(models_by_wire(config), time.time(), chains=self._chains)
        self._journal = Journal(
            JournalStore(self._writer, self._jobs_reader),
            self._desk,
            self._accounts,
            self._run_key,
        )
        self._inside = InsideCalls()
        self._gateway.reuse = self._reuse = Reuse(
            self._inside, config.cache, self._writer, self._jobs_reader, time.time
        )
        self._jobs = self._make_jobs(config)
        self._responses = BackgroundResponses(self._jobs)
        self._gateway.background = self._responses
        self._batches = self._make_batches(config)
        self._jobs_door = JobsDoor(self._jobs, self._chains.class_of, self._batches.webhooks)
        entrance = Entrance(self._routes(), self._desk)
        self._inside.doors = entrance.answer
        self._server = HttpServer(
            entrance, config.server, on_refused=self._metrics.connection_refused
        )
        self._watch_over(self._dispatcher.run(), "the dispatcher")
        await self._server.start()
        await self._pool.start(self._worker_spec(config))
        self._watch_over(self._watch(), "the watch over keys and gauges")
        if self._watches_chains:
            self._watch_over(self._watch_chains(), "the watch over chain code")
        retention = forget_old(self._writer, lambda: self.config.ledger.keep_days, time.time)
        self._watch_over(retention, "the ledger's retention")
        self._watch_over(self._jobs.run(), "the job engine")
        self._watch_over(self._batches.run(), "batches and webhooks")

    async def wait_ready(self) -> None:
        """Return when every worker has been started once, or has failed to."""
        await self._pool.wait_ready()

    async def stop(self) -> None:
        """Take no new work, let what is under way end within the limit, stop every part."""
        self._is_draining = True
        drain_seconds = self.config.server.drain_seconds
        self._dispatcher.drain()
        await asyncio.gather(
            self._server.stop(drain_seconds),
            self._pool.stop(drain_seconds),
            self._jobs.stop(drain_seconds),
            self._batches.stop(),
        )
        self._dispatcher.refuse_all()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._upstream.close()
        await self._sandbox.stop()
        await self._ledger.close()
        self._gateway.kept.flush()
        await asyncio.to_thread(self._writer.close)
        await asyncio.to_thread(self._reader.close)
        await asyncio.to_thread(self._jobs_reader.close)
        self._key_store.close()

    async def reload(self) -> bool:
        """Read the configuration again and switch to it; what is wrong with it is logged.

        False where the old one goes on. Where it listens and the number of workers change with a
        restart only, and that is said.
        """
        try:
            loaded = self._read_again()
            config = loaded.config
            if chains_part(config) != chains_part(self.config):
                await self._pool.reload(self._worker_spec(config), config.server.drain_seconds)
        except (ConfigError, PenstockError, ReloadFailed, OSError) as error:
            for line in str(error).splitlines():
                _log.error("reload refused: %s", line)
            self._metrics.reloaded(taken=False)
            return False
        for name in needing_restart(self.config, config):
            _log.warning("reload: a change of %s needs a restart", name)
        keys_before, self._loaded = self._loaded.secrets.providers, loaded
        self._adopt()
        self._restore(keys_before)
        self._metrics.reloaded(taken=True)
        _log.info("reload taken")
        return True

    def _make_gateway(self, config: Config) -> GatewayCalls:
        gateway = GatewayCalls(
            self._calls,
            Estimator(),
            self._desk,
            config.classes,
            self._run_key,
            self._accounts,
            chains=self._chains,
        )
        gateway.fallbacks.models = config.models
        kept = ResponseStore(self._writer, self._jobs_reader)
        gateway.kept = KeptResponses(kept, time.time)
        return gateway

    def _make_agent(self) -> AgentDoor:
        threads = ThreadStore(self._writer, self._jobs_reader)
        webhooks = self._batches.webhooks
        return AgentDoor(self._jobs, threads, self._chains, self._inside, webhooks)

    def _make_jobs(self, config: Config) -> Jobs:
        jobs = Jobs(
            JobStore(self._writer, self._jobs_reader),
            Owner(Path(config.store.path)),
            config.jobs,
            config.classes,
            Clocks(time.monotonic, time.time),
            self._principal_by_id,
        )
        jobs.attempt_ended = self._journal.attempt_ended
        request = RequestExecutor(self._inside, config.jobs.result_bytes_max)
        jobs.executors.update({KIND: request, responses.KIND: request})
        return jobs

    def _make_batches(self, config: Config) -> BatchRoom:
        stored = self._writer, self._jobs_reader
        return BatchRoom(config, stored, self._inside, self._jobs, self._principal_by_id)

    def _principal_by_id(self, key_id: str, tenant: str) -> Principal | None:
        return self._desk.authenticator.by_id(key_id, tenant)

    def _read_again(self) -> Loaded:
        """The configuration as it is now. Raises ConfigError, PenstockError."""
        loaded = self._load()
        if loaded.sandbox != self._loaded.sandbox:
            raise PenstockError("switching to or from the built-in sandbox needs a restart")
        if not loaded.sandbox:
            return loaded
        assert self._sandbox_port is not None
        return with_sandbox(loaded, self._sandbox_port)

    def _adopt(self) -> None:
        """Let every part go on with the configuration that was loaded last."""
        self._desk.authenticator = self._authenticator()
        config = self.config
        _allow_files(config)
        self._desk.adopt(config.server)
        self._server.adopt(config.server)
        self._calls.targets = targets_of(config, self._loaded.secrets)
        self._key_files = KeyFiles(config)
        self._gateway.classes = config.classes
        self._reuse.adopt(config.cache)
        self._price(config)
        self._models.models = models_by_wire(config)
        self._gateway.fallbacks.models = config.models
        self._chains.reload(config.chains, config.classes)
        self._jobs.table, self._jobs.classes = config.jobs, config.classes
        self._batches.adopt(config)
        self._pool.adopt(config.classes)
        self._dispatcher.post(Replanned(plan_of(config)))
        if self._stored is not None:
            for line in overridden(self._loaded.config.tenants, self._stored.tenants):
                _log.warning("%s", line)

    async def _begin_budgets(self) -> None:
        """Count on from what the ledger says of this month. Raises StoreError."""
        if (Path(self.config.store.path) / DATABASE_FILE).exists():
            month = first_of_month(day_of(time.time()))
            asked = self._reader.submit(partial(spent_since, day=month))
            sums = await asyncio.wrap_future(asked)
            self._budgets.begin_with(sums)

    def _price(self, config: Config) -> None:
        self._accounts.prices = prices = prices_of(config)
        self._accounts.prices_expected = dearest_prices(config, prices)

    def _authenticator(self) -> Authenticator:
        """Every key: those of the file, those of the store, and that of our own workers.

        With them come budgets, and what was set of tenants.
        """
        stored = self._key_store.snapshot()
        tenants = tenants_in_force(self._loaded.config.tenants, stored.tenants)
        for line in stored_changes(self._stored, stored, self.config.tenants, tenants):
            _log.info("%s", line)
        self._stored = stored
        self._config = msgspec.structs.replace(self._loaded.config, tenants=tenants)
        principals = dict(principals_of(self._loaded, stored))
        workers = Principal(WORKERS_KEY_ID, WORKERS_TENANT, "standard", "standard", internal=True)
        principals[digest(self._workers_key, stored.pepper)] = workers
        self._budgets.adopt(budgets_of(self.config, stored))
        authenticator = Authenticator(principals, stored.pepper, tenants=self.config.tenants)
        self._metrics.know(_names(self.config) | authenticator.tenants | {WORKERS_TENANT})
        return authenticator

    def _worker_spec(self, config: Config) -> WorkerSpec:
        """What a chain worker is told. The gateway is this process, by loopback."""
        return WorkerSpec(
            socket_path="",
            chains=config.chains,
            gateway_url=f"http://{own_host(config.server.host)}:{self._server.port}",
            gateway_key=self._workers_key,
            run_key_base64=base64.b64encode(self._run_key).decode("ascii"),
            path=config.path,
            threads_path=str(Path(config.store.path).absolute() / "threads"),
            classes=config.classes,
            log_level=logging.getLevelName(logging.getLogger().level),
        )

    def _routes(self) -> list[Route]:
        def public(path: str, handler: Handler) -> Route:
            shape = ErrorShape.PROBLEM
            door = Door(
                handler,
                access=Access.PUBLIC,
                shape=shape,
                door="status",
                desk=self._desk,
                logged=False,
            )
            return Route(path, door, methods=["GET"])

        routes = [
            *gateway_routes(self._gateway, self._models, self._desk, self._journal),
            *self._responses.routes(self._desk, OPENAI_PREFIXES),
            *playground_routes(self._desk),
            *chain_routes(self._chains, self._jobs_door.or_later, JobShown, self._desk),
            *self._jobs_door.routes(self._desk),
            *self._make_agent().routes(self._desk),
            *self._batches.routes(self._desk, frozenset(OPENAI_ENDPOINTS), self._chains.class_of),
            *self._admin_routes(),
            *dashboard_routes(self._desk, self._live),
            public("/healthz", self._healthz),
            public("/readyz", self._readyz),
            public("/metrics", self._metrics_page),
        ]
        return with_document(routes, self._desk)

    def _admin_routes(self) -> list[Route]:
        directory = Path(self.config.store.path)
        admin = AdminDoor(self._reader, lambda: self._live().deployments, time.time)
        keys = KeysDoor(directory, self._budgets, lambda: self.config, self._take_stored)
        tenants = TenantsDoor(
            directory,
            self._budgets,
            lambda: self._loaded.config.tenants,
            lambda: self._desk.authenticator.tenants,
            self._take_stored,
        )
        return admin_routes(admin, keys, tenants, self._desk, DeploymentView)

    def _take_stored(self) -> None:
        """Go by the keys that are stored now, and by what is set of tenants."""
        tenants_before = self.config.tenants
        self._desk.authenticator = self._authenticator()
        if self.config.tenants != tenants_before:
            plan = plan_of(self.config)
            self._dispatcher.post(TenantsReplanned(plan.tenant_weights, plan.tenant_limits))

    def _live(self) -> LiveSnapshot:
        workers = [
            WorkerView(view.name, alive=view.ready, runs=view.runs, restarts=view.restarts)
            for view in self._pool.view()
        ]
        return live_snapshot(self._dispatcher, workers, time.time())

    async def _healthz(self, exchange: Exchange) -> Outcome:
        await exchange.respond(200, b'{"status":"ok"}')
        return Outcome.SUCCESS

    async def _readyz(self, exchange: Exchange) -> Outcome:
        if not self.is_ready:
            raise Draining("The chain workers do not answer (yet), or the service is stopping.")
        failed = sorted(self._pool.failed_chains)
        body = {"status": "ready", "chains_failed": failed}
        await exchange.respond(200, msgspec.json.encode(body))
        return Outcome.SUCCESS

    async def _metrics_page(self, exchange: Exchange) -> Outcome:
        self._set_gauges()
        await exchange.respond(200, self._metrics.exposition(), CONTENT_TYPE)
        return Outcome.SUCCESS

    async def _watch_chains(self) -> None:
        """Replace the workers whenever the code of a chain has changed."""
        async for files in changes(self.config.path):
            _log.info("%s and %d more files changed: new workers", files[0], len(files) - 1)
            try:
                await self._pool.reload(
                    self._worker_spec(self.config), self.config.server.drain_seconds
                )
            except ReloadFailed as error:
                _log.error("reload refused: %s", error)

    def _follow_key_files(self) -> None:
        """Go on with provider keys that have been replaced; calls under way keep theirs."""
        keys, problems = self._key_files.changed()
        for problem in problems:
            _log.error("a provider's key stays as it was: %s", problem)
        if not keys:
            return
        secrets_before = self._loaded.secrets
        merged = {**secrets_before.providers, **keys}
        replaced = msgspec.structs.replace(secrets_before, providers=merged)
        self._loaded = msgspec.structs.replace(self._loaded, secrets=replaced)
        self._calls.targets = targets_of(self.config, replaced)
        self._restore(secrets_before.providers)
        _log.info("the keys of these providers were replaced: %s", ", ".join(sorted(keys)))

    def _restore(self, keys_before: Mapping[str, str]) -> None:
        """A deployment that was out for its key is asked again once that is another."""
        keys = self._loaded.secrets.providers
        for name, table in self.config.deployments.items():
            if keys_before.get(table.provider) != keys.get(table.provider):
                self._dispatcher.post(Restored(name))

    async def _watch(self) -> None:
        """Every second: follow the key store and the key files, measure the loop's lag."""
        loop = asyncio.get_running_loop()
        restarts = 0
        while True:
            due_at = loop.time() + WATCH_SECONDS
            await asyncio.sleep(WATCH_SECONDS)
            self._metrics.loop_lag(max(0.0, loop.time() - due_at))
            try:
                if self._key_store.changed():
                    self._take_stored()
            except PenstockError as error:
                _log.error("the key store cannot be read: %s", error)
            self._follow_key_files()
            now_restarts = sum(view.restarts for view in self._pool.view())
            for _ in range(now_restarts - restarts):
                self._metrics.worker_restarted()
            restarts = now_restarts

    def _set_gauges(self) -> None:
        """What a scrape shows of the present moment."""
        self._metrics.workers_alive(sum(view.ready for view in self._pool.view()))
        scheduler = self._dispatcher.scheduler
        now = self._dispatcher.clock()
        for deployment in scheduler.deployments():
            for limit, bucket in deployment.pool.buckets.items():
                bucket.advance(now)
                self._metrics.limit(
                    deployment.plan.name, limit, level=bucket.level, capacity=bucket.capacity
                )
        waiting: Counter[tuple[str, str]] = Counter()
        for class_name, model, count in scheduler.waiting_by_class_and_model():
            # Those who wait for one deployment of a model count with those who wait for any.
            waiting[class_name, model.partition(" ")[0]] += count
        for (class_name, model), count in waiting.items():
            self._metrics.units_waiting(class_name, model, count)

    def _watch_over(self, coroutine: Any, name: str) -> None:
        """Run a task that must not end: if it does, the service stops, visibly."""

        def ended(task: asyncio.Task[Any]) -> None:
            if not task.cancelled():
                _log.critical("%s ended", name, exc_info=task.exception())
                self.failed.set()

        task = asyncio.create_task(coroutine)
        task.add_done_callback(ended)
        self._tasks.append(task)


def _allow_files(config: Config) -> None:
    told = raise_open_files(config.server.connections_max + CONNECTIONS_MAX)
    if told is not None:
        _log.warning("%s", told)


def _names(config: Config) -> set[str]:
    """Every name that may become a metric's label."""
    plan = plan_of(config)
    models = {model for deployment in plan.deployments for model in deployment.models}
    deployments = {deployment.name for deployment in plan.deployments}
    return {*config.classes, *deployments, *config.chains, *models}


async def serve(service: Service, stop: asyncio.Event) -> None:
    """Run a started service until ``stop`` is set or a part of it has failed."""
    waits = [asyncio.create_task(event.wait()) for event in (stop, service.failed)]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waits:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await service.stop()
