"""Where a request comes from and where its answer goes: what an exchange asks of a server.

A connection stands behind it (``connection``), or this process itself, which asks its own doors
(``inside``). It lies in ``scope["state"]["line"]``. ASGI's ``send`` would do the same at several
times the price: each header a pair of its own, to be looked at again, and a message a piece.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Protocol, TypeAlias

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


class HangUp:
    """Tells whoever is at work for a connection's caller that the caller is gone.

    A callback and no task that waits for a message: that was a tenth of what a call cost.
    """

    __slots__ = ("is_gone", "told")

    def __init__(self) -> None:
        self.is_gone = False
        self.told: Callable[[], None] | None = None

    def tell(self) -> None:
        """The caller is gone; who is told so clears up, and is not to be told again in it."""
        is_news, self.is_gone = not self.is_gone, True
        if is_news and self.told is not None:
            self.told()


class Line(Protocol):
    """One request's line to its caller."""

    hang_up: HangUp

    def is_closing(self) -> bool:
        """Whether nothing reaches the caller any more."""

    def close(self) -> None:
        """End it under an unfinished answer, so that the caller sees it broken."""

    def whole_body(self) -> bytes | None:
        """The request's body, once; None where some of it is still to come."""

    async def receive(self) -> Message:
        """ASGI's: the next piece of the body, then the hang-up."""

    def begin(self, status: int, headers: Mapping[str, str], length: int | None) -> None:
        """Send the answer's head; ``length`` None: the body's end is told by its framing.

        Raises ValueError for a header that would be two.
        """

    def write(self, chunk: bytes, *, is_last: bool) -> None:
        """Send a piece of the body."""

    @property
    def is_full(self) -> bool:
        """Whether the caller reads slower than we write: ``drained`` must be waited for."""

    async def drained(self) -> None:
        """Return when the caller has caught up, or is gone."""
