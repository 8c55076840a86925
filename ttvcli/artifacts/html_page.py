"""One HTML file that holds all it shows: text, tables, charts as SVG, pictures as data."""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from ttvcli.artifacts.atomic import write_text

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 72em; padding: 0 1em;
  color: #222; background: #fff; }
h1 { font-size: 1.5em } h2 { font-size: 1.2em; margin-top: 2em; border-top: 1px solid #ddd }
h3 { font-size: 1em; margin-bottom: 0 }
table { border-collapse: collapse } td, th { padding: .1em 1em .1em 0; text-align: left }
td.number { text-align: right; font-variant-numeric: tabular-nums }
.sheet { display: flex; flex-wrap: wrap; gap: .6em; margin: .6em 0 }
figure { margin: 0; max-width: 30em } figure img { max-width: 100%; display: block }
figcaption { font-size: .8em; overflow-wrap: anywhere } .muted { color: #777 }
svg { display: block; background: #f6f6f6 } svg text { font: 11px system-ui, sans-serif }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #181818 }
  svg { background: #242424 } svg text { fill: #ddd } h2 { border-color: #444 } }
"""
_WIDTH, _HEIGHT, _MARGIN = 640, 120, 18


class HtmlPage:
    """A page that grows from top to bottom; every text is escaped."""

    def __init__(self, title: str) -> None:
        self._parts = [f"<h1>{_text(title)}</h1>"]
        self._title = title

    def heading(self, text: str, level: int = 2) -> None:
        """Begin a section."""
        self._parts.append(f"<h{level}>{_text(text)}</h{level}>")

    def paragraph(self, text: str, *, muted: bool = False) -> None:
        """Add a paragraph."""
        kind = ' class="muted"' if muted else ""
        self._parts.append(f"<p{kind}>{_text(text)}</p>")

    def table(self, rows: Iterable[Sequence[object]]) -> None:
        """Add a table; numbers are set to the right."""
        lines = ("".join(map(_cell, row)) for row in rows)
        body = "".join(f"<tr>{line}</tr>\n" for line in lines)
        self._parts.append(f"<table>\n{body}</table>")

    def sheet(self, figures: Iterable[tuple[bytes | None, str]]) -> None:
        """Add JPEG pictures (or None) side by side, each with a caption."""
        body = "\n".join(
            f"<figure>{_image(data)}<figcaption>{_text(caption)}</figcaption></figure>"
            for data, caption in figures
        )
        self._parts.append(f'<div class="sheet">\n{body}\n</div>')

    def histogram(
        self,
        counts: Sequence[int],
        low: float,
        high: float,
        limits: Sequence[tuple[str, float]],
    ) -> None:
        """Add a bar chart of `counts` in equal bins from `low` to `high`, with named lines."""
        top = max(counts, default=0) or 1
        span = (high - low) or 1.0
        bin_width = _WIDTH / max(len(counts), 1)
        bars = "".join(
            f'<rect x="{n * bin_width:.1f}" y="{_MARGIN + _HEIGHT * (1 - count / top):.1f}" '
            f'width="{bin_width * 0.9:.1f}" height="{_HEIGHT * count / top:.1f}" fill="#5b8db8"/>'
            for n, count in enumerate(counts)
            if count
        )
        half, end = _WIDTH / 2, ' text-anchor="end"'  # else a name at the right edge is cut off
        lines = "".join(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{_MARGIN + _HEIGHT}" stroke="#c33"/>'
            f'<text x="{x - 3 if x > half else x + 3:.1f}" y="11" fill="#c33"'
            f"{end if x > half else ''}>{_text(name)} {value:.4g}</text>"
            for name, value in limits
            for x in (_WIDTH * (value - low) / span,)
        )
        bottom = _MARGIN + _HEIGHT + 13
        ends = (
            f'<text x="0" y="{bottom}">{low:.4g}</text>'
            f'<text x="{_WIDTH}" y="{bottom}"{end}>{high:.4g}</text>'
        )
        size = f'width="{_WIDTH}" height="{bottom + 4}" viewBox="0 0 {_WIDTH} {bottom + 4}"'
        self._parts.append(f"<svg {size}>{bars}{lines}{ends}</svg>")

    def write(self, path: Path) -> None:
        """Write the page, whole or not at all."""
        head = ["<!doctype html>", '<html lang="en">', '<meta charset="utf-8">']
        head += [f"<title>{_text(self._title)}</title>", f"<style>{_STYLE}</style>"]
        write_text(path, "\n".join([*head, *self._parts, "</html>", ""]))


def _text(value: object) -> str:
    return escape(str(value).encode("utf-8", errors="replace").decode())


def _cell(value: object) -> str:
    kind = ' class="number"' if isinstance(value, int | float) else ""
    return f"<td{kind}>{_text(value)}</td>"


def _image(data: bytes | None) -> str:
    if data is None:
        return ""
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(data).decode()}">'
