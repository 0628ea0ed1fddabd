import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from raw_data import digits, folders, idx_pair, make_tree, make_zip, midas, pillow, saved

from beton.errors import BetonError
from beton.fields import InkField
from beton.reader import Reader
from pipeline.data import catalog, download, prepare
from pipeline.data.base import (
    NO_SPLIT,
    SPLITS,
    TEST,
    TRAIN,
    UNKNOWN_WRITER,
    VALIDATION,
    Annotations,
    LayoutError,
)
from pipeline.data.prepare import BadImagesError
from pipeline.data.sources import SourceError, open_source
from pipeline.data.splits import Split, assign_splits, join_groups

# Splits


@st.composite
def entries(draw: st.DrawFn, given: bool = False) -> Annotations:
    n = draw(st.integers(2, 300))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    classes = draw(st.integers(2, 20))
    writers = draw(st.integers(2, 30))
    return Annotations.of(
        [str(c) for c in range(classes)],
        generator.integers(0, classes, n),
        writers=[f"{w:03}" for w in (*range(writers), *generator.integers(0, writers, n))][:n],
        splits=generator.choice([NO_SPLIT, NO_SPLIT, TEST], n) if given else None,
    )


@given(entries(), st.sampled_from(["90-10", "80-10-10", "50-25-25", "100-0"]), st.integers(0, 99))
def test_every_class_is_divided_in_the_same_proportions(
    entries: Annotations, text: str, seed: int
) -> None:
    split = Split.parse(text)
    splits = assign_splits(entries, split, seed)
    for label in np.unique(entries.labels):
        of_class = splits[entries.labels == label]
        for number, percentage in enumerate(split.percentages):
            count = (of_class == number).sum()
            wanted = len(of_class) * percentage / 100
            if percentage == 0:
                assert count == 0
            else:
                assert abs(count - wanted) <= (2 if number == TRAIN else 1)
        assert TRAIN in of_class
        assert len(of_class) < 3 or len(np.unique(of_class)) == np.count_nonzero(split.percentages)


@given(entries(), st.sampled_from(["writers=1", "writers=.1", "writers=0.4"]), st.integers(0, 99))
def test_a_validation_writer_is_never_seen_in_training(
    entries: Annotations, text: str, seed: int
) -> None:
    splits = assign_splits(entries, Split.parse(text), seed)
    of_split = [set(entries.writers[splits == number]) for number in range(3)]
    assert not of_split[TRAIN] & of_split[VALIDATION]
    assert of_split[TRAIN]
    assert not of_split[TEST]
    writers = len(np.unique(entries.writers))
    fraction = Split.parse(text).writers
    assert len(of_split[VALIDATION]) == (1 if fraction == 1 else max(1, round(fraction * writers)))


@given(entries(given=True), st.sampled_from(["90-10", "80-10-10"]), st.integers(0, 99))
def test_a_given_test_set_stays_one(entries: Annotations, text: str, seed: int) -> None:
    splits = assign_splits(entries, Split.parse(text), seed)
    assert (splits[entries.splits == TEST] == TEST).all()
    free = entries.splits == NO_SPLIT
    alone = Annotations.of(entries.classes, entries.labels[free])
    expected = np.bincount(assign_splits(alone, Split.parse(text), seed), minlength=3)
    assert np.bincount(splits[free], minlength=3).tolist() == expected.tolist()


@given(entries(), st.sampled_from(["90-10", "80-10-10", "50-25-25"]), st.integers(0, 99))
def test_groups_share_a_split(entries: Annotations, text: str, seed: int) -> None:
    n = len(entries.labels)
    groups = np.random.default_rng(seed).integers(0, n, n)
    splits = assign_splits(entries, Split.parse(text), seed, groups)
    for group in np.unique(groups):
        assert len(np.unique(splits[groups == group])) == 1
    alone = assign_splits(entries, Split.parse(text), seed)
    assert (assign_splits(entries, Split.parse(text), seed, np.arange(n)) == alone).all()


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=20))
def test_joined_groups_are_connected_components(pairs: list[tuple[int, int]]) -> None:
    left, right = np.array(pairs).T
    joined = join_groups(left, right)
    reached = np.equal.outer(left, left) | np.equal.outer(right, right)
    for _ in pairs:
        reached = reached @ reached
    assert (np.equal.outer(joined, joined) == reached).all()


def test_a_split_is_a_function_of_its_seed() -> None:
    some = Annotations.of("ab", np.arange(200) % 2)
    draws = [assign_splits(some, Split(), seed).tolist() for seed in (0, 0, 1, 2)]
    assert draws[0] == draws[1]
    assert len({tuple(draw) for draw in draws}) == 3
    # Held for good: the same data prepared by a later version must be the same sets.
    assert np.flatnonzero(draws[0]).tolist()[:8] == [35, 41, 52, 60, 74, 79, 86, 89]


