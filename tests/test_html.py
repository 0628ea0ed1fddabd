"""HTML pages, parsed as browsers do, with hostile text everywhere."""

import base64
import io
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from pipeline.reporting.html import Page, Plot, PngImage, Section, SourceRun, Sources, Table

HOSTILE = '<script src="https://x.example/a.js">\'&amp;"</script></table><!-- '
VOID = {"meta", "img", "link", "br"}
LOADING = ("src", "href", "xlink:href", "data", "poster", "srcset", "action")

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]))


class Parsed(HTMLParser):
    """The elements and text of a page; raises for an element that is not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"{tag} has an attribute twice: {names}"
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.words.setdefault(self.open[-1], []).append(data)

    def handle_comment(self, data: str) -> None:
        self.words.setdefault("comment", []).append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def values(self, *names: str) -> Iterator[str]:
        for _, attributes in self.elements:
            yield from (value for name, value in attributes.items() if name in names)


def png() -> bytes:
    file = io.BytesIO()
    Image.new("L", (3, 2), 128).save(file, "png")
    return file.getvalue()


def line_plot(label: str = "loss") -> Plot:
    figure = Figure(figsize=(5, 3))
    axes = figure.subplots()
    axes.plot([0, 1], [1, 0], clip_on=True)
    axes.imshow([[0.0, 1.0]], interpolation="none")
    axes.set_ylabel(label)
    return Plot(figure, "a line that falls", "Loss over epochs.")


def page(word: str = "words") -> Page:
    """A page with every kind of block, `word` in every place for text."""
    figure = line_plot("loss & <gain>").figure
    return Page(
        word,
        word,
        word,
        [{"kind": "synthetic", "source": word or "-"}, {"kind": "real", "source": "MNIST"}],
        [
            Section(word, [word, Table(word, [word, "b"], [[word, "1"], ["c", word]])]),
            Section(
                "images",
                [
                    Plot(figure, word + ".", word),
                    Plot(figure, word + ".", word, wide=True),
                    PngImage(png(), word + ".", word),
                    Sources([SourceRun(word, word, {"key": word, word: Path("x")}, word)]),
                ],
            ),
        ],
    )


@given(words)
def test_any_text_is_shown_unchanged(word: str) -> None:
    table = Table(word, [word], [[word]])
    sources = Sources([SourceRun(word, word, {}, word)])
    origin = {"kind": "real", "source": word + "."}
    text = Page(word, word, word, [origin], [Section(word, [word, table, sources])]).html()
    found = Parsed(text).words
    for tag in ("h1", "h2", "title", "span", "dt"):
        assert "".join(found.get(tag, [])) == word
    assert "".join(found.get("li", [])) == f"real data: {word}."
    assert "".join(found.get("p", [])) == 3 * word
    assert "".join(found.get("th", [])) == 2 * word
    assert "".join(found.get("code", [])) == 2 * word


def test_hostile_text_is_escaped() -> None:
    plain, hostile = Parsed(page().html()), Parsed(page(HOSTILE).html())
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in plain.elements]
    assert {HOSTILE + "."} == {a["alt"] for a in hostile.all("img")}
    assert {HOSTILE + "."} == {a["aria-label"] for a in hostile.all("svg")}
    assert hostile.words.get("comment") == plain.words.get("comment")


def test_nothing_is_loaded_from_elsewhere() -> None:
    text = page().html()
    parsed = Parsed(text)
    assert "http" not in text.replace("http-equiv", "")
    assert {tag for tag, _ in parsed.elements}.isdisjoint({"script", "link", "iframe", "object"})
    for value in parsed.values(*LOADING):
        assert value.startswith(("#", "data:image/png;base64,"))
    for value in parsed.values("style", "clip-path", "fill"):
        assert value.count("url(") == value.count("url(#")
    css = "".join(parsed.words["style"])
    assert "@import" not in css
    assert "url(" not in css
    policy = [a["content"] for a in parsed.all("meta") if a.get("http-equiv")]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def test_ids_are_unique_and_every_reference_finds_one() -> None:
    text = page().html()
    parsed = Parsed(text)
    ids = list(parsed.values("id"))
    assert len(ids) > 20
    assert len(ids) == len(set(ids))
    links = [value[1:] for value in parsed.values("href") if value[0] == "#"]
    clips = [value[5:-1] for value in parsed.values("clip-path")]
    labels = list(parsed.values("aria-labelledby"))
    assert links
    assert clips
    assert labels
    assert set(links + clips + labels) <= set(ids)


def test_the_page_has_its_metadata() -> None:
    parsed = Parsed(page().html())
    assert parsed.all("html") == [{"lang": "en"}]
    assert {"charset": "utf-8"} in parsed.all("meta")
    viewport = {"name": "viewport", "content": "width=device-width, initial-scale=1"}
    assert viewport in parsed.all("meta")
    tags = [tag for tag, _ in parsed.elements]
    assert (tags.count("main"), tags.count("section"), tags.count("h1")) == (1, 2, 1)
    assert parsed.words["li"] == ["synthetic data: words", "real data: MNIST"]
    assert [a["class"] for a in parsed.all("li")] == ["synthetic", "real"]


def test_tables_name_their_rows_and_columns() -> None:
    table = Table(
        "c", ["arm", "%", "note"], [["a", "1", "x"], ["b", "2", "y"]], "lrl", frozenset({1})
    )
    parsed = Parsed(table.html("t"))
    assert [a["scope"] for a in parsed.all("th")] == ["col", "col", "col", "row", "row"]
    assert [a["class"] for a in parsed.all("td")] == ["right", "left", "right", "left"]
    assert [a.get("class") for a in parsed.all("tr")] == [None, None, "highlight"]
    plain = Parsed(Table("c", ["a", "b", "c"], [["1", "2", "3"]]).html("t"))
    assert [a["class"] for a in plain.all("th")] == ["left", "right", "right", "left"]


def test_an_image_is_embedded(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png())
    for source in (png(), path):
        (image,) = Parsed(PngImage(source, "grey", "Grey.").html("p")).all("img")
        assert image["alt"] == "grey"
        head, _, data = image["src"].partition(",")
        assert (head, base64.b64decode(data)) == ("data:image/png;base64", png())


def test_a_plot_keeps_its_text_and_shrinks() -> None:
    parsed = Parsed(line_plot("loss & <gain>").html("d"))
    (svg,) = parsed.all("svg")
    assert (svg["role"], svg["aria-label"]) == ("img", "a line that falls")
    assert svg["style"] == "width: 480px; min-width: 264px"
    assert "width" not in svg
    assert "loss & <gain>" in parsed.words["text"]
    assert "style" not in parsed.words  # it would hold for the whole page


def test_equal_pages_are_equal_text() -> None:
    assert page().html() == page().html()


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    page("é – 手").write(path)
    assert path.read_text(encoding="utf-8") == page("é – 手").html()
    assert list(tmp_path.iterdir()) == [path]
    broken = Page("t", "q", "a", page().provenance, [Section("s", [PngImage(b"GIF89a", "a", "c")])])
    with pytest.raises(ValueError, match="expected a PNG"):
        broken.write(path)
    with pytest.raises(UnicodeEncodeError):
        page("\ud800").write(path)
    assert path.read_text(encoding="utf-8") == page("é – 手").html()


def test_invalid_blocks_are_rejected() -> None:
    with pytest.raises(ValueError, match="got 1 cells in row 0, expected 2"):
        Table("c", ["a", "b"], [["1"]])
    for align in ("l", "lx", "lll"):
        with pytest.raises(ValueError, match="got alignment"):
            Table("c", ["a", "b"], [], align)
    with pytest.raises(ValueError, match="expected `alt`"):
        PngImage(png(), " ", "c")
    with pytest.raises(ValueError, match="expected `alt`"):
        Plot(Figure(), "", "c")
    wrong: list[list[dict[str, str]]] = [
        [],
        [{}],
        [{"kind": "real"}],
        [{"kind": "odd", "source": "x"}],
    ]
    for provenance in wrong:
        with pytest.raises(ValueError, match='expected the kind "real" or "synthetic"'):
            Page("t", "q", "a", provenance, [])
