"""Where each key of a TOML text stands."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from penstock.config.positions import KeyPath, lines_of

TEXT = '''\
# a comment with [brackets] = and "quotes"
path = [
  "a", # first
  "b",
]
[server]
host = "x # no comment"
"port" = 1
[providers."a.b"]
note = """
[not.a.table]
kind = "none" \\"""
"""
literal = \'\'\'
key = 1\'\'\'
inline = { a = 1, b.c = [ { d = 2 }, 3 ] }
when = 1979-05-27 07:32:00.5
[[things]]
x = 1.5
'''


def test_each_key_table_and_item_has_the_line_on_which_it_first_stands() -> None:
    lines = lines_of(TEXT)

    assert lines == {
        ("path",): 2,
        ("path", 0): 3,
        ("path", 1): 4,
        ("server",): 6,
        ("server", "host"): 7,
        ("server", "port"): 8,
        ("providers",): 9,
        ("providers", "a.b"): 9,
        ("providers", "a.b", "note"): 10,
        ("providers", "a.b", "literal"): 14,
        ("providers", "a.b", "inline"): 16,
        ("providers", "a.b", "inline", "a"): 16,
        ("providers", "a.b", "inline", "b"): 16,
        ("providers", "a.b", "inline", "b", "c"): 16,
        ("providers", "a.b", "inline", "b", "c", 0): 16,
        ("providers", "a.b", "inline", "b", "c", 0, "d"): 16,
        ("providers", "a.b", "inline", "b", "c", 1): 16,
        ("providers", "a.b", "when"): 17,
        ("things",): 18,
        ("things", "x"): 19,
    }


def _paths(value: Any, prefix: KeyPath = ()) -> set[KeyPath]:
    """Every path in a parsed document, by the obvious recursion."""
    items: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    found = {(*prefix, name) for name, _ in items}
    for name, inner in items:
        found |= _paths(inner, (*prefix, name))
    return found


LINES = st.sampled_from(
    [
        "a = 1",
        'b.c = "x\\"]}="',
        "d = [1, [2, '''\n]''']]",
        "e = {f = {}, 'g h' = [{}]}",
        "# c = 1",
        "[i]",
        '[i."j.k"]',
        '""" = 1',
        'l = """\n""\n"""""',
        "m = 12:30:00",
        "n = [\n 1, # ]\n]",
    ]
)


@given(st.lists(LINES, max_size=8))
def test_whatever_tomllib_accepts_has_a_line_for_every_key(chosen: list[str]) -> None:
    text = "\n".join(chosen)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return

    assert _paths(document) == set(lines_of(text))
