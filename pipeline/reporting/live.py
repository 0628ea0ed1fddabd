"""The live page of a training: live.html in its run directory, which a browser reloads by itself.

The page is written between two steps, in the main process. Text costs little and is new every few
seconds; plots and images are drawn anew as often as a fixed fraction of the time allows.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import numpy as np
from rich.console import Console

from beton.reader import Reader
from pipeline.analysis.stats import Bands
from pipeline.evaluation.metrics import top_losses
from pipeline.evaluation.run_config import RunConfig
from pipeline.evaluation.run_dir import RunDir
from pipeline.loading.dataset import View
from pipeline.reporting.card_elements import TILE, SampleGrid, Strip, thumbnail
from pipeline.reporting.common import number, percent
from pipeline.reporting.html import Block, Element, Facts, Page, Plot, Section
from pipeline.reporting.plots import line, plot_curves
from pipeline.reporting.run_plots import images_of
from pipeline.runtime.signals import Stopped
from pipeline.training.trainer import Trainer

LIVE = "live.html"
SECONDS = 3.0  # between two writes, and between two reloads
TEXT, DRAWING = 0.005, 0.02  # fractions of the time, at most
FIRST_LOSSES = 10  # steps before the first plot
WORST = 12  # images with the largest losses
POINTS = 200  # of the curve of step losses
Update = Callable[[Trainer], None]


@contextmanager
def live_page(
    wanted: bool, run: RunDir, title: str, file: Reader, console: Console
) -> Iterator[Update | None]:
    """Keep the live page of a training for the time of the context, if it is `wanted`.

    Yields the function to call after each step and each epoch. The page stays as it is at the end,
    with the reason if that is an error. A finished run gets none.
    """
    if not wanted or run.finished:
        yield None
        return
    console.print(f"live page: {run.path / LIVE}")
    with LivePage(run, title, file, console) as page:
        yield page.update


class LivePage:
    """A context that writes live.html in a run directory: at its start, by `update`, at its end."""

    def __init__(self, run: RunDir, title: str, file: Reader, console: Console) -> None:
        self._run, self._title, self._file, self._console = run, title, file, console
        self._config: RunConfig = run.config()
        self._trainer: Trainer | None = None
        self._next_text = self._next_drawing = 0.0  # when they may be written again
        self._epochs = 0  # of which the page shows the validation
        self._rate = _Rate()
        self._drawn: list[Section] = []
        self._broken = False

    def __enter__(self) -> Self:
        self._write("The training starts.", refresh=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._trainer is not None:
            self._draw(self._trainer)
        self._write(self._end(error), refresh=False)

    def update(self, trainer: Trainer) -> None:
        """Write the page, if it is time to; call it after each step and each epoch."""
        now = time.monotonic()
        self._trainer = trainer
        self._rate.add(now, trainer.images, len(trainer.history))
        if now < self._next_text:
            return
        if now >= self._next_drawing and len(trainer.losses) >= FIRST_LOSSES:
            self._draw(trainer)
            cost = time.monotonic() - now
            self._next_drawing = now + max(SECONDS, cost / DRAWING)
        start = time.monotonic()
        self._write(self._progress(trainer), refresh=True)
        self._next_text = start + max(SECONDS, (time.monotonic() - start) / TEXT)

    def _write(self, answer: str, refresh: bool) -> None:
        """Write the page; a failure to do so is reported once and does not stop the training."""
        if self._broken:
            return
        facts = [] if self._trainer is None else [Section("Now", [self._facts(self._trainer)])]
        clock = time.strftime("%H:%M:%S")
        reload = f" Written at {clock}." if refresh else f" Last written at {clock}."
        page = Page(
            f"Live: {self._title}",
            "How far is this training, and how well does it go?",
            answer + reload,
            [self._config.provenance],
            [*facts, *self._drawn],
            refresh=round(SECONDS) if refresh else None,
        )
        try:
            page.write(self._run.path / LIVE)
        except OSError as error:
            self._broken = True
            self._console.print(f"live page: not written any more: {error}")

    def _progress(self, trainer: Trainer) -> str:
        epochs, steps = trainer.recipe.epochs, trainer.batches_per_epoch
        done = len(trainer.history)
        place = f"Epoch {min(done + 1, epochs)} of {epochs}"
        step = f"step {trainer.step:,} of {epochs * steps:,}"
        left = self._rate.seconds_left(trainer)
        eta = "" if left is None else f", about {_duration(left)} left"
        return f"{place}, {step}{eta}."

    def _end(self, error: BaseException | None) -> str:
        """Return how the training ended."""
        if error is None:
            last = self._trainer.history[-1] if self._trainer and self._trainer.history else None
            accuracy = ""
            if last is not None and last.accuracy is not None:
                accuracy = f" Its last validation accuracy is {percent(last.accuracy)}."
            report = self._run.path / "report.html"
            where = " Its report is report.html beside this page." if report.exists() else ""
            return f"The training is finished.{accuracy}{where}"
        if isinstance(error, Stopped):
            return f"The training was {error}; --resume resumes it."
        if isinstance(error, KeyboardInterrupt):
            return "The training was interrupted; --resume resumes it from its last checkpoint."
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return f"The training failed: {reason}"

    def _facts(self, trainer: Trainer) -> Facts:
        rows: list[tuple[str, str]] = []
        if rate := self._rate.images_per_second:
            rows.append(("rate", f"{number(rate)} images/s"))
        if trainer.losses:
            recent = trainer.losses[-trainer.batches_per_epoch // 10 or -1 :]
            rows.append(("training loss", f"{np.mean(recent):.3f} nats, mean of recent steps"))
        if trainer.history:
            last = trainer.history[-1]
            rows.append(
                (
                    "last epoch",
                    f"training: loss {last.train_loss:.3f}, accuracy "
                    f"{percent(last.train_accuracy)}; learning rate {last.learning_rate:.3g}; "
                    f"gradient norm {last.gradient_norm:.3g}",
                )
            )
            if last.accuracy is not None and last.loss is not None:
                validation = f"loss {last.loss:.3f}, accuracy {percent(last.accuracy)}"
                if last.balanced_accuracy is not None:
                    validation += f", balanced accuracy {percent(last.balanced_accuracy)}"
                rows.append(("last validation", validation))
        rows.append(("images so far", f"{trainer.images:,}"))
        if trainer.until is not None:
            rows.append(("ends at", f"a validation accuracy of {percent(trainer.until)}"))
        return Facts(rows)

    def _draw(self, trainer: Trainer) -> None:
        """Draw the plots, and after a new validation its worst images."""
        curves: list[Block] = [
            _Drawn(plot, f"plot-{number}") for number, plot in enumerate(_plots(trainer))
        ]
        sections = [Section("Curves", curves)] if curves else []
        if trainer.predictions is not None:
            if len(trainer.history) != self._epochs or len(self._drawn) < 2:
                self._epochs = len(trainer.history)
                title = f"Largest losses after epoch {self._epochs}"
                worst = Section(title, [_Drawn(self._worst(trainer), "worst")])
            else:
                worst = self._drawn[1]
            sections.append(worst)
        self._drawn = sections

    def _worst(self, trainer: Trainer) -> Element:
        """Return the validation images with the largest losses, as they are stored."""
        predictions = trainer.predictions
        assert predictions is not None
        classes = self._config.classes
        worst = top_losses(predictions.logits, predictions.labels, classes, WORST)
        ids = predictions.ids[[one.row for one in worst]].cpu().numpy()
        view = View.of(self._file, TILE, self._config.recipe.window)
        pixels = (255 * images_of(self._file, ids, view)).astype(np.uint8)
        return SampleGrid(
            [
                Strip(
                    f"{one.true} → {one.predicted}",
                    f"{one.probability:.2f}",
                    f"An image of class {one.true}, classified as {one.predicted}.",
                    [thumbnail(image, 255)],
                )
                for one, image in zip(worst, pixels, strict=True)
            ]
        )


class _Drawn:
    """An element whose HTML is made when this is, because that takes time."""

    def __init__(self, element: Element, name: str) -> None:
        self._html = element.html(f"live-{name}")

    def html(self, _name: str) -> str:
        """Return the element as HTML."""
        return self._html


class _Rate:
    """The rate of the steps since the last validation, or before it until there are some."""

    def __init__(self) -> None:
        self.images_per_second = 0.0
        self._since, self._images, self._epochs = 0.0, 0, -1

    def add(self, now: float, images: int, epochs: int) -> None:
        """Add a call after a step or an epoch."""
        seconds = now - self._since
        if epochs != self._epochs:  # the time of a validation is not that of steps
            self._since, self._images, self._epochs = now, images, epochs
        elif seconds > 0.5 and images > self._images:
            self.images_per_second = (images - self._images) / seconds

    def seconds_left(self, trainer: Trainer) -> float | None:
        """Return the seconds to the end of all epochs, with their validations, if known."""
        if not self.images_per_second:
            return None
        done = len(trainer.history)
        validating: float = trainer.performance()["seconds_validating"] / max(done, 1)
        return (
            trainer.images_left / self.images_per_second
            + (trainer.recipe.epochs - done) * validating
        )


def _plots(trainer: Trainer) -> Iterator[Plot]:
    """Yield the plot of the losses, and that of the accuracies after the first epoch."""
    steps, history = trainer.batches_per_epoch, trainer.history
    losses: dict[str, Bands] = {}
    if trainer.losses:
        parts = np.array_split(np.array(trainer.losses), min(POINTS, len(trainer.losses)))
        ends = np.cumsum([len(part) for part in parts]) / steps
        losses["training"] = line(ends.tolist(), [float(part.mean()) for part in parts])
    epochs = [float(one.epoch + 1) for one in history]
    validated = [one.loss for one in history if one.loss is not None]
    if validated:
        losses["validation"] = line(epochs[-len(validated) :], validated)
    if losses:
        yield Plot(
            plot_curves(losses, "epochs", "loss (nats)", limits=(0, None)),
            "Line plot: training and validation loss over epochs.",
            "Loss. The training loss is the recipe's own, on augmented images, as a mean over "
            "neighbouring steps.",
        )
    accuracies = [one.accuracy for one in history if one.accuracy is not None]
    if history:
        lines = {"training": line(epochs, [one.train_accuracy for one in history])}
        if accuracies:
            lines["validation"] = line(epochs[-len(accuracies) :], accuracies)
        yield Plot(
            plot_curves(lines, "epochs", "accuracy (%)", 100, (0, 100)),
            "Line plot: training and validation accuracy over epochs.",
            "Accuracy after each epoch.",
        )


def _duration(seconds: float) -> str:
    """Format seconds: "40 s", "12 min", "3 h 20 min"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
