"""Rules for the addresses in a configuration: a provider's ``base_url``, a host to listen on.

``base_url`` is what the provider's own SDK takes: with the version for the OpenAI protocol
(``https://api.openai.com/v1``), without it for Anthropic's (``https://api.anthropic.com``). Both
spellings are understood for both, since people copy them from either place.

Plain ``http`` sends keys and prompts for everyone on the way to read, so it is accepted only
where the way is short: loopback, private addresses, names without a dot (containers, pods), and
names under suffixes that no public server can have. There is no option to widen that.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

_PRIVATE_SUFFIXES = (
    ".internal", ".intranet", ".local", ".localhost", ".lan", ".home.arpa", ".corp", ".private",
    ".svc", ".test",
)  # fmt: skip
_BEHIND_V1 = frozenset({"openai", "openai-compatible", "vllm", "ollama", "mistral", "deepseek"})
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?\Z")
_NOT_IN_A_URL = re.compile(r"[^!-~]")


class AddressError(ValueError):
    """An address that breaks a rule; the text is the rule, and never holds the address."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on ``host``."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_host(host: str) -> bool:
    """Whether ``host`` is an address or a host name at all."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return bool(_HOST.match(host)) and ".." not in host
    return True


def _is_private(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        name = host.rstrip(".").lower()
        return "." not in name or name.endswith(_PRIVATE_SUFFIXES)


def _split(text: str) -> SplitResult:
    if _NOT_IN_A_URL.search(text):
        raise AddressError("must be a URL of printable ASCII characters without spaces")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise AddressError("must be a URL such as https://api.openai.com/v1") from None
    if parts.scheme not in {"http", "https"}:
        raise AddressError("must begin with https:// or http://")
    if parts.username is not None or parts.password is not None:
        raise AddressError("must not hold credentials; name the key with key_env or key_file")
    if "?" in text or "#" in text:
        raise AddressError("must not have a query or a fragment; remove it from ? or # on")
    if not parts.hostname or not is_host(parts.hostname) or port == 0:
        raise AddressError("must name a host, such as https://api.openai.com/v1")
    return parts


def normalised_base_url(kind: str, text: str) -> str:
    """``text`` in the spelling of the SDK of ``kind``, without a slash at the end.

    Raises AddressError naming the rule that it breaks.
    """
    parts = _split(text)
    if parts.scheme == "http" and not _is_private(str(parts.hostname)):
        raise AddressError(
            "must be https: over http everyone on the way could read keys and prompts (http is "
            "for loopback, private addresses, names without a dot and private names: "
            f"{' '.join(_PRIVATE_SUFFIXES)})"
        )
    path = parts.path.rstrip("/")
    if kind in _BEHIND_V1 and not path:
        path = "/v1"
    if kind == "anthropic":
        path = path.removesuffix("/v1")
    return f"{parts.scheme}://{parts.netloc}{path}"


def own_host(host: str) -> str:
    """Where this process reaches itself: a wildcard address is reached by loopback."""
    if host in ("0.0.0.0", "localhost"):  # noqa: S104 - compared, not bound
        return "127.0.0.1"
    if host == "::":
        return "[::1]"
    return f"[{host}]" if ":" in host else host
