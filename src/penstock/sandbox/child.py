"""The sandbox as a process of its own beside the service: a real provider over real HTTP."""

from __future__ import annotations

import asyncio
import logging
import sys

import msgspec

from penstock.config.model import Config
from penstock.errors import PenstockError

START_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 5.0

_log = logging.getLogger("penstock.sandbox")


class _Listening(msgspec.Struct):
    port: int


class SandboxChild:
    """Starts ``penstock sandbox`` and ends it. It also ends by itself when its parent dies."""

    def __init__(self, arguments: list[str]) -> None:
        self._arguments = arguments
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> int:
        """Its port, when it answers. Raises PenstockError where it does not start."""
        fixed = ["-m", "penstock", "sandbox", "--port", "0", "--json", "--exit-with-parent"]
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *fixed,
            *self._arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(START_SECONDS_MAX):
                line = await self._process.stdout.readline()
            return msgspec.json.decode(line, type=_Listening).port
        except (TimeoutError, msgspec.MsgspecError):
            await self.stop()
            raise PenstockError(
                "the sandbox provider did not start; `penstock sandbox` says why"
            ) from None

    async def stop(self) -> None:
        """End it, at last by force."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS_MAX):
                await process.wait()
        except TimeoutError:
            _log.warning("the sandbox did not stop and is killed")
            process.kill()
            await process.wait()


def enforced(config: Config) -> list[str]:
    """The arguments by which it enforces what its deployment is configured to have."""
    table = config.deployments.get("sandbox")
    if table is None:
        return []
    arguments = []
    for option in ("rpm", "tpm", "burst_seconds"):
        value = getattr(table, option)
        if value is not None:
            arguments += [f"--{option.replace('_', '-')}", f"{value:g}"]
    return arguments
