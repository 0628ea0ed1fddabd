"""Predictions for many images: read, prepared in threads and predicted in batches, in order."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from pipeline.data.base import Pixels
from pipeline.pictures.errors import PictureError
from pipeline.pictures.files import Found
from pipeline.pictures.predictor import Prediction, Predictor, Prepared
from pipeline.runtime.cgroup import usable_cores

MOST_IMAGES, MOST_BYTES = 64, 1 << 27  # of a batch of prepared images


@dataclass(frozen=True)
class Outcome:
    """The predictions for an image: one, or several with `separate`; or the `error`."""

    name: str
    predictions: tuple[Prediction, ...] = ()
    error: str | None = None


Waiting = tuple[str, list[Prepared] | str]


def predict_all(
    predictor: Predictor, found: Iterable[Found], separate: bool = False
) -> Iterator[Outcome]:
    """Yield the outcome for each image, in order."""
    batch: list[Waiting] = []
    size = 0
    for name, prepared in _prepared(predictor, found, separate):
        batch.append((name, prepared))
        if not isinstance(prepared, str):
            size += sum(
                len(one.stored) if isinstance(one.stored, bytes) else one.stored.nbytes
                for one in prepared
            )
        if len(batch) >= MOST_IMAGES or size >= MOST_BYTES:
            yield from _predicted(predictor, batch)
            batch, size = [], 0
    yield from _predicted(predictor, batch)


def _predicted(predictor: Predictor, batch: list[Waiting]) -> Iterator[Outcome]:
    pages = [one for _, prepared in batch if not isinstance(prepared, str) for one in prepared]
    predictions = iter(predictor.predict(pages))
    for name, prepared in batch:
        if isinstance(prepared, str):
            yield Outcome(name, error=prepared)
        else:
            yield Outcome(name, tuple(next(predictions) for _ in prepared))


def _prepared(predictor: Predictor, found: Iterable[Found], separate: bool) -> Iterator[Waiting]:
    """Yield each image's name with its prepared pages or the error. Archives are read in turn."""
    workers = usable_cores()
    waiting: deque[tuple[str, Future[list[Prepared] | str]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for one in found:
            waiting.append(
                (one.name, pool.submit(_prepare, predictor, one.name, _read(one), separate))
            )
            while len(waiting) > 2 * workers or (waiting and waiting[0][1].done()):
                name, future = waiting.popleft()
                yield name, future.result()
        for name, future in waiting:
            yield name, future.result()


def _read(one: Found) -> bytes | Pixels | PictureError:
    try:
        return one.read()
    except PictureError as error:
        return error


def _prepare(
    predictor: Predictor, name: str, picture: bytes | Pixels | PictureError, separate: bool
) -> list[Prepared] | str:
    if isinstance(picture, PictureError):
        return str(picture)
    try:
        return predictor.prepare(picture, separate, name)
    except PictureError as error:
        return str(error)
