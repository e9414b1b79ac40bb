"""Azure OpenAI's dated API: the same calls under other paths, charged otherwise.

``/openai/deployments/NAME/chat/completions?api-version=2024-10-21``, and
``/openai/responses?api-version=…`` with the model in the body. Charged is the sum of the input and
``max_tokens`` (Microsoft Learn, "Manage Azure OpenAI quota"). Its limits are kept apart from those
of the OpenAI account of this sandbox. The v1 API (``/openai/v1``) is OpenAI's own shape.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import TypeVar, cast

import msgspec

from penstock.sandbox import openai_shape
from penstock.sandbox.delivery import Shape
from penstock.simulate.provider_world import AZURE_CHARGE

_DATED = re.compile(r"/openai/(?:deployments/(?P<model>[^/]+)/)?(?P<called>[a-z/]+)\Z")
_VERSION = re.compile(rb"(?:^|&)api-version=\d{4}-\d{2}-\d{2}(?:-preview)?(?:&|$)")

AZURE: Shape = cast(
    "Shape", SimpleNamespace(**{**vars(openai_shape), "NAME": "azure", "CHARGE": AZURE_CHARGE})
)

_Asked = TypeVar("_Asked")


def is_dated(path: str, query: bytes) -> bool:
    """Whether a request is one of the dated API."""
    return _DATED.match(path) is not None and _VERSION.search(query) is not None


def split(path: str) -> tuple[str | None, str]:
    """The deployment that a path names, if it names one, and the call behind it."""
    match = _DATED.match(path)
    assert match is not None
    return match["model"], match["called"]


def named(
    model: str | None, reader: Callable[[bytes, Mapping[bytes, bytes]], _Asked]
) -> Callable[[bytes, Mapping[bytes, bytes]], _Asked]:
    """A reader that takes the model from the path, whatever the body says."""

    def read(body: bytes, headers: Mapping[bytes, bytes]) -> _Asked:
        if model is not None:
            try:
                fields = msgspec.json.decode(body)
            except (msgspec.DecodeError, RecursionError):
                fields = None
            if isinstance(fields, dict):
                body = msgspec.json.encode({**fields, "model": model})
        return reader(body, headers)

    return read
