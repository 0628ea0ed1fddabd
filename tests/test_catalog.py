"""Datasets by name: where they are searched, and what stands for missing ones."""

from pathlib import Path

import numpy as np
import pytest
from raw_data import digits, folders, idx_pair, make_tree, make_zip

from pipeline.data import catalog
from pipeline.data.base import SourceError
from pipeline.data.catalog import SourceFinder, default_split, stored_grey
from pipeline.data.splits import Split
from pipeline.data.synth.garments import SyntheticGarments
from pipeline.data.synth.source import ImageCounts


@pytest.mark.parametrize("name", ["fashion", "fashion-mnist"])
@pytest.mark.parametrize(
    "place", ["FashionMNIST/raw", "fashion-mnist", "fashion-mnist.zip", "fashion"]
)
def test_fashion_is_found_under_both_names(tmp_path: Path, name: str, place: str) -> None:
    files = idx_pair("train", *digits(20), True) | idx_pair("t10k", *digits(10), True)
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    (make_zip if place.endswith(".zip") else make_tree)(path, files)
    finder = SourceFinder(tmp_path, installed=tmp_path / "none")
    source, found_by = finder.find(name)
    assert (found_by, len(source)) == ("data/raw", 30)
    assert source.annotations.classes[::9] == ("T-shirt/top", "Ankle boot") or place == "fashion"
    assert finder.datasets(()) == ("fashion",)


def test_an_installed_package_goes_before_generating(tmp_path: Path) -> None:
    make_tree(tmp_path / "installed" / "fashion-mnist", idx_pair("train", *digits(20), True))
    finder = SourceFinder(tmp_path / "raw", installed=tmp_path / "installed")
    for name in ("fashion", "fashion-mnist"):
        source, found_by = finder.find(name)
        assert (source.origin, found_by) == ("real", "package dataset-fashion-mnist")
    # Without names, only the folder of raw data counts.
    assert finder.datasets(())[:4] == ("part1", "part2", "part3", "mnist")
    make_tree(tmp_path / "raw" / "fashion", folders())
    assert finder.find("fashion")[1] == "data/raw"
    nothing = SourceFinder(tmp_path / "x", installed=tmp_path / "y")
    assert nothing.find("fashion")[1] == catalog.SYNTHETIC_BY_DEFAULT


@pytest.mark.parametrize(
    ("name", "images", "classes"),
    [("emnist", 79_040, 36), ("fashion", 70_000, 10), ("cifar10", 12_000, 10)],
)
def test_without_data_systems_are_generated(
    tmp_path: Path, name: str, images: int, classes: int
) -> None:
    source, found_by = SourceFinder(tmp_path, installed=tmp_path).find(name)
    assert (source.origin, found_by) == ("synthetic", catalog.SYNTHETIC_BY_DEFAULT)
    assert (len(source), len(source.annotations.classes)) == (images, classes)
    assert name not in SourceFinder(tmp_path).datasets(())


@pytest.mark.parametrize(
    "place",
    [
        *("cifar-10-python.tar.gz", "cifar-10-binary.tar.gz", "cifar10.zip", "CIFAR-10"),
        *("cifar-10-batches-py", "cifar-10-batches-bin", "cifar10"),
    ],
)
def test_cifar10_is_searched_in_its_usual_places(tmp_path: Path, place: str) -> None:
    make_tree(tmp_path, {f"{place}/x": b""})
    assert catalog.find_raw("cifar10", tmp_path) == tmp_path / place


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("fashion", "fashion-mnist_train.csv"),
        ("fashion", "Fashion MNIST (1).zip"),
        ("cifar10", "CIFAR-10-images-master.zip"),
        ("cifar10", "cifar10_dataset.npz"),
        ("emnist", "emnist-digits-train-images-idx3-ubyte.gz"),
    ],
)
def test_look_alikes_are_reported(tmp_path: Path, name: str, file: str) -> None:
    (tmp_path / file).write_bytes(b"x")
    with pytest.raises(SourceError, match=f"{name}: .* may hold it") as caught:
        SourceFinder(tmp_path).find(name)
    assert "\n" not in str(caught.value)
    assert "--synthetic" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "file"),
    [("cifar10", "cifar-100-python.tar.gz"), ("fashion", "fashion-products.zip")],
)
def test_other_datasets_are_no_look_alikes(tmp_path: Path, name: str, file: str) -> None:
    (tmp_path / file).write_bytes(b"x")
    found = SourceFinder(tmp_path, installed=tmp_path).find(name)
    assert found[1] == catalog.SYNTHETIC_BY_DEFAULT


def test_handwriting_and_fashion_are_grey() -> None:
    grey = {name for name in catalog.CATALOG if stored_grey(name)}
    assert grey == catalog.CATALOG.keys() - {"cifar10"}
    assert not stored_grey("leaves")


def test_fashion_has_the_published_split_if_it_is_large_enough() -> None:
    whole = SyntheticGarments(ImageCounts(60_000, 10_000))
    assert default_split("fashion", whole) == Split(images=10_000)
    assert default_split("fashion-mnist", whole) == Split(images=10_000)
    assert default_split("emnist", whole) == Split()
    assert default_split("leaves", whole) == Split()
    assert default_split("fashion", SyntheticGarments(ImageCounts(100, 0))) == Split()
    assert np.bincount(whole.annotations.labels[:60_000]).tolist() == [6_000] * 10
