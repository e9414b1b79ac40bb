"""How many came before: the place of a waiting unit among those that still wait.

Every unit has a number, in the order of arrival. A bit for each that waits, in words of
``WORD_BITS``, makes coming and leaving O(1), and the count before a number the sum over the words
before its own. With few words that sum is exact. With many it is kept, and made anew after a
sixty-fourth of all has changed, so that ten thousand callers may ask every few seconds: O(1),
amortised, and off by that share at most. Before one that came last are all, which needs no sum.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

WORD_BITS = 256
WORDS_EXACT_MAX = 64
TOLERANCE_SHARE = 1 / 64


class Ranks:
    """The numbers of those that wait."""

    __slots__ = ("_before", "_changes", "_names", "_newest", "_words", "count")

    def __init__(self) -> None:
        self.count = 0
        self._words: dict[int, int] = {}
        self._newest = -1
        self._changes = 0
        self._names: Sequence[int] = ()
        self._before: Sequence[int] = ()

    def add(self, number: int) -> None:
        """One begins to wait."""
        name = number // WORD_BITS
        words = self._words
        words[name] = words.get(name, 0) | 1 << number % WORD_BITS
        self.count += 1
        self._changes += 1
        if number > self._newest:
            self._newest = number

    def discard(self, number: int) -> None:
        """One that waits ends its waiting."""
        name = number // WORD_BITS
        words = self._words
        left = words[name] ^ 1 << number % WORD_BITS
        if left:
            words[name] = left
        else:
            del words[name]
        self.count -= 1
        self._changes += 1

    def before(self, number: int) -> int:
        """How many of those that wait have a smaller number."""
        if number > self._newest:
            return self.count
        name, bit = divmod(number, WORD_BITS)
        words = self._words
        own = (words.get(name, 0) & ((1 << bit) - 1)).bit_count()
        if len(words) <= WORDS_EXACT_MAX:
            for other, word in words.items():
                if other < name:
                    own += word.bit_count()
            return own
        if not self._names or self._changes > TOLERANCE_SHARE * self.count:
            self._names = sorted(words)
            counts = (words[each].bit_count() for each in self._names)
            self._before = list(accumulate(counts, initial=0))
            self._changes = 0
        return min(self.count, self._before[bisect_left(self._names, name)] + own)
