"""Fetch raw data when told to: MIDAS archives by their original links, others by torchvision."""

import shutil
import tempfile
import urllib.request
import zipfile
from pathlib import Path

from pipeline.data.sources.base import SourceError

TIMEOUT = 30  # seconds without an answer
LINKS = {
    "trainPart1.zip": "https://www.dropbox.com/s/pan6mutc5xj5kj0/trainPart1.zip?dl=1",
    "mnistTask3.zip": "https://www.dropbox.com/s/otc12z2w7f7xm8z/mnistTask3.zip?dl=1",
}
ARCHIVES = {"part1": "trainPart1.zip", "part2": "trainPart1.zip", "part3": "mnistTask3.zip"}
FOLDERS = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "emnist": "EMNIST"}  # torchvision's


def download(name: str, raw: Path) -> Path:
    """Fetch the named set into `raw` and return where it is: whole, or not there at all.

    Raises SourceError for a name without a known link, and for a download that fails.
    """
    family = "emnist" if name.startswith("emnist-") else name
    if family not in {*ARCHIVES, *FOLDERS}:
        raise SourceError(f"{name}: there is no known place to download it from")
    raw.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=raw, prefix=".download-") as folder:
        try:
            if family in ARCHIVES:
                fetched = _fetch_archive(ARCHIVES[family], Path(folder))
            else:
                fetched = _fetch_by_torchvision(name, FOLDERS[family], Path(folder))
            target = fetched.replace(raw / fetched.name)
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())  # torchvision's has several lines
            raise SourceError(f"{name}: cannot be downloaded: {reason}") from error
    return target / "raw" / name if family == "emnist" else target


def _fetch_archive(archive: str, folder: Path) -> Path:
    path = folder / archive
    with urllib.request.urlopen(LINKS[archive], timeout=TIMEOUT) as answer, path.open("wb") as file:
        shutil.copyfileobj(answer, file, 1 << 20)
    if not zipfile.is_zipfile(path):
        raise SourceError(f"{LINKS[archive]}: what came is not a zip archive")
    return path


def _fetch_by_torchvision(name: str, dataset: str, folder: Path) -> Path:
    from torchvision import datasets  # here: it takes seconds, and few need it

    options = {"split": name.removeprefix("emnist-")} if dataset == "EMNIST" else {}
    getattr(datasets, dataset)(folder, download=True, **options)
    return folder / dataset
