"""Logs: one JSON object per line for machines, one short line for a terminal.

The formatter is the last thing that touches a record, whoever made it, so the redaction stands
there: whatever looks like a key, and every secret that was known at start, leaves as
``[redacted]``. Control characters are escaped, so that a name from outside can neither forge a
line nor move a terminal's cursor.

Of an exception the log has the type and the places, but not the text unless the level is DEBUG:
libraries put the value that they choked on into it, and that may be a prompt.
"""

from __future__ import annotations

import asyncio
import logging
import re
import traceback
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import IO, Any, Final, TypeAlias

import msgspec

_log = logging.getLogger("penstock.telemetry")
_ENCODE = msgspec.json.Encoder().encode

REDACTED: Final = "[redacted]"
REQUEST_LOGGER: Final = "penstock.request"
_FACTS: Final = "penstock_facts"
_SECRET_CHARACTERS_MIN: Final = 6
"""Shorter known secrets (the built-in key ``dev``) would redact ordinary words."""

_LOOKS_LIKE_A_KEY: Final = re.compile(
    r"(?:\b(?:psk_|sk-|sk_|pk_|gsk_|xai-|AIza)[A-Za-z0-9_\-]{6,}|"
    r"(?<=Bearer )[^\s\"',]{6,}|(?<=x-api-key: )[^\s\"',]{6,})",
    re.IGNORECASE,
)
_KEY_MARKS: Final = ("sk_", "sk-", "pk_", "xai-", "aiza", "bearer ", "x-api-key: ")
"""One of these is in whatever looks like a key, in lower case."""
_CONTROL: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_ExceptionInfo: TypeAlias = (
    tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
)


class Redactor:
    """Takes secrets out of text: those known by value, and whatever looks like a key."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = {secret for secret in secrets if len(secret) >= _SECRET_CHARACTERS_MIN}
        self._secrets = sorted(known, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, self._secrets))) if known else None

    def may_find(self, text: str) -> bool:
        """Whether the text is worth a look: a search for words, at a tenth of the price."""
        lowered = text.lower()
        for mark in _KEY_MARKS:
            if mark in lowered:
                return True
        return any(secret in text for secret in self._secrets)

    def __call__(self, text: str) -> str:
        """The text without secrets."""
        if self._known is not None:
            text = self._known.sub(REDACTED, text)
        return _LOOKS_LIKE_A_KEY.sub(REDACTED, text)


class _Formatter(logging.Formatter):
    """What both forms share: redaction, escapes, exceptions without their texts."""

    def __init__(self, redactor: Redactor, *, exception_texts: bool) -> None:
        super().__init__()
        self._redactor = redactor
        self._exception_texts = exception_texts

    def formatException(self, ei: _ExceptionInfo) -> str:  # noqa: N802 - logging's own name
        """Type and places; the text too where it was asked for."""
        if self._exception_texts or ei[1] is None:
            return super().formatException(ei)
        return "\n".join(rows_without_texts(ei[1]))

    def _clean(self, text: str) -> str:
        return _CONTROL.sub(_escaped, self._redactor(text))

    def _facts(self, record: logging.LogRecord) -> dict[str, Any]:
        facts = getattr(record, _FACTS, {})
        return {
            name: self._clean(value) if isinstance(value, str) else value
            for name, value in facts.items()
        }


class JsonFormatter(_Formatter):
    """One JSON object per line: ``time``, ``level``, ``logger``, ``message``, then the facts."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, _FACTS, {}),
        }
        plain = None if record.exc_info else self._plain(line)
        if plain is not None:
            return plain
        line |= {"message": self._clean(record.getMessage()), **self._facts(record)}
        if record.exc_info:
            line["exception"] = [
                self._clean(row) for row in self.formatException(record.exc_info).splitlines()
            ]
        return _ENCODE(line).decode("utf-8")

    def _plain(self, line: dict[str, Any]) -> str | None:
        """The line, where nothing in it is to be cleaned: most are looked at once, as a whole.

        JSON writes quotes and control characters with a backslash.
        """
        try:
            encoded = _ENCODE(line)
        except UnicodeEncodeError:  # half of a surrogate pair
            return None
        if not encoded.isascii() or b"\\" in encoded or b"\x7f" in encoded:
            return None
        text = encoded.decode("ascii")
        return None if self._redactor.may_find(text) else text


class LineFormatter(_Formatter):
    """A short line for a person at a terminal: local time, level, message, facts."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; an exception's places follow, indented."""
        time = datetime.fromtimestamp(record.created, UTC).astimezone().strftime("%H:%M:%S")
        facts = " ".join(f"{name}={value}" for name, value in self._facts(record).items())
        message = self._clean(record.getMessage())
        line = f"{time} {record.levelname.lower():<7} {message} {facts}".rstrip()
        if record.exc_info:
            rows = self.formatException(record.exc_info).splitlines()
            line += "".join(f"\n  {self._clean(row)}" for row in rows)
        return line


def configure(level: str, stream: IO[str], *, json: bool, secrets: Iterable[str] = ()) -> None:
    """Let all of the process's logs go to ``stream``, replacing what was configured before.

    ``level`` is a name such as ``INFO``; ``secrets`` are values that must never appear.
    """
    redactor = Redactor(secrets)
    form = JsonFormatter if json else LineFormatter
    handler = logging.StreamHandler(stream)
    handler.setFormatter(form(redactor, exception_texts=level.upper() == "DEBUG"))
    # What no line shows need not be found out for each of them.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())


def log_facts(
    logger: logging.Logger, level: int, message: str, facts: Mapping[str, object]
) -> None:
    """Log a message with named facts: plain values only, none of them from a body."""
    logger.log(level, message, extra={_FACTS: facts})


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def log_unhandled(_loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
    """An event loop's exception handler: asyncio's own writes out exceptions and arguments."""
    what, _, _arguments = str(context.get("message", "unhandled error")).partition("(")
    _log.error("asyncio: %s", what, exc_info=context.get("exception"))


def rows_without_texts(error: BaseException) -> list[str]:
    """The traceback's rows of an error and of its causes, each error by its type alone."""
    rows: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if rows:
            rows.append("while, or because of:")
        rows += [
            f'File "{frame.filename}", line {frame.lineno}, in {frame.name}'
            for frame in traceback.extract_tb(current.__traceback__)
        ]
        rows.append(f"{type(current).__module__}.{type(current).__qualname__}")
        if isinstance(current, BaseExceptionGroup):
            for member in current.exceptions:
                rows += [f"  {row}" for row in rows_without_texts(member)]
        current = current.__cause__ or (
            None if current.__suppress_context__ else current.__context__
        )
    return rows
