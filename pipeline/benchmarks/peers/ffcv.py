"""FFCV: its own writer and loader. It has no grey images: pages are stored in three channels."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from ffcv.fields import IntField, NDArrayField, RGBImageField
from ffcv.fields.decoders import IntDecoder, NDArrayDecoder, RandomResizedCropRGBImageDecoder
from ffcv.fields.rgb_image import ResizedCropRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.transforms import NormalizeImage, ToTensor, ToTorchImage
from ffcv.writer import DatasetWriter
from PIL import Image

from pipeline.benchmarks.peers.base import Method
from pipeline.benchmarks.throughput.request import Request


class Whole(ResizedCropRGBImageDecoder):  # type: ignore[misc]
    """Resizes a whole image to the output, without a crop."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__(size)
        self.scale, self.ratio = (1.0, 1.0), (1.0, 1.0)

    @property
    def get_crop_generator(self) -> Callable[..., tuple[int, int, int, int]]:
        """The function that chooses a crop."""
        return _whole


def _whole(height: int, width: int, _scale: Any, _ratio: Any) -> tuple[int, int, int, int]:
    return 0, 0, height, width


class Indexed:
    """The images of a request as FFCV's writer reads them."""

    def __init__(self, request: Request) -> None:
        self._files = request.files()
        self._digits = Method(request).digits() if request.kind == "digits" else None

    def __len__(self) -> int:
        return len(self._files if self._digits is None else self._digits)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        if self._digits is not None:
            return self._digits[index], index
        with Image.open(self._files[index]) as image:
            return np.asarray(image.convert("RGB")), index


class Ffcv(Method):
    """An FFCV dataset of images in `mode`, at most `limit` pixels a side."""

    def __init__(self, request: Request, mode: str, limit: int | None = None) -> None:
        super().__init__(request)
        self._mode, self._limit = mode, limit
        self._file = str(self.folder / "images.ffcv")
        self._loader: Any = None

    def prepare(self) -> None:
        """Write the file with FFCV's writer."""
        image = RGBImageField(write_mode=self._mode, max_resolution=self._limit)
        if self.request.kind == "digits":
            image = NDArrayField(np.dtype(np.uint8), (28, 28))
        fields = {"image": image, "label": IntField()}
        writer = DatasetWriter(self._file, fields, num_workers=self.request.threads)
        writer.from_indexed_dataset(Indexed(self.request))

    def batches(self) -> Iterator[tuple[Any, Any]]:
        """Yield the images and the numbers of each batch of the next epoch."""
        if self._loader is None:
            self._loader = Loader(
                self._file,
                batch_size=self.request.batch_size,
                num_workers=self.request.threads,
                os_cache=True,
                order=OrderOption.RANDOM,
                drop_last=False,
                pipelines={"image": self._pipeline(), "label": [IntDecoder(), ToTensor()]},
            )
        # FFCV's own normalisation is for colours.
        digits = self.request.kind == "digits"
        for images, ids in self._loader:
            yield self.normalized(images) if digits else images, ids[:, 0]

    def _pipeline(self) -> list[Any]:
        if self.request.kind == "digits":
            return [NDArrayDecoder(), ToTensor()]
        size = self.request.size, self.request.size
        crop = RandomResizedCropRGBImageDecoder(size) if self.request.crop else Whole(size)
        if self.request.kind == "pages":
            return [crop, ToTensor()]
        normalize = []
        if self.request.mean:
            levels = np.array(self.request.mean), np.array(self.request.std)
            normalize = [NormalizeImage(*levels, np.dtype(np.float32))]
        return [crop, *normalize, ToTensor(), ToTorchImage(convert_back_int16=False)]


METHODS = {
    "FFCV, jpg": partial(Ffcv, mode="jpg"),
    "FFCV, raw": partial(Ffcv, mode="raw"),
    "FFCV, raw, shrunk to 256": partial(Ffcv, mode="raw", limit=256),
    "FFCV, jpg, shrunk to 256": partial(Ffcv, mode="jpg", limit=256),
    "FFCV": partial(Ffcv, mode="raw"),
}
