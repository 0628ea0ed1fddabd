"""Downloads raw datasets: MIDAS archives from their original URLs, others by torchvision."""

import shutil
import urllib.request
import zipfile
from pathlib import Path

from beton.format.storage import naming, temporary_folder
from pipeline.data.base import SourceError

TIMEOUT = 30  # seconds without a response
URLS = {
    "trainPart1.zip": "https://www.dropbox.com/s/pan6mutc5xj5kj0/trainPart1.zip?dl=1",
    "mnistTask3.zip": "https://www.dropbox.com/s/otc12z2w7f7xm8z/mnistTask3.zip?dl=1",
}
ARCHIVES = {"part1": "trainPart1.zip", "part2": "trainPart1.zip", "part3": "mnistTask3.zip"}
TORCHVISION = {  # classes
    "mnist": "MNIST",
    "fashion": "FashionMNIST",
    "fashion-mnist": "FashionMNIST",
    "cifar10": "CIFAR10",
    "emnist": "EMNIST",
}
FOLDERS = {"CIFAR10": "cifar-10-batches-py"}  # of classes whose files are in no folder of its name


def download(name: str, raw: Path) -> Path:
    """Download a dataset into the folder `raw` and return its path.

    A failed download leaves no file. Raises SourceError for an unknown name and for a failed
    download.
    """
    family = "emnist" if name.startswith("emnist-") else name
    if family not in {*ARCHIVES, *TORCHVISION}:
        raise SourceError(f"{name}: no known URL to download it from; use --source PATH")
    raw.mkdir(parents=True, exist_ok=True)
    with temporary_folder(raw / "download") as folder:
        try:
            with naming(raw):
                if family in ARCHIVES:
                    fetched = _fetch_archive(ARCHIVES[family], folder)
                else:
                    fetched = _fetch_by_torchvision(name, TORCHVISION[family], folder)
            target = fetched.replace(raw / fetched.name)
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())  # torchvision's message has several lines
            raise SourceError(f"{name}: download failed: {reason}") from error
    return target / "raw" / name if name.startswith("emnist-") else target


def _fetch_archive(archive: str, folder: Path) -> Path:
    path = folder / archive
    with urllib.request.urlopen(URLS[archive], timeout=TIMEOUT) as response, path.open("wb") as out:
        shutil.copyfileobj(response, out, 1 << 20)
    if not zipfile.is_zipfile(path):
        raise SourceError(f"{URLS[archive]}: got another file, expected a zip archive")
    return path


def _fetch_by_torchvision(name: str, dataset: str, folder: Path) -> Path:
    from torchvision import datasets  # here, because importing it takes seconds

    options = {}
    if dataset == "EMNIST":  # all parts are downloaded; one of them is loaded
        options["split"] = "digits" if name == "emnist" else name.removeprefix("emnist-")
    getattr(datasets, dataset)(folder, download=True, **options)
    return folder / FOLDERS.get(dataset, dataset)
