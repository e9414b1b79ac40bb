"""A config hash is what lz-string makes of a config; anything else is refused quickly."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langserve.lzstring import LZString

from penstock.chains.worker.config_hash import (
    ALPHABET,
    OUTPUT_CHARACTERS_MAX,
    BadConfigHash,
    config_of,
    decompress,
)

UNITS = st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"])


@given(st.text(UNITS, max_size=200))
def test_it_reads_what_lz_string_wrote(text):
    assert text == decompress(LZString.compressToEncodedURIComponent(text))


def test_the_known_hash_of_an_empty_object():
    assert {} == config_of("N4XyA")


def test_a_config_comes_back():
    config = {"configurable": {"llm": "loud", "template": "über {topic} " * 30}}
    text = json.dumps(config, ensure_ascii=False)

    assert config == config_of(LZString.compressToEncodedURIComponent(text))


@given(st.text(st.sampled_from(ALPHABET + "é /"), max_size=60))
def test_any_text_is_a_config_or_refused(text):
    try:
        config = config_of(text)
    except BadConfigHash:
        return
    assert isinstance(config, dict)


def test_what_is_json_but_no_object_is_refused():
    with pytest.raises(BadConfigHash):
        config_of(LZString.compressToEncodedURIComponent("[]"))


def test_a_bomb_is_refused():
    bomb = LZString.compressToEncodedURIComponent("a" * (OUTPUT_CHARACTERS_MAX + 1))

    assert len(bomb) < 2000
    with pytest.raises(BadConfigHash):
        decompress(bomb)
