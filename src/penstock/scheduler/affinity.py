"""Which deployment holds a conversation's prompt in its cache; the least recently used goes first.

Kept across reloads, by the deployment's name. A provider keeps a prompt for minutes after its
last use, so what ``AFFINITIES_MAX`` other conversations have followed is not worth remembering.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeAlias

from penstock.units import Unit

AFFINITIES_MAX = 10_000
AFFINITY_CHARACTERS_MAX = 128
"""Of a longer name the beginning counts: whoever sends it decides on its length."""

Conversation: TypeAlias = tuple[str, str, str]


class Affinities:
    """Deployments by conversation. A name means something within its tenant and model only."""

    __slots__ = ("_deployments",)

    def __init__(self) -> None:
        self._deployments: OrderedDict[Conversation, str] = OrderedDict()

    def of(self, unit: Unit) -> str | None:
        """The deployment to which the conversation went last, if it is remembered."""
        return self._deployments.get(_conversation(unit)) if unit.affinity else None

    def keep(self, unit: Unit, deployment: str) -> None:
        """A unit goes there."""
        if not unit.affinity:
            return
        conversation = _conversation(unit)
        self._deployments[conversation] = deployment
        self._deployments.move_to_end(conversation)
        if len(self._deployments) > AFFINITIES_MAX:
            self._deployments.popitem(last=False)


def _conversation(unit: Unit) -> Conversation:
    return unit.tenant, unit.model, (unit.affinity or "")[:AFFINITY_CHARACTERS_MAX]
