"""Reports as single HTML files, without scripts or network access.

A page starts with its question, its answer, and whether its data are real or synthetic. Plots are
inline SVG whose text stays text, for search, screen readers and print. They have a white
background, because they are unreadable on a dark one. The content security policy forbids loading
anything.
"""

import base64
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import count
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from matplotlib import rc_context
from matplotlib.figure import Figure

PIXELS = 96  # of CSS in an inch
SMALLEST = 0.55  # fraction of its width to which a plot shrinks on a phone before it scrolls
ALIGNMENTS = {"l": "left", "c": "centre", "r": "right"}


@dataclass(frozen=True)
class Table:
    """A table of text cells; the first cell of a row is its header.

    `align` has l, c or r for each column, by default "lrr…". `highlight` holds the indices of
    emphasised rows. A `wide` block may be wider than the text. Raises ValueError for rows or an
    alignment that do not fit the headers.
    """

    caption: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    align: str = ""
    highlight: frozenset[int] = frozenset()
    wide: bool = False

    def __post_init__(self) -> None:
        columns = len(self.headers)
        for number, row in enumerate(self.rows):
            if len(row) != columns:
                raise ValueError(
                    f"table {self.caption!r}: got {len(row)} cells in row {number}, "
                    f"expected {columns}"
                )
        if self.align and (len(self.align) != columns or set(self.align) - set(ALIGNMENTS)):
            raise ValueError(
                f"table {self.caption!r}: got alignment {self.align!r}, expected one of l, c and r "
                f"for each of {columns} columns"
            )

    def html(self, name: str) -> str:
        """Return the table as HTML, in a scrollable container."""
        align = [ALIGNMENTS[a] for a in self.align or "l" + "r" * (len(self.headers) - 1)]
        head = "".join(
            f'<th scope="col" class="{a}">{escape(cell)}</th>'
            for a, cell in zip(align, self.headers, strict=True)
        )
        body = ""
        for number, row in enumerate(self.rows):
            first, *cells = (
                f'class="{a}">{escape(cell)}' for a, cell in zip(align, row, strict=True)
            )
            mark = ' class="highlight"' if number in self.highlight else ""
            body += f'<tr{mark}><th scope="row" {first}</th>'
            body += "".join(f"<td {cell}</td>" for cell in cells) + "</tr>\n"
        return (
            f'<div class="{_classes("scroll", self.wide)}" role="region" tabindex="0" '
            f'aria-labelledby="{name}">\n<table><caption id="{name}">'
            f"<span>{escape(self.caption)}</span></caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>"
        )


@dataclass(frozen=True)
class Plot:
    """A matplotlib figure as inline SVG. Raises ValueError for an empty `alt` text."""

    figure: Figure
    alt: str
    caption: str
    wide: bool = False

    def __post_init__(self) -> None:
        _need_alt(self.caption, self.alt)

    def html(self, name: str) -> str:
        """Return the plot as HTML; the ids in it start with `name`."""
        return _figure(_svg(self.figure, self.alt, name), self.caption, self.wide)


@dataclass(frozen=True)
class PngImage:
    """A PNG, given as bytes or a file.

    Raises ValueError for an empty `alt` text, and in `html` for data that is not a PNG.
    """

    png: bytes | Path
    alt: str
    caption: str
    wide: bool = False

    def __post_init__(self) -> None:
        _need_alt(self.caption, self.alt)

    def html(self, name: str) -> str:
        """Return the image as HTML that contains its bytes."""
        data = self.png.read_bytes() if isinstance(self.png, Path) else self.png
        if not data.startswith(b"\x89PNG\r\n\x1a\n"):
            raise ValueError(f"image {self.caption!r}: got {data[:8]!r}…, expected a PNG")
        source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
        image = f'<img id="{name}" src="{source}" alt="{escape(self.alt)}">'
        return _figure(image, self.caption, self.wide)


@dataclass(frozen=True)
class SourceRun:
    """A run directory: its path, a command that repeats it, its config, and its use in the page."""

    folder: str
    command: str
    config: Mapping[str, Any]
    used_for: str


