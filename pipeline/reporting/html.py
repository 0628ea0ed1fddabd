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
from importlib.resources import files
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from xml.etree import ElementTree

from beton.format.storage import naming

if TYPE_CHECKING:  # importing it takes longer than drawing a page without plots
    from matplotlib.figure import Figure

PIXELS = 96  # of CSS in an inch
SMALLEST = 0.55  # fraction of its width to which a plot shrinks on a phone before it scrolls
ALIGNMENTS = {"l": "left", "c": "centre", "r": "right"}
CSS = files(__package__).joinpath("page.css").read_text("utf-8")
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


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
        columns, table = len(self.headers), f"table {self.caption!r}"
        for number, row in enumerate(self.rows):
            if len(row) != columns:
                raise ValueError(
                    f"{table}: got {len(row)} cells in row {number}, expected {columns}"
                )
        if self.align and (len(self.align) != columns or set(self.align) - set(ALIGNMENTS)):
            raise ValueError(
                f"{table}: got alignment {self.align!r}, expected one of l, c and r for each of "
                f"{columns} columns"
            )

    def html(self, name: str) -> str:
        """Return the table as HTML, in a scrollable container."""
        align = [ALIGNMENTS[a] for a in self.align or "l" + "r" * (len(self.headers) - 1)]

        def cells(row: Sequence[str]) -> list[str]:
            return [f'class="{a}">{escape(cell)}' for a, cell in zip(align, row, strict=True)]

        head = "".join(f'<th scope="col" {cell}</th>' for cell in cells(self.headers))
        body = ""
        for number, row in enumerate(self.rows):
            first, *others = cells(row)
            mark = ' class="highlight"' if number in self.highlight else ""
            body += f'<tr{mark}><th scope="row" {first}</th>'
            body += "".join(f"<td {cell}</td>" for cell in others) + "</tr>\n"
        scroll = f'class="scroll{" wide" * self.wide}" role="region" tabindex="0"'
        return f"""<div {scroll} aria-labelledby="{name}">
<table><caption id="{name}"><span>{escape(self.caption)}</span></caption>
<thead><tr>{head}</tr></thead>
<tbody>
{body}</tbody></table></div>"""


@dataclass(frozen=True)
class Plot:
    """A matplotlib figure as inline SVG. Raises ValueError for an empty `alt` text."""

    figure: "Figure"
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
            items += f"""<dt>{escape(run.used_for)}</dt>
<dd><code>{escape(run.folder)}</code></dd>
<dd><code>{escape(run.command)}</code></dd>
<dd><details><summary>configuration</summary><pre>{escape(config)}</pre></details></dd>
"""
        return f'<dl id="{name}">\n{items}</dl>'


@dataclass(frozen=True)
class Facts:
    """Pairs of a term and its description; a description of several lines is a list."""

    rows: Sequence[tuple[str, str | Sequence[str]]]

    def html(self, name: str) -> str:
        """Return the pairs as an HTML definition list."""
        items = ""
        for term, described in self.rows:
            lines = [described] if isinstance(described, str) else described
            items += f"<div><dt>{escape(term)}</dt>"
            items += "".join(f"<dd>{escape(line)}</dd>" for line in lines) + "</div>\n"
        return f'<dl class="facts" id="{name}">\n{items}</dl>'


@dataclass(frozen=True)
class Warnings:
    """Sentences that must be read first."""

    sentences: Sequence[str]

    def html(self, name: str) -> str:
        """Return the sentences as a highlighted HTML list."""
        items = "".join(f"<li>{escape(sentence)}</li>\n" for sentence in self.sentences)
        return f'<ul class="warnings" id="{name}">\n{items}</ul>'


class Element(Protocol):
    """A part of a page that is more than text."""

    def html(self, name: str, /) -> str:
        """Return the element as HTML; `name` is unique in the page."""


Block = str | Element  # a str is a paragraph


@dataclass(frozen=True)
class Section:
    """A heading and its blocks."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """An HTML page. `provenance` has the "kind" (real or synthetic) and "source" of each dataset.

    A browser reloads a page with `refresh` after this number of seconds. Raises ValueError for a
    provenance without them.
    """

    title: str
    question: str
    answer: str
    provenance: Sequence[Mapping[str, Any]]
    sections: Sequence[Section]
    language: str = "en"
    refresh: int | None = None

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
        body = ""
        for section in self.sections:
            body += f"<section>\n<h2>{escape(section.title)}</h2>\n"
            for block in section.blocks:
                if isinstance(block, str):
                    body += f"<p>{escape(block)}</p>\n"
                else:
                    body += f"{block.html(next(names))}\n"
            body += "</section>\n"
        refresh = ""
        if self.refresh is not None:
            refresh = f'<meta http-equiv="refresh" content="{self.refresh}">\n'
        return f"""<!doctype html>
<html lang="{escape(self.language)}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
{refresh}<title>{escape(self.title)}</title>
<style>
{CSS}</style>
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
        """Write the page; the file appears whole or not at all. Raises OSError with the path."""
        text = self.html()
        temporary = path.with_name(f".{path.name}")
        try:
            with naming(path):
                temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _need_alt(caption: str, alt: str) -> None:
    if not alt.strip():
        raise ValueError(f"{caption!r}: got an empty text alternative, expected `alt`")


def _figure(content: str, caption: str, wide: bool) -> str:
    return (
        f'<figure class="card{" wide" * wide}"><div class="scroll">{content}</div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _svg(figure: "Figure", alt: str, name: str) -> str:
    """Return a figure as an HTML element, without namespaces, with ids that start with `name`."""
    from matplotlib import rc_context  # slow to import

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
