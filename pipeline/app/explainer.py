"""A finished network with all that the page shows of its predictions."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.evaluation.evaluate import load_model
from pipeline.evaluation.run_data import is_exported
from pipeline.inspection.gradcam import grad_cam, overlay
from pipeline.inspection.neighbours import Neighbour, Neighbours
from pipeline.pictures.predictor import PictureError, Prediction, Predictor

TOP, NEAREST = 5, 6


@dataclass(frozen=True)
class Explanation:
    """What the page shows of one image: its prediction, or the reason why there is none.

    `heat` is the Grad-CAM of the predicted class over the network's input, uint8 (h, w, 3), or None
    with the reason in `without_heat`. `neighbours` are the nearest training images, the nearest
    first; None stands for no such images, with the reason in `without_neighbours`. An exported run
    has neither.
    """

    name: str
    error: str = ""
    prediction: Prediction | None = None
    heat: NDArray[np.uint8] | None = None
    without_heat: str = ""
    neighbours: Sequence[Neighbour] | None = None
    without_neighbours: str = ""


class Explainer:
    """The network of a run directory, ready to explain its predictions.

    The embeddings of the training images are computed in a thread, with a network of its own: hooks
    of Grad-CAM must not see its activations. Raises UserError for a run that is not finished.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._predictor = Predictor(load_model(run), top=TOP)
        self._neighbours: Future[Neighbours] = Future()
        threading.Thread(target=self._embed, daemon=True).start()

    @property
    def complete(self) -> bool:
        """Whether the embeddings are computed, or cannot be."""
        return self._neighbours.done()

    def wait(self, seconds: float) -> None:
        """Wait for the embeddings, up to some seconds."""
        self._neighbours.exception(timeout=seconds)

    def explain(self, pictures: Sequence[tuple[str, bytes]]) -> list[Explanation]:
        """Explain the predictions for image files, given as (name, content)."""
        return [self._explain(name, content) for name, content in pictures]

    def _explain(self, name: str, content: bytes) -> Explanation:
        try:
            prepared = self._predictor.prepare(content)
        except PictureError as error:
            return Explanation(name, error=str(error))
        (prediction,) = self._predictor.predict(prepared)
        inputs = self._predictor.inputs(prepared)
        trained = self._predictor.trained
        best = torch.tensor([trained.classes.index(prediction.label)], device=inputs.device)
        heat, without_heat = None, ""
        try:
            heat = overlay(prediction.seen, grad_cam(trained.network, inputs, best)[0])
        except UserError as error:  # a network without convolutions
            without_heat = str(error)
        neighbours, without = None, "The training images are being embedded, once for each run."
        if self.complete:
            reason = self._neighbours.exception()
            if reason is None:
                (neighbours,) = self._neighbours.result().nearest(inputs, NEAREST)
            without = "" if reason is None or is_exported(trained.config) else str(reason)
        return Explanation(name, "", prediction, heat, without_heat, neighbours, without)

    def _embed(self) -> None:
        try:
            trained = load_model(self._run)
            self._neighbours.set_result(Neighbours.of(trained, self._predictor.device))
        except Exception as error:  # of a thread: the page shows it
            self._neighbours.set_exception(error)
