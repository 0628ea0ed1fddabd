"""Fetch raw data when told to: MIDAS archives by their original links, others by torchvision."""

import shutil
import urllib.request
import zipfile
from pathlib import Path

from pipeline.sources.base import SourceError

TIMEOUT = 30  # seconds without an answer
LINKS = {
    "trainPart1.zip": "https://www.dropbox.com/s/pan6mutc5xj5kj0/trainPart1.zip?dl=1",
    "mnistTask3.zip": "https://www.dropbox.com/s/otc12z2w7f7xm8z/mnistTask3.zip?dl=1",
}
ARCHIVES = {"part1": "trainPart1.zip", "part2": "trainPart1.zip", "part3": "mnistTask3.zip"}


def download(name: str, raw: Path) -> Path:
    """Fetch the named set into `raw` and return where it is.

    Raises SourceError for a name without a known link, and for a download that fails.
    """
    raw.mkdir(parents=True, exist_ok=True)
    if name in ARCHIVES:
        return fetch_archive(LINKS[ARCHIVES[name]], raw / ARCHIVES[name])
    try:
        return _by_torchvision(name, raw)
    except (OSError, RuntimeError) as error:
        raise SourceError(f"{name}: cannot be downloaded: {error}") from error


def fetch_archive(link: str, target: Path) -> Path:
    """Fetch a zip archive; under its own name it is whole, or not there. Raises SourceError."""
    partial = target.with_name(f".{target.name}.part")
    try:
        with urllib.request.urlopen(link, timeout=TIMEOUT) as answer, partial.open("wb") as file:
            shutil.copyfileobj(answer, file, 1 << 20)
        if not zipfile.is_zipfile(partial):
            raise SourceError(f"{link}: what came is not a zip archive")
        partial.replace(target)
    except OSError as error:
        raise SourceError(f"{link}: cannot be downloaded: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return target


def _by_torchvision(name: str, raw: Path) -> Path:
    from torchvision import datasets  # here: it takes seconds, and few need it

    if name == "mnist":
        datasets.MNIST(raw, download=True)
        return raw / "MNIST"
    if name == "fashion-mnist":
        datasets.FashionMNIST(raw, download=True)
        return raw / "FashionMNIST"
    if name.startswith("emnist-"):
        datasets.EMNIST(raw, split=name.removeprefix("emnist-"), download=True)
        return raw / "EMNIST" / "raw" / name
    raise SourceError(f"{name}: there is no known place to download it from")
