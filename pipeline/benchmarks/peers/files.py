"""Image files in torch's DataLoader, decoded and resized by Pillow, torchvision or OpenCV."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.benchmarks.peers.base import Method
from pipeline.benchmarks.throughput.request import Request

Decode = Callable[[Path], Any]


class Files(Dataset[tuple[Any, int]]):
    """Image files, decoded by a function, and their numbers."""

    def __init__(self, files: list[Path], decode: Decode) -> None:
        self._files, self._decode = files, decode

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self._decode(self._files[index]), index


class FileLoader(Method):
    """A DataLoader over image files; `decode` returns the function that decodes one."""

    _loader: Any = None

    def __init__(self, request: Request, decode: Callable[[Request], Decode]) -> None:
        super().__init__(request)
        self._decode = decode(request)

    def batches(self) -> Iterator[tuple[Any, Any]]:
        """Yield the images and the numbers of each batch of the next epoch."""
        if self._loader is None:
            self._loader = workers(Files(self.files(), self._decode), self.request)
        normalized = self.request.kind == "photos"  # by the transform of each image
        for images, ids in self._loader:
            yield images if normalized else self.normalized(images), ids


def workers(dataset: Any, request: Request, **options: Any) -> DataLoader[Any]:
    """Return a DataLoader with a process for each thread, which stay between epochs."""
    options = {"shuffle": True, "num_workers": request.threads, **options}
    return DataLoader(dataset, request.batch_size, persistent_workers=True, **options)


def pillow(request: Request, resampling: Image.Resampling) -> Decode:
    """Decode by Pillow; a box filter averages areas, except at pixels that straddle an edge."""
    return partial(_pillow, size=(request.size, request.size), resampling=resampling)


def _pillow(file: Path, size: tuple[int, int], resampling: Image.Resampling) -> Tensor:
    with Image.open(file) as image:
        page = image.convert("L").resize(size, resampling)
    return torch.from_numpy(np.array(page))


def pillow_by_kind(request: Request) -> Decode:
    """Decode digits and photos by Pillow; torchvision crops and resizes photos."""
    if request.kind == "digits":
        return pillow(request, Image.Resampling.BOX)
    return partial(_photo, transform=_transform(request, pillow_image=True))


def _photo(file: Path, transform: Callable[[Any], Tensor]) -> Tensor:
    with Image.open(file) as image:
        return transform(image.convert("RGB"))


def _transform(request: Request, pillow_image: bool) -> Callable[[Any], Tensor]:
    """Return torchvision's crop, antialiased resize and normalisation of photos."""
    from torchvision.transforms import v2

    size = (request.size, request.size)
    parts: list[torch.nn.Module] = [v2.RandomResizedCrop(size) if request.crop else v2.Resize(size)]
    if pillow_image:
        parts.append(v2.PILToTensor())
    if request.mean:
        mean, std = ([level / 255 for level in levels] for levels in (request.mean, request.std))
        parts += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
    made: Callable[[Any], Tensor] = v2.Compose(parts)
    return made


def torchvision(request: Request) -> Decode:
    """Decode and resize by torchvision, on tensors."""
    if request.kind == "photos":
        return partial(_torchvision_photo, transform=_transform(request, pillow_image=False))
    return partial(_torchvision, size=[request.size, request.size])


def _torchvision(file: Path, size: list[int]) -> Tensor:
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms.v2 import functional

    page = decode_image(str(file), ImageReadMode.GRAY)
    resized: Tensor = functional.resize(page, size)[0]
    return resized


def _torchvision_photo(file: Path, transform: Callable[[Any], Tensor]) -> Tensor:
    from torchvision.io import ImageReadMode, decode_image

    return transform(decode_image(str(file), ImageReadMode.RGB))


def opencv(request: Request) -> Decode:
    """Decode and resize by OpenCV, with its area filter, one thread in each process."""
    return partial(_opencv, size=(request.size, request.size))


def _opencv(file: Path, size: tuple[int, int]) -> Tensor:
    import cv2

    cv2.setNumThreads(0)
    page = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
    return torch.from_numpy(cv2.resize(page, size, interpolation=cv2.INTER_AREA))


METHODS = {
    "Pillow, box": partial(FileLoader, decode=partial(pillow, resampling=Image.Resampling.BOX)),
    "Pillow, bilinear": partial(
        FileLoader, decode=partial(pillow, resampling=Image.Resampling.BILINEAR)
    ),
    "Pillow": partial(FileLoader, decode=pillow_by_kind),
    "torchvision": partial(FileLoader, decode=torchvision),
    "OpenCV, area": partial(FileLoader, decode=opencv),
}
