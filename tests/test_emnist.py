"""EMNIST's digits and letters as one dataset, and where they lie."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from raw_data import Pixels, folders, idx_pair, make_tree, make_zip, scattered_ink

from pipeline.data import catalog
from pipeline.data.base import NO_SPLIT, TEST, Source, SourceError
from pipeline.data.emnist import CLASSES
from pipeline.data.layout.options import LayoutOptions

COUNTS = {"digits": (20, 10), "letters": (52, 26)}


def images(part: str, split: int) -> Pixels:
    count = COUNTS[part][split]
    return scattered_ink(np.random.default_rng(10 * len(part) + split), count, 28, 28)


def files(*parts: str, splits: tuple[str, ...] = ("train", "test")) -> dict[str, bytes]:
    """Files of parts of EMNIST: labels in turn, digits from 0 and letters from 1."""
    found: dict[str, bytes] = {}
    for part in parts:
        for number, split in enumerate(splits):
            pixels = images(part, number)
            first, classes = (1, 26) if part == "letters" else (0, 10)
            labels = [first + i % classes for i in range(len(pixels))]
            found |= idx_pair(f"emnist-{part}-{split}", pixels, labels, packed=True)
    return found


def opened(raw: Path, source: Path | None = None) -> Source:
    return catalog.SourceFinder(raw, source).find("emnist")[0]


@pytest.mark.parametrize(
    "place", ["EMNIST/raw", "emnist", "emnist/gzip", "gzip.zip", "EMNIST.zip", "emnist.zip"]
)
def test_digits_and_letters_become_36_classes(tmp_path: Path, place: str) -> None:
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    inside = {f"gzip/{name}": data for name, data in files("digits", "letters").items()}
    (make_zip if place.endswith(".zip") else make_tree)(path, inside)
    source = opened(tmp_path)
    entries = source.annotations
    assert entries.classes == (*"0123456789", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    assert len(source) == 108
    assert (entries.splits == TEST).sum() == 36
    assert (entries.splits == NO_SPLIT).sum() == 72
    np.testing.assert_array_equal(entries.labels[:30], [*(i % 10 for i in range(20)), *range(10)])
    letters = [10 + i % 26 for i in range(52)] + [*range(10, 36)]
    np.testing.assert_array_equal(entries.labels[30:], letters)
    # Upright, as the files have them by columns.
    for index, part, split, row in (
        (0, "digits", 0, 0),
        (29, "digits", 1, 9),
        (30, "letters", 0, 0),
    ):
        np.testing.assert_array_equal(source.image(index), images(part, split)[row].T)
        np.testing.assert_array_equal(source.decoded(index).grey, source.image(index))
    assert source.name(29) == "digits/test/9"
    assert source.name(30) == "letters/train/0"
    assert len({source.name(i) for i in range(108)}) == 108
    assert source.origin == "real"
    assert source.layout.dataset == "EMNIST digits and letters"
    assert source.layout.left_out == {}
    assert source.size(np.arange(108)) == sum(map(len, inside.values()))


def test_other_parts_are_left_out_and_counted(tmp_path: Path) -> None:
    make_zip(tmp_path / "gzip.zip", files("digits", "letters") | {"a.txt": b"words"})
    assert opened(tmp_path).layout.left_out == {"other files": 1}


def test_the_digest_is_of_both_parts_and_a_copy_reads_the_same(tmp_path: Path) -> None:
    both = files("digits", "letters")
    for folder in ("a", "b"):
        make_tree(tmp_path / folder / "emnist", both)
    source, other = opened(tmp_path / "a"), opened(tmp_path / "b")
    assert source.digest() == other.digest()
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy.image(77), source.image(77))
    changed = both | idx_pair(
        "emnist-letters-test", images("letters", 1)[::-1], [1 + i for i in range(26)], packed=True
    )
    make_tree(tmp_path / "b" / "emnist", changed)
    assert opened(tmp_path / "b").digest() != source.digest()


@pytest.mark.parametrize(
    ("part", "missing"), [("digits", "emnist-letters"), ("letters", "emnist-digits")]
)
def test_half_of_it_is_an_error_of_one_line(tmp_path: Path, part: str, missing: str) -> None:
    make_tree(tmp_path / "EMNIST" / "raw", files(part))
    for source in (None, tmp_path / "EMNIST"):
        with pytest.raises(SourceError, match=f"no files of {missing}, and emnist is") as caught:
            opened(tmp_path, source)
        assert "\n" not in str(caught.value)
    # Without a name, what is whole is prepared.
    assert catalog.SourceFinder(tmp_path).datasets(()) == (f"emnist-{part}",)


def test_a_split_of_one_part_alone_is_an_error(tmp_path: Path) -> None:
    both = files("digits") | files("letters", splits=("train",))
    make_tree(tmp_path / "emnist", both)
    with pytest.raises(SourceError, match="emnist-digits has test images and emnist-letters has n"):
        opened(tmp_path)


@pytest.mark.parametrize("name", ["emnist-letters", "emnist-letters-train-images-idx3-ubyte.gz"])
def test_a_path_of_one_part_is_an_error(tmp_path: Path, name: str) -> None:
    make_tree(tmp_path / "x", files("digits", "letters"))
    with pytest.raises(SourceError, match=r"is one part, .*; use --source \S*x$"):
        opened(tmp_path, tmp_path / "x" / name)


def test_another_part_is_an_error_and_other_images_are_not(tmp_path: Path) -> None:
    pair = idx_pair("emnist-balanced-train", images("digits", 0), [*range(20)], packed=False)
    make_tree(tmp_path / "emnist", pair)
    with pytest.raises(SourceError, match="got EMNIST balanced, and emnist is digits and letters"):
        opened(tmp_path)
    own = make_tree(tmp_path / "own", folders())
    assert opened(tmp_path, own).annotations.classes == ("0", "1", "10")


def test_excluding_a_part_is_an_error(tmp_path: Path) -> None:
    make_tree(tmp_path / "emnist", files("digits", "letters"))
    options = LayoutOptions(exclude=("*letters*",))
    with pytest.raises(SourceError, match="leave one part out"):
        catalog.SourceFinder(tmp_path, layout=options).find("emnist")


def test_other_classes_are_an_error(tmp_path: Path) -> None:
    both = files("digits") | idx_pair(
        "emnist-letters-train", images("letters", 0), [i % 27 for i in range(52)], packed=True
    )
    make_tree(tmp_path / "emnist", both)
    with pytest.raises(SourceError, match="EMNIST letters"):
        opened(tmp_path)


def test_a_file_that_looks_like_it_is_reported_instead_of_generating(tmp_path: Path) -> None:
    name = "emnist-letters-train-images-idx3-ubyte.gz"
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(SourceError, match=f"emnist: .*{name} may hold it"):
        opened(tmp_path)
    (tmp_path / name).rename(tmp_path / "emnist-balanced-train-images-idx3-ubyte.gz")
    assert opened(tmp_path).origin == "synthetic"


def test_all_names_are_prepared_where_all_is_there(tmp_path: Path) -> None:
    make_tree(tmp_path / "EMNIST" / "raw", files("digits", "letters"))
    names = catalog.SourceFinder(tmp_path).datasets(())
    assert names == ("emnist", "emnist-letters", "emnist-digits")
    assert catalog.SourceFinder(tmp_path, tmp_path / "EMNIST").datasets(()) == ("emnist",)
    assert len(CLASSES) == 36