@pytest.mark.parametrize(
    "text", ["", "90", "90-20", "-10-110", "80-10-10-0", "writers=0", "writers=1.5", "writers", "x"]
)
def test_a_split_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SourceError, match="expected percentages that sum to 100"):
        Split.parse(text)


@pytest.mark.parametrize("text", ["90-10", "80-10-10", "0-0-100", "writers=2", "writers=0.1"])
def test_a_split_is_written_as_it_is_read(text: str) -> None:
    assert str(Split.parse(text)) == text


def test_writers_that_cannot_be_held_out_are_refused() -> None:
    some = Annotations.of("ab", [0, 1, 0], writers=["x", "y", None])
    with pytest.raises(SourceError, match="1 of 3 images have no known writer"):
        assign_splits(some, Split.parse("writers=1"), 0)
    some = Annotations.of("ab", [0, 1], writers=["x", "y"])
    with pytest.raises(SourceError, match="got 2 writers to hold out, expected fewer than 2"):
        assign_splits(some, Split.parse("writers=2"), 0)
    for seed in (-1, 1 << 63):
        with pytest.raises(SourceError, match="seed"):
            assign_splits(some, Split(), seed)


# Preparation


def test_processes_are_started_for_enough_work_only() -> None:
    assert prepare._useful_workers(744, 1200 * 900, 40e-6) == 1
    assert prepare._useful_workers(2480, 1200 * 900, 40e-6) == 3
    assert prepare._useful_workers(30_000, 28 * 28, 40e-6) == 1
    assert prepare._useful_workers(800_000, 28 * 28, 40e-6) > 8


@pytest.fixture
def _even_for_few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "SECONDS_PER_WORKER", 1e-9)


def prepared(tmp_path: Path, files: dict[str, bytes], **options: Any) -> prepare.PrepareResult:
    source = open_source(make_zip(tmp_path / "set.zip", files))
    return prepare.prepare(source, tmp_path / "out" / "set.beton", **options)


def test_a_file_holds_what_the_source_does(tmp_path: Path) -> None:
    files = midas((1, 11, 37), writers=5)
    result = prepared(tmp_path, files, split=Split.parse("writers=2"), seed=3, found_by="data/raw")
    assert result.built
    assert result.images == {"train": 9, "validation": 6, "test": 0}
    assert result.source_bytes == sum(map(len, files.values()))
    assert result.file_bytes == result.path.stat().st_size
    with Reader(result.path) as reader:
        assert list(reader.fields) == ["image", "label", "split", "writer", "name"]
        assert reader.info["classes"] == ["0", "A", "a"]
        assert reader.info["splits"] == list(SPLITS)
        assert reader.info["writers"] == ["001", "002", "003", "004", "005"]
        provenance = reader.info["provenance"]
        assert provenance.pop("digest").startswith("sha256:")
        assert provenance == {
            "kind": "real",
            "source": "set.zip",
            "reader": "midas",
            "bytes": result.source_bytes,
            "via": "data/raw",
        }
        assert reader.info["prepare"] == {
            "version": prepare.VERSION,
            "split": "writers=2",
            "seed": 3,
            "skipped": [],
        }
        held_out = set()
        for i, name in enumerate(sorted(files)):
            sample = reader[i]
            assert bytes(sample["name"]).decode() == name
            np.testing.assert_array_equal(sample["image"], pillow(files[name]))
            assert f"Sample{(1, 11, 37)[sample['label']]:03}" in name
            assert name.endswith(f"-{sample['writer'] + 1:03}.png")
            held_out |= {sample["writer"]} if sample["split"] else set()
        assert len(held_out) == 2


@pytest.mark.usefixtures("_even_for_few_images")
def test_the_bytes_do_not_depend_on_processes_or_packing(tmp_path: Path) -> None:
    files = folders(count=40)
    source = open_source(make_zip(tmp_path / "set.zip", files))
    outs = [tmp_path / f"{workers}.beton" for workers in (1, 2)]
    for workers, out in enumerate(outs, 1):
        prepare.prepare(source, out, workers=workers)
    assert outs[0].read_bytes() == outs[1].read_bytes()
    tree = open_source(make_tree(tmp_path / "tree", files))
    prepare.prepare(tree, tmp_path / "tree.beton")
    with Reader(outs[0]) as one, Reader(tmp_path / "tree.beton") as other:
        splits = [reader.column("split").metadata.tolist() for reader in (one, other)]
        assert splits[0] == splits[1]


