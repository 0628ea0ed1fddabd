"""Cards of explained images: an element of a page."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from PIL import Image

from beton.errors import printable
from pipeline.inspection.explain import ExplainedImage
from pipeline.inspection.explain_files import panels
from pipeline.inspection.seen import Pixels

SIDE = 96  # pixels, at least, of the longer side of an image
LONGEST = 28  # characters of an image's name that are shown


@dataclass(frozen=True)
class Card:
    """An explained image with a title and a figure, such as a probability."""

    image: ExplainedImage
    title: str
    figure: str


@dataclass(frozen=True)
class Cards:
    """Explained images, as many side by side as the page's width allows."""

    cards: Sequence[Card]

    def html(self, name: str) -> str:
        """Return the cards as an HTML list that contains their images."""
        items = "".join(map(_item, self.cards))
        return f'<ul class="explained full" id="{name}">\n{items}</ul>'


def _item(card: Card) -> str:
    image = card.image
    name = printable(Path(image.name).name)
    name = name if len(name) <= LONGEST else f"…{name[1 - LONGEST :]}"
    captions = ["as seen", f"heat of {printable(image.predicted)}"]
    if image.true_heat is not None:
        captions.append(f"heat of {printable(image.true or '')}, the label")
    figures = "".join(map(figure, panels(image, SIDE), captions))
    near = "".join(
        figure(one.image, f"{printable(one.label)} {one.similarity:.2f}", "near")
        for one in image.neighbours
    )
    near = f"<div>{near}</div>" if near else ""
    return (
        f"<li><b>{escape(card.title)}</b><span>{escape(card.figure)} · {escape(name)}</span>"
        f"<div>{figures}</div>{near}</li>\n"
    )


def figure(image: Pixels, caption: str, kind: str = "") -> str:
    """Return an image, uint8 (h, w) or (h, w, 3), with its caption as HTML of the class `kind`."""
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG")
    data = base64.b64encode(content.getvalue()).decode()
    text = escape(caption)
    return (
        f'<figure class="{kind}"><img src="data:image/png;base64,{data}" alt="{text}">'
        f"<figcaption>{text}</figcaption></figure>"
    )