@dataclass(frozen=True)
class Sources:
    """The runs that the results of a page come from."""

    runs: Sequence[SourceRun]

    def html(self, name: str) -> str:
        """Return the runs as an HTML definition list."""
        items = ""
        for run in self.runs:
            config = json.dumps(run.config, indent=2, ensure_ascii=False, default=str)
            items += (
                f"<dt>{escape(run.used_for)}</dt>\n<dd><code>{escape(run.folder)}</code></dd>\n"
                f"<dd><code>{escape(run.command)}</code></dd>\n<dd><details><summary>configuration"
                f"</summary><pre>{escape(config)}</pre></details></dd>\n"
            )
        return f'<dl id="{name}">\n{items}</dl>'


Block = str | Table | Plot | PngImage | Sources  # a str is a paragraph


@dataclass(frozen=True)
class Section:
    """A heading and its blocks."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """An HTML page. `provenance` has the "kind" (real or synthetic) and "source" of each dataset.

    Raises ValueError for a provenance without them.
    """

    title: str
    question: str
    answer: str
    provenance: Sequence[Mapping[str, Any]]
    sections: Sequence[Section]
    language: str = "en"

    def __post_init__(self) -> None:
        for origin in self.provenance or [{}]:
            if origin.get("kind") not in ("real", "synthetic") or not origin.get("source"):
                raise ValueError(
                    f"page {self.title!r}: got the provenance {dict(origin)}, expected the kind "
                    '"real" or "synthetic" and a source'
                )

    def html(self) -> str:
        """Return the HTML document; equal pages give equal text."""
        badges = "".join(
            f'<li class="{origin["kind"]}">{origin["kind"]} data: {escape(origin["source"])}</li>'
            for origin in self.provenance
        )
        names = (f"block-{number}" for number in count(1))
        body = "".join(
            f"<section>\n<h2>{escape(section.title)}</h2>\n"
            + "".join(
                f"<p>{escape(block)}</p>\n"
                if isinstance(block, str)
                else f"{block.html(next(names))}\n"
                for block in section.blocks
            )
            + "</section>\n"
            for section in self.sections
        )
        return f"""<!doctype html>
