"""The sandbox's words and their count."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.sandbox.text import compose, cut_to_tokens, pieces_of, tokens_of


@pytest.mark.parametrize(
    ("text", "expected"), [("", 1), ("a", 1), ("abcd", 1), ("abcde", 2), ("éé", 1), ("ééé", 2)]
)
def test_a_token_is_four_bytes_and_there_is_at_least_one(text, expected):
    assert expected == tokens_of(text)


@given(prompt=st.text(), seed=st.binary(min_size=1))
def test_text_is_a_function_of_the_conversation(prompt, seed):
    assert compose(prompt, seed) == compose(prompt, seed)


@given(prompt=st.text())
def test_pieces_joined_are_the_text(prompt):
    text = compose(prompt, b"seed")

    assert text == "".join(pieces_of(text))
    assert prompt == "".join(pieces_of(prompt))


@given(text=st.text(), tokens_max=st.integers(1, 50))
def test_a_cut_text_is_a_beginning_within_the_limit(text, tokens_max):
    kept, cut = cut_to_tokens(text, tokens_max)

    assert text.startswith(kept)
    assert cut == (tokens_of(text) > tokens_max)
    assert tokens_of(kept) <= tokens_max


@pytest.mark.parametrize("count", [1, 3, 60, 2000])
def test_the_length_can_be_asked_for(count):
    assert count == len(compose(f"Tell it in {count} words, please", b"seed").split())


def test_the_length_that_can_be_asked_for_is_bounded():
    assert len(compose("Tell it in 999999 words", b"seed").split()) == 20_000
