"""The page as Gradio components: a sheet to draw on, a field for files, and the results."""

import base64
import binascii
from collections.abc import Sequence
from functools import lru_cache
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import gradio as gr

from pipeline.app import cards
from pipeline.app.explainer import Explainer
from pipeline.app.runs import about, choices
from pipeline.errors import UserError

Pictures = list[tuple[str, bytes]]

MAX_FILES = 20
MAX_BYTES = 20 << 20  # of a file
NETWORKS = 2  # that stay in memory
PREFIX = "data:image/png;base64,"
SHEET = """<div class="paper">
<canvas width="560" height="560" aria-label="sheet to draw on"></canvas>
<span>Draw one character here</span>
</div>
<div class="buttons"><button type="button">Undo</button>
<button type="button">Clear</button></div>"""
TITLE = """<h1>What does the network see?</h1>
<p>Draw a character with mouse, pen or finger, or drop image files.</p>"""


def build(runs: Sequence[Path]) -> gr.Blocks:
    """Return the page for run directories of finished trainings; the first is chosen at the start.

    Raises UserError if the first is not such a run.
    """
    explainer = lru_cache(NETWORKS)(Explainer)
    explainer(runs[0])

    def show(run: str, pictures: Pictures) -> tuple[str, Any]:
        """Return the results, and the timer that repeats this until they are complete."""
        try:
            chosen = explainer(Path(run))
            complete = chosen.complete
            return cards.cards(chosen.explain(pictures)), gr.Timer(active=not complete)
        except UserError as error:  # the run is damaged, or has gone
            return cards.message(str(error)), gr.Timer(active=False)

    def draw(run: str, event: gr.EventData) -> tuple[Pictures, str, Any]:
        """Show the results for a drawing, in the event's `image`, a data URL."""
        pictures = [("", _drawing(event.image))] if event.image else []
        return pictures, *show(run, pictures)

    def drop(run: str, paths: list[str] | None) -> tuple[Pictures, str, Any]:
        """Show the results for files."""
        paths = paths or []
        pictures = [(Path(path).name, Path(path).read_bytes()) for path in paths[:MAX_FILES]]
        results, timer = show(run, pictures)
        if len(paths) > MAX_FILES:
            note = f"Got {len(paths)} files, expected at most {MAX_FILES}: the others are left out."
            results = cards.message(note) + results
        return pictures, results, timer

    with gr.Blocks(title="inkrun", analytics_enabled=False) as page:
        pictures = gr.State([])
        gr.HTML(TITLE, elem_id="title")
        run = gr.Dropdown(
            choices(runs),
            value=str(runs[0]),
            label="Network",
            visible=len(runs) > 1,
            elem_id="network",
        )
        facts = gr.HTML(_facts(str(runs[0])), elem_id="about")
        with gr.Row(elem_id="work"):
            sheet = gr.HTML(html_template=SHEET, js_on_load=_text("canvas.js"), elem_id="sheet")
            results = gr.HTML(cards.EMPTY, elem_id="results")
            dropped = gr.File(
                file_count="multiple", label="Image files", height=140, elem_id="files"
            )
        timer = gr.Timer(1, active=False)
        # Drawings that come faster than results replace each other. One network computes at a time.
        quiet = {
            "trigger_mode": "always_last",
            "show_progress": "hidden",
            "concurrency_id": "network",
            "api_visibility": "private",
        }
        shown = [results, timer]
        sheet.input(draw, run, [pictures, *shown], **quiet)
        dropped.change(drop, [run, dropped], [pictures, *shown], **quiet)
        run.change(_facts, run, facts, **quiet).then(show, [run, pictures], shown, **quiet)
        timer.tick(show, [run, pictures], shown, **quiet)
    return page


def theme() -> gr.Theme:
    """Return a theme with fonts of the system, which loads none from elsewhere."""
    return gr.themes.Base(
        primary_hue="blue",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )


def style() -> str:
    """Return the style sheet of the page."""
    return _text("page.css")


def _text(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")


def _drawing(url: str) -> bytes:
    """Return the content of a data URL; what is none is an empty file, which no decoder reads."""
    try:
        return base64.b64decode(url.removeprefix(PREFIX)[: 2 * MAX_BYTES], validate=True)
    except (binascii.Error, ValueError):
        return b""


def _facts(run: str) -> str:
    try:
        return f"<p>{escape(about(Path(run)))}</p>"
    except UserError as error:
        return cards.message(str(error))
