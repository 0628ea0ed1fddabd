"""Predictions of a trained network for single images of any kind.

An image is first brought into the form of the training images (`pipeline.pictures.preparation`).
The result is stored in a temporary .beton file and loaded through the run's view, with the kernels
of `evaluate`, so that an image in the form of the training gives the same input in both commands.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from beton import writer
from beton.fields import Field, InkField, IntField, RGBImageField
from pipeline.data.inflated import working_folder
from pipeline.data.pixels.options import DEFAULT_QUALITY
from pipeline.data.prepare import RAW_MAX_PIXELS
from pipeline.data.sources import SPLITS
from pipeline.errors import UserError
from pipeline.evaluation.evaluate import TrainedModel
from pipeline.evaluation.predict import view_logits
from pipeline.loading.batches import DeviceLoader, display_images
from pipeline.loading.dataset import eval_batch_size, open_dataset
from pipeline.pictures.errors import PictureError
from pipeline.pictures.preparation import Preparation, Prepared
from pipeline.runtime.hardware import Precision, autocast, precision_for

__all__ = ["PictureError", "Prediction", "Predictor", "Prepared"]


@dataclass(frozen=True)
class Prediction:
    """The prediction for an image, or for one character in it.

    `top` are (class, probability), most likely first. `seen` is the network's input before
    normalisation: uint8 (h, w), ink dark on white, or (h, w, 3) in colour. `box` is (x, y, width,
    height) of the character in pixels of the upright image, None unless characters are separated.
    """

    name: str
    top: tuple[tuple[str, float], ...]
    seen: NDArray[np.uint8]
    box: tuple[int, int, int, int] | None = None

    @property
    def label(self) -> str:
        """The most likely class."""
        return self.top[0][0]

    @property
    def probability(self) -> float:
        """The probability of the most likely class."""
        return self.top[0][1]


class Predictor:
    """Predicts images with a trained network, which it moves to the `device`.

    `top` is the number of classes in a prediction. `preparation` can be pickled, so that other
    processes can prepare images. Raises UserError for a `top` below 1, and for a precision that the
    device does not support.
    """

    def __init__(
        self,
        trained: TrainedModel,
        top: int = 3,
        device: torch.device | None = None,
        precision: Precision = "auto",
    ) -> None:
        if top < 1:
            raise UserError(f"top: got {top}, expected at least 1")
        self.trained, self.top = trained, min(top, len(trained.classes))
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._precision = precision_for(self.device, precision)
        self.preparation = Preparation.of(trained)
        trained.network.to(self.device).to(memory_format=torch.channels_last).eval()

    def prepare(
        self, picture: bytes | NDArray[np.uint8], separate: bool = False, name: str = ""
    ) -> list[Prepared]:
        """Bring an image into the form of the training images, or, with `separate`, each character.

        The image is an encoded file, or uint8 (h, w), (h, w, 3) or (h, w, 4). Raises PictureError
        for an image that cannot be decoded, is blank, or shows several characters.
        """
        return self.preparation.prepare(picture, separate, name)

    def inputs(self, prepared: Sequence[Prepared]) -> Tensor:
        """Return the network's input: float32 (n, channels, height, width) on the device."""
        return torch.cat(list(self._batches(prepared)))

    def predict(self, prepared: Sequence[Prepared]) -> list[Prediction]:
        """Predict prepared images, in batches."""
        recipe, view = self.trained.config.recipe, self.trained.view
        found: list[Prediction] = []
        with torch.no_grad():
            for images in self._batches(prepared) if prepared else ():
                with autocast(self.device, self._precision):
                    logits = view_logits(
                        self.trained.network, images, recipe.views, recipe.mirrored
                    )
                probabilities, classes = logits.float().softmax(dim=1).topk(self.top)
                shown = display_images(images, view)
                levels = np.rint(255 * (shown if view.channels == 3 else 1 - shown))
                rows = zip(probabilities.tolist(), classes.tolist(), levels, strict=True)
                for numbers, ids, seen in rows:
                    one = prepared[len(found)]
                    names = [self.trained.classes[number] for number in ids]
                    top = tuple(zip(names, numbers, strict=True))
                    found.append(Prediction(one.name, top, seen.astype(np.uint8), one.box))
        return found

    def _batches(self, prepared: Sequence[Prepared]) -> Iterator[Tensor]:
        """Yield the network's input for prepared images, in batches and in order."""
        view, hand = self.trained.view, self.trained.config.recipe.hand
        rows = min(eval_batch_size(view), len(prepared))
        scales = None
        if hand:
            scale = hand / self.preparation.framing.tall
            scales = np.full(len(prepared), scale, np.float32)
        with working_folder() as folder:
            path = folder / "images.beton"
            self._write(path, prepared)
            with (
                open_dataset(path) as file,
                DeviceLoader(
                    file,
                    np.arange(len(prepared)),
                    view,
                    rows,
                    device=self.device,
                    scales=scales,
                ) as loader,
            ):
                for batch in loader.micro_batches():
                    yield batch.images[batch.valid]

    def _write(self, path: Path, prepared: Sequence[Prepared]) -> None:
        """Write prepared images as `prep` writes those of a dataset."""
        image: Field = InkField()
        pixels: dict[str, object] = {"polarity": "dark", "fit": self.trained.view.fit}
        if self.trained.view.channels == 3:
            threshold = 3 * RAW_MAX_PIXELS
            image = RGBImageField("smart", smart_threshold=threshold, jpeg_quality=DEFAULT_QUALITY)
            zero, one = (0.0,) * 3, (1.0,) * 3
            pixels = {"polarity": "each", "fit": "crop", "colour": "rgb", "mean": zero, "std": one}
        else:
            papers = [one.paper for one in prepared]
            pixels["paper"] = {"samples": list(range(len(papers))), "greys": papers}
        writer.write(
            path,
            {"image": image, "label": IntField(), "split": IntField()},
            [{"image": one.stored, "label": 0, "split": 0} for one in prepared],
            info={
                "classes": list(self.trained.classes),
                "splits": list(SPLITS),
                "provenance": {"kind": "real", "source": "images", "digest": "none"},
                "pixels": pixels,
            },
        )