def test_small_images_are_stored_raw_and_pages_as_runs(tmp_path: Path) -> None:
    damaged = midas() | {"hand writing/Sample001/a.png": b"words"}  # the first in order
    for files, mode in ((folders(), "raw"), (midas(), "auto"), (damaged, "auto")):
        with Reader(prepared(tmp_path, files, skip_bad=True).path) as reader:
            assert reader.fields["image"] == InkField(mode)


@pytest.mark.usefixtures("_even_for_few_images")
def test_an_idx_set_keeps_its_test_set(tmp_path: Path) -> None:
    files = idx_pair("train", *digits(100), True) | idx_pair("t10k", *digits(30), True)
    result = prepared(tmp_path, files, workers=2)
    assert result.images == {"train": 90, "validation": 10, "test": 30}
    with Reader(result.path) as reader:
        np.testing.assert_array_equal(reader[7]["image"], digits(100)[0][7])
        assert reader[7]["writer"] == UNKNOWN_WRITER


def test_the_same_again_does_nothing(tmp_path: Path) -> None:
    first = prepared(tmp_path, folders())
    before = first.path.stat()
    again = prepared(tmp_path, folders(), found_by="data/raw")
    assert (first.built, again.built) == (True, False)
    assert again.images == first.images
    assert first.path.stat() == before
    assert prepared(tmp_path, folders(), force=True).built
    assert first.path.stat().st_ino != before.st_ino


@pytest.mark.parametrize(
    "change",
    [
        {"files": folders(("0", "1", "11"))},
        {"files": folders(count=5)},
        {"seed": 1},
        {"split": Split.parse("80-10-10")},
    ],
)
def test_another_source_or_setting_is_prepared_again(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    prepared(tmp_path, folders())
    assert prepared(tmp_path, **{"files": folders(), **change}).built


@pytest.mark.parametrize("damage", [b"\2\0 and no more", b""])
def test_a_damaged_file_is_written_again(tmp_path: Path, damage: bytes) -> None:
    out = prepared(tmp_path, folders()).path
    whole = out.read_bytes()
    out.write_bytes(damage)
    assert prepared(tmp_path, folders()).built
    assert out.read_bytes() == whole
    pixel = whole.index(pillow(folders()["0/0.png"]).tobytes())
    out.write_bytes(whole[:pixel] + bytes([whole[pixel] ^ 1]) + whole[pixel + 1 :])
    assert prepared(tmp_path, folders()).built
    assert out.read_bytes() == whole


def test_what_is_no_beton_file_is_not_written_over(tmp_path: Path) -> None:
    out = prepared(tmp_path, folders()).path
    out.write_bytes(b"somebody's words")
    with pytest.raises(SourceError, match=r"exists and is no \.beton file; --force"):
        prepared(tmp_path, folders())
    assert out.read_bytes() == b"somebody's words"
    assert prepared(tmp_path, folders(), force=True).replaced


def test_a_file_that_another_process_wrote_meanwhile_is_replaced_with_a_word(
    tmp_path: Path,
) -> None:
    """The other process is a second preparation in the middle of the first."""
    make_tree(tmp_path / "a", folders())
    make_tree(tmp_path / "b", folders(("x", "y")))
    out = tmp_path / "out" / "set.beton"
    others: list[prepare.PrepareResult] = []

    def progress(_: int) -> None:
        if not others:
            others.append(prepare.prepare(open_source(tmp_path / "b"), out))

    first = prepare.prepare(open_source(tmp_path / "a"), out, progress=progress)
    assert (others[0].replaced, others[0].raced) == (False, False)
    assert (first.replaced, first.raced) == (True, True)
    again = prepare.prepare(open_source(tmp_path / "b"), out)
    assert (again.replaced, again.raced) == (True, False)
    assert not prepare.prepare(open_source(tmp_path / "b"), out).replaced


BAD = {"0/bad.png": b"words", "1/0.png": b"", "10/cut.png": folders()["0/0.png"][:60]}


@pytest.mark.usefixtures("_even_for_few_images")
@pytest.mark.parametrize("workers", [1, 2])
def test_all_bad_images_are_listed_and_nothing_is_written(tmp_path: Path, workers: int) -> None:
    prepared(tmp_path, folders())
    before = (tmp_path / "out" / "set.beton").read_bytes()
    with pytest.raises(BadImagesError, match="3 of 14 images cannot be decoded") as caught:
        prepared(tmp_path, folders() | BAD, workers=workers)
    names, reasons = zip(*caught.value.bad, strict=True)
    assert list(names) == sorted(BAD)
    assert all(reasons)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["set.beton"]
    assert (tmp_path / "out" / "set.beton").read_bytes() == before


def test_bad_images_can_be_left_out(tmp_path: Path) -> None:
    result = prepared(tmp_path, folders() | BAD, skip_bad=True)
    assert [name for name, _ in result.skipped] == sorted(BAD)
    assert sum(result.images.values()) == 11
    with Reader(result.path) as reader:
        assert [name for name, _ in reader.info["prepare"]["skipped"]] == sorted(BAD)
        names = {bytes(reader[i]["name"]).decode() for i in range(len(reader))}
        assert names == (folders() | BAD).keys() - BAD.keys()
    assert not prepared(tmp_path, folders() | BAD, skip_bad=True).built
    with pytest.raises(BadImagesError):  # what was left out with consent is not left out without
        prepared(tmp_path, folders() | BAD)


def test_a_dataset_of_bad_images_alone_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(BadImagesError, match="2 of 2"):
        prepared(tmp_path, {"a/0.png": b"x", "b/0.png": b"x"}, skip_bad=True)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.usefixtures("_even_for_few_images")
def test_what_stops_a_source_stops_preparation(tmp_path: Path) -> None:
    files = idx_pair("train", *digits(50), packed=True)
    name = "train-images-idx3-ubyte.gz"
    with pytest.raises(SourceError, match="damaged"):
        prepared(tmp_path, files | {name: files[name][:-20]}, workers=2)
    assert not (tmp_path / "out" / "set.beton").exists()


def test_numbers_of_processes_below_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BetonError, match="workers"):
        prepared(tmp_path, folders(), workers=0)


