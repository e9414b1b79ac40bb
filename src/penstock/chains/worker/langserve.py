"""The endpoints of the LangServe protocol: what they read, and what they answer.

``stream_events`` and ``stream_log`` show a run's inside, so they are there for chains whose table
says ``show_steps`` only.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any

import msgspec

from penstock.chains.worker import steps
from penstock.chains.worker.answer import Answer
from penstock.chains.worker.app import Endpoint, Request
from penstock.chains.worker.chain import Chain
from penstock.chains.worker.config_hash import BadConfigHash, config_of
from penstock.chains.worker.faults import InvalidInput
from penstock.chains.worker.request_body import kwargs_of, parse
from penstock.chains.worker.runs import Order, Runs, Source, identity_of_item, output_chunks
from penstock.errors import Forbidden, InvalidRequest
from penstock.http.sse import event

BATCH_INPUTS_MAX = 1000

END = b"event: end\n\n"
"""Without data: the JavaScript client would take data for a chunk."""


class LangServe:
    """Answers the protocol's requests with runs."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    def endpoints(self) -> Mapping[str, Endpoint]:
        """Each endpoint under its name in the route."""
        schemas = {
            f"{kind}_schema": Endpoint("GET", partial(self._schema, kind=kind))
            for kind in ("input", "output", "config")
        }
        return {
            "invoke": Endpoint("POST", self._invoke),
            "batch": Endpoint("POST", self._batch),
            "stream": Endpoint("POST", self._stream),
            "stream_events": Endpoint("POST", self._stream_events),
            "stream_log": Endpoint("POST", self._stream_log),
            **schemas,
        }

    async def _schema(self, chain: Chain, request: Request, answer: Answer, kind: str) -> None:
        settings = self._settings(chain, request, None)
        await answer.json(msgspec.json.encode(chain.json_schema(kind, settings)))

    def _order(self, chain: Chain, request: Request, body: Mapping[str, Any]) -> Order:
        if "input" not in body:
            raise InvalidInput.missing("input")
        settings = self._settings(chain, request, body.get("config"))
        return Order(
            chain=chain,
            input=chain.input(body["input"], settings),
            settings=settings,
            identity=identity_of_item(request.identity, settings, 0),
            request_id=request.request_id,
        )

    def _settings(self, chain: Chain, request: Request, config: Any) -> Any:
        try:
            from_hash = config_of(request.config_hash)
        except BadConfigHash as error:
            raise InvalidRequest("Invalid config hash", code="invalid_config_hash") from error
        return chain.rules.settings(from_hash, config, tenant=request.identity.tenant)

    async def _invoke(self, chain: Chain, request: Request, answer: Answer) -> None:
        order = self._order(chain, request, parse(request.body))
        result = await self._runs.invoke(order)
        document: dict[str, Any] = {
            "output": msgspec.Raw(result.output),
            "metadata": _metadata(order),
        }
        if result.events is not None:
            document["callback_events"] = result.events
        await answer.json(msgspec.json.encode(document))

    async def _batch(self, chain: Chain, request: Request, answer: Answer) -> None:
        orders = self._orders(chain, request)
        bounds = [order.settings.concurrency_max for order in orders]
        concurrency_max = min((bound for bound in bounds if bound), default=None)
        results = await self._runs.batch(orders, concurrency_max)
        run_ids = [order.identity.run_id for order in orders]
        document: dict[str, Any] = {
            "output": [msgspec.Raw(result.output) for result in results],
            "metadata": {
                "responses": [_metadata(order) for order in orders],
                "run_ids": run_ids,
            },
        }
        if chain.table.include_callback_events:
            document["callback_events"] = [result.events or [] for result in results]
        await answer.json(msgspec.json.encode(document))

    def _orders(self, chain: Chain, request: Request) -> list[Order]:
        body = parse(request.body)
        if "inputs" not in body:
            raise InvalidInput.missing("inputs")
        inputs = body["inputs"]
        if not isinstance(inputs, list):
            raise InvalidInput("inputs must be a list")
        if len(inputs) > BATCH_INPUTS_MAX:
            raise InvalidInput(
                f"a batch of {len(inputs)} inputs; at most {BATCH_INPUTS_MAX}: send several"
            )
        configs = body.get("config")
        one_each: list[Any] | None = configs if isinstance(configs, list) else None
        if one_each is not None and len(one_each) != len(inputs):
            raise InvalidInput(
                f"Number of configs ({len(one_each)}) must match number of inputs ({len(inputs)})"
            )
        orders = []
        for index, value in enumerate(inputs):
            config = configs if one_each is None else one_each[index]
            settings = self._settings(chain, request, config)
            if one_each is None and index > 0:
                # One config for all names one run: the first.
                settings.run_id = None
            orders.append(
                Order(
                    chain=chain,
                    input=chain.input(value, settings),
                    settings=settings,
                    identity=identity_of_item(request.identity, settings, index),
                    request_id=request.request_id,
                )
            )
        return orders

    async def _stream(self, chain: Chain, request: Request, answer: Answer) -> None:
        order = self._order(chain, request, parse(request.body))
        await answer.stream(self._output_frames(order), END)

    async def _stream_events(self, chain: Chain, request: Request, answer: Answer) -> None:
        _check_steps_shown(chain)
        body = parse(request.body, kwargs_known=("version",))
        version = steps.version_of(kwargs_of(body).get("version"))
        source = partial(steps.events, filters=steps.filters_of(body), version=version)
        await answer.stream(self._frames(self._order(chain, request, body), source), END)

    async def _stream_log(self, chain: Chain, request: Request, answer: Answer) -> None:
        _check_steps_shown(chain)
        body = parse(request.body)
        source = partial(steps.log_patches, filters=steps.filters_of(body))
        await answer.stream(self._frames(self._order(chain, request, body), source), END)

    async def _output_frames(self, order: Order) -> AsyncGenerator[bytes, None]:
        """The run's id just before the first chunk, and what it has used after the last."""
        about: dict[str, Any] = {"run_id": order.identity.run_id}
        head = event("metadata", msgspec.json.encode(about))
        async with aclosing(self._frames(order, output_chunks)) as frames:
            async for frame in frames:
                yield head + frame
                head = b""
        if head:
            yield head
        if order.usage.totals is not None:
            yield event("metadata", msgspec.json.encode(about | order.usage.fields))

    async def _frames(self, order: Order, source: Source) -> AsyncGenerator[bytes, None]:
        """Each piece as an event; clients of steps know no metadata events, so there are none."""
        async with aclosing(self._runs.stream(order, source)) as pieces:
            async for piece in pieces:
                yield event("data", piece)


def _metadata(order: Order) -> dict[str, Any]:
    """What is told of a run beside its output; ``usage`` is more than LangServe tells."""
    return {"run_id": order.identity.run_id, "feedback_tokens": [], **order.usage.fields}


def _check_steps_shown(chain: Chain) -> None:
    if not chain.table.show_steps:
        raise Forbidden(
            "this chain does not show its steps: its table has no `show_steps = true`",
            code="steps_not_shown",
        )
