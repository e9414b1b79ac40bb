"""A comparison as a picture: a bar for each base image, of what it is made. SVG as text.

Its colours follow the reader's light or dark theme, its parts are told apart without colour by
their hatching and by their legend, and it needs neither a font nor a script.
"""

from __future__ import annotations

from html import escape

from penstock.image.compare import Comparison, Row, change, hard_words
from penstock.image.report import duration

WIDTH, LEFT, RIGHT = 900, 190, 150
TOP, STEP, BAR = 76, 54, 22
PARTS = (
    ("base", "base image"),
    ("other", "Python code and data"),
    ("shared", "shared objects"),
    ("symbols", "of them, what stripping takes"),
)
STYLE = """
  :root { color-scheme: light dark; }
  svg { background: #ffffff; }
  text { font: 12px system-ui, sans-serif; fill: #1c2128; }
  .soft { fill: #59636e; } .bad { fill: #b3261e; } .line { stroke: #d9dde3; }
  .base { fill: #8a94a0; } .other { fill: #1f6feb; } .shared { fill: #6e4aa6; }
  .symbols { fill: url(#hatch); stroke: #b35900; } .stripe { stroke: #b35900; }
  @media (prefers-color-scheme: dark) {
    svg { background: #0f1318; }
    text { fill: #e6eaef; } .soft { fill: #9aa5b1; } .bad { fill: #ff8a80; }
    .line { stroke: #2c343e; }
    .base { fill: #6b7682; } .other { fill: #4c9aff; } .shared { fill: #b79cf0; }
    .symbols { stroke: #f0a35e; } .stripe { stroke: #f0a35e; }
  }
"""
HATCH = (
    '<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><line class="stripe" x1="0" y1="0" x2="0" y2="6" '
    'stroke-width="3"/></pattern></defs>'
)


def draw(comparison: Comparison) -> str:
    """The picture of a comparison."""
    rows = comparison.rows
    largest = max((_total(row) for row in rows), default=1) or 1
    height = TOP + STEP * len(rows) + 16
    when = f", as of {comparison.as_of}" if comparison.as_of is not None else ""
    title = f"{comparison.lock} on {len(rows)} base images{when}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        HATCH,
        _text(16, 24, title),
        *_legend(),
    ]
    for number, row in enumerate(rows):
        parts += _bar(row, TOP + STEP * number, largest, comparison.current)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _legend() -> list[str]:
    found: list[str] = []
    x = 16.0
    for kind, words in PARTS:
        found.append(f'<rect class="{kind}" x="{x:.0f}" y="40" width="14" height="12"/>')
        found.append(_text(x + 20, 50, words, "soft"))
        x += 36 + 6.6 * len(words)
    return found


def _bar(row: Row, top: float, largest: int, reference: Row) -> list[str]:
    scale = (WIDTH - LEFT - RIGHT) / largest
    sizes = (row.base_bytes or 0, row.other_bytes, row.shared_object_bytes, row.symbol_bytes)
    found = [_text(16, top + 15, row.base + (" (now)" if row.is_current else ""))]
    found.append(_text(16, top + 31, row.name.partition("/")[2], "soft"))
    x = float(LEFT)
    for (kind, words), size in zip(PARTS, sizes, strict=True):
        width = size * scale
        label = escape(f"{words}: {size / 1e6:.1f} MB")
        found.append(
            f'<rect class="{kind}" x="{x:.1f}" y="{top}" width="{width:.1f}" height="{BAR}">'
            f"<title>{label}</title></rect>"
        )
        x += width
    found.append(_text(x + 8, top + 15, _size_words(row)))
    words, kind = _below(row, reference)
    found.append(_text(LEFT, top + BAR + 14, words, kind))
    return found


def _size_words(row: Row) -> str:
    least = "≥ " if row.missing or row.base_bytes is None else ""
    return f"{least}{_total(row) / 1e6:.0f} MB"


def _below(row: Row, reference: Row) -> tuple[str, str]:
    """The line under a bar: what is hard about this base."""
    if row.impossible:
        rest = f"; to compile: {len(row.compiled)}" if row.compiled else ""
        return f"cannot be installed: {hard_words(row.impossible)}{rest}", "bad"
    if row.compiled:
        least = "at least " if row.compile_missing else ""
        time = f", {least}{duration(row.compile_cpu_seconds)} of CPU"
        return (
            f"to compile {hard_words(row.compiled)}{time if row.compile_cpu_seconds else ''}",
            "bad",
        )
    stripped = (_total(row) - row.symbol_bytes) / 1e6
    more = change(row, reference) if row is not reference else None
    difference = f"; {more / 1e6:+.0f} MB" if more is not None else ""
    least = "≥ " if row.missing or row.base_bytes is None else ""
    return f"{row.packages} downloads; {least}{stripped:.0f} MB stripped{difference}", "soft"


def _total(row: Row) -> int:
    return (row.base_bytes or 0) + row.dependency_bytes


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'
