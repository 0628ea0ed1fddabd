"""The page's results as HTML: one card for each image."""

from collections.abc import Sequence
from html import escape

from pipeline.app.explainer import Explanation
from pipeline.inspection.explain_cards import figure
from pipeline.inspection.neighbours import Neighbour
from pipeline.pictures.predictor import Prediction
from pipeline.reporting.common import percent

EMPTY = '<p class="hint">Draw a character or drop image files: the predictions are shown here.</p>'


def cards(explanations: Sequence[Explanation]) -> str:
    """Return the cards of images, or a hint if there are none."""
    return "".join(map(_card, explanations)) or EMPTY


def message(text: str) -> str:
    """Return a message for the user, in one line."""
    return f'<p class="message" role="alert">{escape(text)}</p>'


def _card(one: Explanation) -> str:
    if one.prediction is None:
        return message(f"{one.name}: {one.error}" if one.name else one.error)
    name = f'<p class="file">{escape(one.name)}</p>' if one.name else ""
    best = one.prediction
    figures = figure(best.seen, "What the network saw", "large")
    if one.heat is None:
        figures += f"<p class='hint'>No Grad-CAM: {escape(one.without_heat)}</p>"
    else:
        figures += figure(one.heat, f"Grad-CAM: where it saw {best.label}", "large")
    verdict = f"<strong>{escape(best.label)}</strong> <span>{percent(best.probability, 1)}</span>"
    return f"""<article class="card">{name}
<p class="verdict">{verdict}</p>
{_bars(best)}
<div class="figures">{figures}</div>
{_neighbours(one)}</article>"""


def _bars(prediction: Prediction) -> str:
    rows = "".join(
        f'<li><b>{escape(label)}</b><i><u style="width: {100 * probability:.2f}%"></u></i>'
        f"<span>{percent(probability, 1)}</span></li>"
        for label, probability in prediction.top
    )
    return f'<ol class="bars" aria-label="probabilities">{rows}</ol>'


def _neighbours(one: Explanation) -> str:
    title = '<p class="title">Nearest training images</p>'
    if not one.neighbours and not one.without_neighbours:
        return ""
    if one.neighbours is None:
        return f'{title}<p class="hint">{escape(one.without_neighbours)}</p>'
    return f'{title}<div class="neighbours">{"".join(map(_neighbour, one.neighbours))}</div>'


def _neighbour(one: Neighbour) -> str:
    return figure(one.image, f"{one.label} ({one.similarity:.2f})", "small")
