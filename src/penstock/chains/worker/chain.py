"""One deployed runnable: imported, its input checked against its schema, its config built."""

from __future__ import annotations

import importlib
import logging
import sys
import uuid
from functools import reduce
from typing import Any, cast

from langchain_core.load.serializable import Serializable
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.base import coerce_to_runnable
from pydantic import BaseModel, PydanticUserError, RootModel, ValidationError

from penstock.chains.worker.chat_form import ChatForm, chat_form
from penstock.chains.worker.codec import decode
from penstock.chains.worker.config_rules import ConfigRules, Settings
from penstock.chains.worker.faults import InvalidInput
from penstock.config.model import ChainTable

logger = logging.getLogger(__name__)

NO_SCHEMA = (PydanticUserError, NameError, TypeError)
"""What pydantic raises for annotations that it can make no schema of."""


class Chain:
    """A runnable with what its table in the configuration says of it."""

    def __init__(self, name: str, table: ChainTable, runnable: Runnable[Any, Any]) -> None:
        self.name = name
        self.table = table
        self.runnable = runnable
        self.rules = ConfigRules(runnable, table.config_keys)
        self._namespace = vars(sys.modules[table.import_path.partition(":")[0]])
        self._schema_default = self._schema({})
        self.chat, self.gives_state = self._chat()

    @property
    def is_graph(self) -> bool:
        """Whether it is a LangGraph graph, which has stream modes of its own."""
        pregel = sys.modules.get("langgraph.pregel")
        return pregel is not None and isinstance(self.runnable, pregel.Pregel)

    @classmethod
    def load(cls, name: str, table: ChainTable) -> Chain:
        """Import the chain. Raises whatever its module raises, or TypeError if it is none."""
        module_name, _, attribute = table.import_path.partition(":")
        module: Any = importlib.import_module(module_name)
        found = reduce(getattr, attribute.split("."), module)
        return cls(name, table, coerce_to_runnable(found))

    def config(self, settings: Settings, run_id: str) -> RunnableConfig:
        """The RunnableConfig of one run; what a request may not steer is set here."""
        return RunnableConfig(
            run_name=self.name,
            run_id=uuid.UUID(run_id),
            tags=settings.tags,
            metadata=settings.metadata,
            configurable=settings.configurable,
        )

    def input(self, value: Any, settings: Settings) -> Any:
        """A request's input as the runnable wants it. Raises InvalidInput."""
        decoded = decode(value)
        schema = self._schema_default
        if settings.configurable:
            schema = self._schema(settings.configurable)
        if schema is None:
            return decoded
        try:
            return _unwrapped(schema.model_validate(decoded))
        except ValidationError as error:
            raise InvalidInput.of(error) from error

    def json_schema(self, kind: str, settings: Settings) -> dict[str, Any]:
        """The JSON Schema of ``input``, ``output`` or ``config``, with the config applied.

        One that allows anything where the chain's annotations make none.
        """
        if kind == "config":
            return self.rules.json_schema()
        config = RunnableConfig(configurable=settings.configurable)
        of = self.runnable
        make = of.get_input_jsonschema if kind == "input" else of.get_output_jsonschema
        try:
            return make(config)
        except NO_SCHEMA:
            return {"title": f"{self.name} {kind}", "description": "its annotations make no schema"}

    def _chat(self) -> tuple[ChatForm | None, bool]:
        """How it can be called as a model, and whether it puts out an object with messages."""
        if getattr(self.runnable, "checkpointer", None):
            return None, False
        nothing = Settings(configurable={}, tags=[], metadata={})
        given = self.json_schema("output", nothing)
        form = chat_form(self.json_schema("input", nothing), given)
        return form, "messages" in given.get("properties", {})

    def _schema(self, configurable: dict[str, Any]) -> type[BaseModel] | None:
        """The model that checks inputs, or None where the chain's annotations make none.

        Functions of a module with postponed annotations give models whose types are still
        names; the names are looked up in that module.
        """
        config = RunnableConfig(configurable=configurable)
        try:
            # The annotation also allows pydantic 1 models, which LangChain no longer makes.
            schema = cast("type[BaseModel]", self.runnable.get_input_schema(config))
            if not schema.__pydantic_complete__:
                schema.model_rebuild(_types_namespace=self._namespace)
        except NO_SCHEMA as error:
            logger.warning(
                "chain %s: no input schema (%s); its input is not checked",
                self.name,
                type(error).__name__,
            )
            return None
        return schema


def _unwrapped(value: Any) -> Any:
    """pydantic's result as plain values, but LangChain's own objects as they are."""
    if isinstance(value, RootModel):
        return _unwrapped(value.root)
    if isinstance(value, BaseModel) and not isinstance(value, Serializable):
        cls = type(value)
        # A model that LangChain made up for the schema has defaults that nobody meant: only what
        # came is passed on. A model that the chain's author wrote is filled with its defaults.
        written = getattr(sys.modules.get(cls.__module__), cls.__name__, None) is cls
        names = cls.model_fields if written else value.model_fields_set & cls.model_fields.keys()
        plain = {name: _unwrapped(getattr(value, name)) for name in names}
        return {**plain, **(value.model_extra or {})}
    if isinstance(value, list):
        return [_unwrapped(item) for item in value]
    if isinstance(value, dict):
        return {key: _unwrapped(item) for key, item in value.items()}
    return value