def test_the_example_of_a_blank_class_is_of_this_class(tmp_path: Path) -> None:
    blank = saved(Image.new("L", (5, 5), 255))
    files = folders() | {"0/blank.png": blank, "1/x.png": blank}
    files = {name: blank if name.startswith("1/") else data for name, data in files.items()}
    with pytest.raises(LayoutError, match="class '1' are blank, for example 1/"):
        prepared(tmp_path, files)


# Named sets


@pytest.mark.parametrize(
    ("name", "place", "files"),
    [
        ("part1", "trainPart1.zip", midas((1, 2, 11))),
        ("part2", "trainPart1.zip", midas(range(1, 13), writers=1)),
        ("part3", "mnistTask3", folders()),
        ("mnist", "MNIST", idx_pair("train", *digits(10), True)),
        ("emnist-digits", "gzip.zip", idx_pair("emnist-digits-train", *digits(10), True)),
        ("emnist-digits", "EMNIST/raw", idx_pair("emnist-digits-train", *digits(10), True)),
        ("my-letters", "my-letters.zip", folders()),
        ("my-letters", "my-letters", folders()),
    ],
)
def test_a_dataset_is_found_by_its_name(
    tmp_path: Path, name: str, place: str, files: dict[str, bytes]
) -> None:
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    (make_zip if place.endswith(".zip") else make_tree)(path, files)
    source, via = catalog.SourceFinder(tmp_path).find(name)
    assert via == "data/raw"
    assert source.origin == "real"
    assert len(source) == (10 if "digits" in name or name in ("part2", "mnist") else 12)
    if name in catalog.CATALOG:
        assert name in catalog.SourceFinder(tmp_path).datasets(())


def test_what_is_given_goes_before_what_lies_there(tmp_path: Path) -> None:
    make_zip(tmp_path / "trainPart1.zip", midas((1, 2)))
    other = make_tree(tmp_path / "other", folders())
    source, via = catalog.SourceFinder(tmp_path, other, download=True).find("part1")
    assert (source.path, via) == (other, "--source")
    with pytest.raises(SourceError, match="has no classes 2"):
        catalog.SourceFinder(tmp_path, other).find("part2")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("trainPart1.zip", "part1"),
        ("x/mnistTask3", "part3"),
        ("My letters.ZIP", "My-letters"),
        ("fashion/train-images-idx3-ubyte.gz", "train-images-idx3-ubyte"),
        ("..", None),
    ],
)
def test_a_source_without_a_name_gets_one(tmp_path: Path, given: str, name: str | None) -> None:
    found, *others = catalog.SourceFinder(tmp_path, Path(given)).datasets(())
    assert others == ([catalog.AUXILIARY] if found == "part1" else [])
    assert found == name if name else found