<html lang="{escape(self.language)}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{escape(self.title)}</title>
<style>{CSS}</style>
</head>
<body>
<main>
<header>
<h1>{escape(self.title)}</h1>
<ul class="badges">{badges}</ul>
<p class="question">{escape(self.question)}</p>
<p class="answer">{escape(self.answer)}</p>
</header>
{body}</main>
</body>
</html>
"""

    def write(self, path: Path) -> None:
        """Write the page; the file appears whole or not at all."""
        text = self.html()
        temporary = path.with_name(f".{path.name}")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)


def _need_alt(caption: str, alt: str) -> None:
    if not alt.strip():
        raise ValueError(f"{caption!r}: got an empty text alternative, expected `alt`")


def _classes(base: str, wide: bool) -> str:
    return f"{base} wide" if wide else base


def _figure(content: str, caption: str, wide: bool) -> str:
    return (
        f'<figure class="{_classes("card", wide)}"><div class="scroll">{content}</div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _svg(figure: Figure, alt: str, name: str) -> str:
    """Return a figure as an HTML element, without namespaces, with ids that start with `name`."""
    file = io.StringIO()
    # No date and no random ids, so that equal figures give equal text.
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "page", "text.parse_math": False}):
        figure.savefig(file, format="svg", metadata=no_metadata)
    root = ElementTree.fromstring(file.getvalue())
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        for key, value in list(element.attrib.items()):
            plain = key.rpartition("}")[2]
            del element.attrib[key]
            if plain == "id":
                value = f"{name}-{value}"
            elif plain == "href" and value.startswith("#"):
                value = f"#{name}-{value[1:]}"
            element.set(plain, re.sub(r"url\(#", f"url(#{name}-", value))
    for defs in root.findall("defs"):
        for style in defs.findall("style"):
            defs.remove(style)  # it would apply to the whole page, which has the same style
    width = PIXELS * figure.get_size_inches()[0]
    for key in ("width", "height", "version"):
        del root.attrib[key]
    root.set("role", "img")
    root.set("aria-label", alt)
    root.set("style", f"width: {width:.0f}px; min-width: {SMALLEST * width:.0f}px")
    return ElementTree.tostring(root, encoding="unicode")


POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
CSS = """
:root { --ink: #1c1c1c; --soft: #5c5c5c; --line: #d9d9d9; --paper: #fff; --tint: #f2f6fa;
  --real: #00694c; --synthetic: #9a4300; --mark: #fdf3d6; }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e4e4e4; --soft: #a3a3a3; --line: #3f3f3f; --paper: #161718; --tint: #20262c;
    --real: #5fd0a8; --synthetic: #f5a35c; --mark: #3d3519; }
}
* { box-sizing: border-box; }
html { font: 106.25%/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
body { margin: 0; background: var(--paper); color: var(--ink); overflow-wrap: anywhere; }
main { max-width: 72rem; margin: 0 auto; padding: 2.5rem 1rem 4rem; }
header > *, section > * { max-width: 46rem; margin-inline: auto; }
section > .wide { max-width: 100%; width: fit-content; min-width: min(46rem, 100%); }
h1 { font-size: 2rem; line-height: 1.2; margin-block: 0 0.75rem; text-wrap: balance; }
h2 { font-size: 1.35rem; line-height: 1.3; margin-block: 3rem 0.75rem; }
p { margin-block: 0 1rem; }
.badges { display: flex; flex-wrap: wrap; gap: 0.4rem; list-style: none; padding: 0;
  margin-block: 0 1.5rem; }
.badges li { border: 1px solid; border-radius: 1rem; padding: 0.1rem 0.75rem; font-size: 0.85rem;
  font-weight: 600; }
.real { color: var(--real); }
.synthetic { color: var(--synthetic); }
.question { color: var(--soft); font-size: 1.2rem; font-style: italic; }
.answer { background: var(--tint); border-left: 4px solid #0072b2; font-size: 1.15rem;
  padding: 0.9rem 1.1rem; }
.scroll { overflow-x: auto; }
div.scroll { margin-block: 1.5rem; }
table { border-collapse: collapse; font-size: 0.95rem; min-width: 100%;
  font-variant-numeric: tabular-nums; overflow-wrap: normal; }
caption, figcaption { color: var(--soft); font-size: 0.9rem; line-height: 1.45; text-align: left; }
caption { padding-bottom: 0.5rem; }
caption span { display: inline-block; left: 0; max-width: min(46rem, 100vw - 2rem);
  position: sticky; }
th, td { border-bottom: 1px solid var(--line); padding: 0.4rem 0.75rem; vertical-align: top; }
th:first-child { padding-left: 0.4rem; }
thead th { border-bottom: 2px solid var(--soft); vertical-align: bottom; }
tbody th { font-weight: normal; }
.left { min-width: 6rem; text-align: left; }
.centre { text-align: center; }
.right { text-align: right; white-space: nowrap; }
.highlight > * { background: var(--mark); font-weight: 600; }
figure { margin-block: 1.75rem; }
.card > .scroll { background: #fff; border: 1px solid var(--line); border-radius: 0.4rem;
  margin-block: 0 0.6rem; padding: 0.5rem; text-align: center; }
svg, img { color: #000; display: block; height: auto; margin: 0 auto; max-width: 100%; }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
svg text, svg tspan { font-family: system-ui, "Segoe UI", Roboto, sans-serif !important; }
dt { font-weight: 600; margin-top: 1.25rem; }
dd { font-size: 0.9rem; margin: 0.2rem 0 0; }
code, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; font-size: 0.85em; }
pre { background: var(--tint); margin: 0.4rem 0 0; padding: 0.75rem; white-space: pre-wrap; }
summary { color: var(--soft); cursor: pointer; }
@page { margin: 18mm 16mm; }
@media print {
  html { font-size: 10pt; }
  body { background: #fff; color: #000; }
  main { max-width: none; padding: 0; }
  header > *, section > *, section > .wide { max-width: none; min-width: 0; width: auto; }
  h2 { break-after: avoid; margin-top: 1.75rem; }
  figure, table, tr, dd, .answer { break-inside: avoid; }
  thead { display: table-header-group; }
  .scroll { overflow: visible; }
  .card > .scroll { border: 0; padding: 0; }
  svg { min-width: 0 !important; }
  .card:not(.wide) svg { max-height: 95mm; }
  details::details-content { block-size: auto; content-visibility: visible; }
}
"""
