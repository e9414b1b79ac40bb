"""Deterministic text: the same conversation always gets the same words, at no cost.

The rule for tokens, used for usage and limits alike: one token for every four bytes of
UTF-8, rounded up, at least one. Real vocabularies differ from it by some ten percent,
which callers that estimate must bear anyway; being able to count by hand is worth more here.

An answer repeats the beginning of the last user message, so that the data's way through a
chain can be seen, and goes on in words chosen by a hash of the conversation. "in N words"
in that message sets the length.
"""

from __future__ import annotations

import hashlib
import re

BYTES_PER_TOKEN = 4
WORDS_DEFAULT = 42  # about 60 tokens
WORDS_MAX = 20_000
ECHO_WORDS = 8
ECHO_CHARACTERS = 80

_LENGTH_ASKED = re.compile(r"\bin (?:about |exactly )?(\d{1,6}) words\b", re.IGNORECASE)
_PIECE = re.compile(r"\s*\S+|\s+$")
_VOCABULARY = (
    *("water", "gate", "river", "mill", "wheel", "stream", "valley", "stone", "bridge", "garden"),
    *("harbour", "meadow", "lantern", "window", "morning", "evening", "winter", "summer"),
    *("silver", "copper", "timber", "canvas", "letter", "number", "signal", "turning", "flowing"),
    *("waiting", "running", "holding", "opening", "closing", "resting", "rising", "falling"),
    *("steady", "quiet", "gentle", "narrow", "broad", "clear", "bright", "early", "late", "open"),
)
_WORD_OF_BYTE = [_VOCABULARY[byte % len(_VOCABULARY)] for byte in range(256)]


def bytes_of(text: str) -> int:
    """The length of ``text`` in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def tokens_of_bytes(count: int) -> int:
    """How many tokens ``count`` bytes are."""
    return max(1, -(-count // BYTES_PER_TOKEN))


def tokens_of(text: str) -> int:
    """How many tokens ``text`` is."""
    return tokens_of_bytes(bytes_of(text))


def compose(last_user_text: str, seed: bytes) -> str:
    """The answer to a conversation whose hash is ``seed``."""
    asked = _LENGTH_ASKED.search(last_user_text)
    count = min(int(asked[1]), WORDS_MAX) if asked else WORDS_DEFAULT
    # Only the beginning is looked at: a message may be megabytes long.
    echo = " ".join(last_user_text[:ECHO_CHARACTERS].split()[:ECHO_WORDS]).replace('"', "'")
    opening = f'You said "{echo}".'.split() if echo else []
    filling = hashlib.shake_128(seed).digest(max(0, count - len(opening)))
    words = opening + [_WORD_OF_BYTE[byte] for byte in filling]
    return " ".join(words[: max(1, count)])


def cut_to_tokens(text: str, tokens_max: int | None) -> tuple[str, bool]:
    """``text`` within ``tokens_max``, and whether something had to go."""
    if tokens_max is None or tokens_of(text) <= tokens_max:
        return text, False
    kept = text.encode("utf-8", "surrogatepass")[: tokens_max * BYTES_PER_TOKEN]
    return kept.decode("utf-8", "ignore"), True


def pieces_of(text: str) -> list[str]:
    """What a stream sends one by one: words with the space before them."""
    return _PIECE.findall(text)