@pytest.mark.parametrize(
    "name", [*sorted(catalog.CATALOG.keys() - catalog.GENERATED.keys()), "my-letters"]
)
def test_without_data_a_line_says_how_to_get_some(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError) as caught:
        catalog.SourceFinder(tmp_path).find(name)
    line = str(caught.value)
    assert line.startswith(f"no data for {name}: ")
    assert f"into {tmp_path}, or give the path by ./launch.sh prep {name} --source PATH" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("name", "images", "classes"),
    [("part1", 124, 62), ("part2", 20, 10), ("part3", 60_000, 10), ("mnist", 70_000, 10)],
)
def test_without_data_the_main_datasets_are_generated(
    tmp_path: Path, name: str, images: int, classes: int
) -> None:
    source, via = catalog.SourceFinder(tmp_path, synthetic=catalog.SyntheticData(2)).find(name)
    assert (source.origin, via) == ("synthetic", catalog.SYNTHETIC_BY_DEFAULT)
    assert (len(source), len(source.annotations.classes)) == (images, classes)
    assert catalog.SourceFinder(tmp_path).datasets(()) == (
        *catalog.MAIN_DATASETS,
        catalog.AUXILIARY,
    )
    make_tree(tmp_path / "my-letters", folders())  # a name of their own must be asked for
    assert name in catalog.SourceFinder(tmp_path).datasets(())


def test_what_is_there_is_all_that_is_wanted(tmp_path: Path) -> None:
    make_tree(tmp_path / "mnistTask3", folders())
    assert catalog.SourceFinder(tmp_path).datasets(()) == ("part3",)


def test_a_name_that_cannot_be_a_file_s_is_refused(tmp_path: Path) -> None:
    for name in ("a/b", "", "../x", "-x"):
        with pytest.raises(SourceError, match="expected letters, digits"):
            catalog.SourceFinder(tmp_path).datasets((name,))


# Downloads


@pytest.mark.parametrize(
    ("name", "dataset", "prefixes"),
    [
        ("mnist", "MNIST", ("train", "t10k")),
        ("fashion-mnist", "FashionMNIST", ("train", "t10k")),
        ("emnist-letters", "EMNIST", ("emnist-letters-train", "emnist-mnist-train")),
    ],
)
def test_torchvision_fetches_what_it_knows(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    dataset: str,
    prefixes: tuple[str, str],
) -> None:
    def fetch(root: Path, download: bool, split: str = "") -> None:
        assert download
        assert split in (name, name.removeprefix("emnist-")) or not split
        images, labels = digits(10)
        for prefix in prefixes:
            pair = idx_pair(prefix, images, [label or 1 for label in labels], packed=False)
            make_tree(root / dataset / "raw", pair)

    fake = types.ModuleType("torchvision.datasets")
    setattr(fake, dataset, fetch)
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setattr(sys.modules["torchvision"], "datasets", fake, raising=False)
    source, via = catalog.SourceFinder(tmp_path / "raw", download=True).find(name)
    assert via == "--download"
    assert len(source) == (10 if dataset == "EMNIST" else 20)
    assert catalog.SourceFinder(tmp_path / "raw").find(name)[1] == "data/raw"


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], Path]:
    def serve(content: bytes) -> Path:
        served = tmp_path / "remote.zip"
        served.write_bytes(content)
        monkeypatch.setitem(download.URLS, "trainPart1.zip", served.as_uri())
        return tmp_path / "raw"

    return serve


def test_an_archive_is_fetched_when_told_to(
    tmp_path: Path, remote: Callable[[bytes], Path]
) -> None:
    raw = remote(make_zip(tmp_path / "set.zip", midas()).read_bytes())
    source, via = catalog.SourceFinder(raw, download=True).find("part1")
    assert (source.path, via, len(source)) == (raw / "trainPart1.zip", "--download", 12)
    assert catalog.SourceFinder(raw, download=True).find("part1")[1] == "data/raw"


def test_a_failed_download_leaves_nothing(
    tmp_path: Path, remote: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = remote(b"<html>gone</html>")
    with pytest.raises(SourceError, match="expected a zip archive"):
        catalog.SourceFinder(raw, download=True).find("part1")

    def fail(source: Any, target: Any, size: int) -> None:
        target.write(source.read(size))
        raise ConnectionResetError("connection\nlost")

    monkeypatch.setattr(shutil, "copyfileobj", fail)
    with pytest.raises(SourceError, match="connection lost"):
        catalog.SourceFinder(raw, download=True).find("part1")
    (tmp_path / "remote.zip").unlink()
    with pytest.raises(SourceError, match="download failed"):
        catalog.SourceFinder(raw, download=True).find("part1")
    assert list(raw.iterdir()) == []
    with pytest.raises(SourceError, match="no known URL"):
        catalog.SourceFinder(raw, download=True).find("my-letters")
