import hashlib
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from beton.reader import Reader
from pipeline.data import catalog, prepare
from pipeline.data.base import NO_SPLIT, TEST
from pipeline.data.charset import CHARACTERS
from pipeline.data.prepare import PrepareResult
from pipeline.data.sources import ClassSubset, Source, SourceError, open_source
from pipeline.data.splits import Split
from pipeline.data.synth import glyphs
from pipeline.data.synth import handwriting as synthetic
from pipeline.data.synth.export import save_pages
from pipeline.data.synth.handwriting import (
    MNIST_COUNTS,
    PART3_COUNTS,
    DigitCounts,
    SyntheticDigits,
    SyntheticPages,
)
from pipeline.data.synth.mislabel import LabelNoise

FEW = DigitCounts(300, 60, 0)


def digest_of_images(source: Source, rows: range) -> str:
    images = b"".join(source.image(row).tobytes() for row in rows)
    return hashlib.sha256(images).hexdigest()


# What seed 0 draws, by VERSION and by the beginning of the digest of glyphs.txt.
GOLDEN = {(2, "a06e8490"): "755f27043528f92f9cfb4a6ddfa1803006d144757c12b8b68556d98459e4b7c3"}


def test_what_a_seed_draws_is_held_for_good() -> None:
    key = (synthetic.VERSION, glyphs.digest()[:8])
    drawn = hashlib.sha256()
    for source, rows in (
        (SyntheticPages(2), range(0, 124, 5)),
        (SyntheticPages(1, grey=True), range(0, 62, 20)),
        (SyntheticDigits(FEW), range(0, 360, 9)),
        (SyntheticDigits(PART3_COUNTS), range(0, 60_000, 1500)),
    ):
        drawn.update(digest_of_images(source, rows).encode())
    assert {key: drawn.hexdigest()} == GOLDEN, (
        "seed 0 gives other images: if that is intended, raise VERSION in "
        "pipeline/data/synth/handwriting.py (unless only glyphs.txt has changed) and put the left "
        "side here as GOLDEN"
    )


# SyntheticPages


@pytest.mark.parametrize("writers", [1, 3, 40])
def test_pages_are_labelled_as_midas_has_them(writers: int) -> None:
    pages = SyntheticPages(writers).check()
    entries = pages.annotations
    assert len(pages) == 62 * writers
    assert entries.classes == tuple(CHARACTERS)
    assert (np.bincount(entries.labels) == writers).all()
    assert (np.bincount(entries.writers) == 62).all()
    assert (entries.splits == NO_SPLIT).all()
    names = [pages.name(index) for index in range(len(pages))]
    assert len(set(names)) == len(names)
    for index, name in enumerate(names):
        sample, writer = entries.labels[index] + 1, entries.writer_names[entries.writers[index]]
        assert name == f"handwriting/Sample{sample:03}/img{sample:03}-{writer}.png"
        assert int(writer) == entries.writers[index] + 1


def test_pages_have_two_values_unless_grey() -> None:
    for index in (0, 30, 61):
        assert set(np.unique(SyntheticPages(1).image(index))) == {0, 255}
        assert len(np.unique(SyntheticPages(1, grey=True).image(index))) > 20


def test_pages_differ_by_writer_character_and_seed() -> None:
    sources = (SyntheticPages(4), SyntheticPages(4, seed=1), SyntheticPages(4, seed=2))
    digests = {digest_of_images(pages, range(i, i + 1)) for pages in sources for i in range(16)}
    assert len(digests) == 48


@pytest.mark.parametrize("writers", [0, -1, 1000])
def test_numbers_of_writers_that_names_cannot_hold_are_refused(writers: int) -> None:
    with pytest.raises(SourceError, match=f"writers: got {writers}, expected 1 to 999"):
        SyntheticPages(writers)


@pytest.mark.parametrize("seed", [-1, 1 << 63])
def test_seeds_out_of_range_are_refused(seed: int) -> None:
    for make in (lambda: SyntheticPages(1, seed), lambda: SyntheticDigits(FEW, seed)):
        with pytest.raises(SourceError, match=f"seed {seed}"):
            make()


# Digits


def test_digits_have_mnist_s_shape() -> None:
    entries = SyntheticDigits().annotations
    assert len(entries.labels) == 70_000
    trained, test = entries.splits == NO_SPLIT, entries.splits == TEST
    assert trained[:60_000].all()
    assert test[60_000:].all()
    assert not set(entries.writers[trained]) & set(entries.writers[test])
    trained_digits = np.bincount(entries.writers[trained], minlength=500)[:250]
    assert set(trained_digits) == {synthetic.TRAIN_DIGITS_PER_WRITER}
    assert set(np.bincount(entries.writers[test])[250:]) == {synthetic.TEST_DIGITS_PER_WRITER}
    for part, count in ((trained, 60_000), (test, 10_000)):
        frequencies = np.bincount(entries.labels[part], minlength=10) / count
        np.testing.assert_allclose(frequencies, 0.1, atol=0.02)


def test_sets_of_digits_share_no_writer() -> None:
    writers = [
        set(SyntheticDigits(size).annotations.writer_names) for size in (MNIST_COUNTS, PART3_COUNTS)
    ]
    assert [len(some) for some in writers] == [500, 250]
    assert not writers[0] & writers[1]


def test_no_digit_is_generated_twice() -> None:
    digits = SyntheticDigits(FEW)
    assert len({digits.image(index).tobytes() for index in range(360)}) == 360
    names = {digits.name(index) for index in range(360)}
    assert len(names) == 360
    assert {name.split("/")[0] for name in names} == {"train", "test"}


def test_no_label_of_the_default_third_part_is_right() -> None:
    source = catalog.SyntheticData().source("part3")
    right = SyntheticDigits(PART3_COUNTS)
    assert len(source) == 60_000
    assert (source.annotations.labels != right.annotations.labels).all()
    # What is mislabelled is drawn all the same.
    for index in (0, 1234, 59_999):
        np.testing.assert_array_equal(source.image(index), right.image(index))
        assert source.name(index).split("/")[1] == str(source.annotations.labels[index])


@given(st.sampled_from(["wrong", "permutation", "symmetric=0.5", "pairs=0.5", "shuffled"]))
def test_a_test_set_is_never_mislabelled(kind: str) -> None:
    right = SyntheticDigits(FEW).annotations
    entries = SyntheticDigits(FEW, label_noise=LabelNoise.parse(kind)).annotations
    np.testing.assert_array_equal(entries.labels[300:], right.labels[300:])
    assert (entries.labels[:300] != right.labels[:300]).any()
    np.testing.assert_array_equal(entries.writers, right.writers)


# Digests


def test_a_digest_changes_with_all_that_is_generated_and_nothing_else() -> None:
    def sources() -> list[Source]:
        return [
            SyntheticPages(2),
            SyntheticPages(3),
            SyntheticPages(2, seed=1),
            SyntheticPages(2, grey=True),
            SyntheticDigits(FEW),
            SyntheticDigits(FEW, 1),
            SyntheticDigits(DigitCounts(300, 61, 0)),
            SyntheticDigits(DigitCounts(300, 60, 1)),
            *(
                SyntheticDigits(FEW, label_noise=LabelNoise.parse(text))
                for text in ("wrong", "symmetric=0.4", "symmetric=0.5", "pairs=0.4", "shuffled")
            ),
        ]

    digests = [source.digest() for source in sources()]
    assert len(set(digests)) == len(digests)
    assert all(digest.startswith("sha256:") for digest in digests)
    assert [source.digest() for source in sources()] == digests
    assert SyntheticDigits(FEW, label_noise=LabelNoise()).digest() == SyntheticDigits(FEW).digest()


def test_a_digest_changes_with_the_version_and_the_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    digests = {SyntheticPages(2).digest()}
    with monkeypatch.context() as patch:
        patch.setattr(synthetic, "VERSION", synthetic.VERSION + 1)
        digests.add(SyntheticPages(2).digest())
    with monkeypatch.context() as patch:
        patch.setattr(glyphs, "_text", lambda: "another table")
        digests.add(SyntheticPages(2).digest())
    assert len(digests) == 3


# Preparation

SOURCES: dict[str, Callable[[], Source]] = {
    "pages": lambda: SyntheticPages(2, seed=5),
    "part2": lambda: ClassSubset(SyntheticPages(3), CHARACTERS[:10]),
    "digits": lambda: SyntheticDigits(FEW, label_noise=LabelNoise("wrong")),
}


def prepared(source: Source, out: Path, workers: int = 1) -> PrepareResult:
    return prepare.prepare(source, out, split=Split(), found_by="--synthetic", workers=workers)


@pytest.mark.parametrize("name", ["pages", "digits"])
def test_the_bytes_do_not_depend_on_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(prepare, "SECONDS_PER_WORKER", 1e-9)
    outs = [tmp_path / f"{workers}.beton" for workers in (1, 2)]
    for workers, out in enumerate(outs, 1):
        assert prepared(SOURCES[name](), out, workers).built
    assert outs[0].read_bytes() == outs[1].read_bytes()


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_what_is_generated_says_so(tmp_path: Path, name: str) -> None:
    source = SOURCES[name]()
    result = prepared(source, tmp_path / "set.beton")
    assert result.source_bytes == 0
    with Reader(result.path) as reader:
        assert reader.info["provenance"] == {
            "kind": "synthetic",
            "source": source.path.name,
            "reader": "synthetic",
            "digest": source.digest(),
            "bytes": 0,
            "via": "--synthetic",
        }
        assert source.generator is not None
        assert reader.info["generator"] == dict(source.generator)
        assert reader.info["generator"]["seed"] == (5 if name == "pages" else 0)
        if name == "digits":
            assert reader.info["generator"]["mislabelling"] == "wrong"
            assert result.images == {"train": 270, "validation": 30, "test": 60}
        for index in (0, 7, len(source) - 1):
            sample = reader[index]
            np.testing.assert_array_equal(sample["image"], source.image(index))
            assert bytes(sample["name"]).decode() == source.name(index)
            assert sample["label"] == source.annotations.labels[index]
            assert sample["writer"] == source.annotations.writers[index]
    assert not prepared(SOURCES[name](), result.path).built


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_a_source_can_be_pickled(name: str) -> None:
    source = SOURCES[name]()
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy.image(11), source.image(11))
    assert (copy.digest(), str(copy)) == (source.digest(), str(source))


def test_datasets_of_the_catalog_can_be_generated_and_no_others() -> None:
    for name in catalog.GENERATED:
        source = catalog.SyntheticData(writers=3, seed=4).source(name)
        assert source.origin == "synthetic"
        assert source.generator is not None
        assert source.generator["seed"] == 4
    assert len(catalog.SyntheticData(writers=3).source("part1")) == 186
    part2 = catalog.SyntheticData(writers=3).source("part2")
    assert (len(part2), part2.annotations.classes) == (30, tuple("0123456789"))
    for name in ("emnist-letters", "my-letters"):
        with pytest.raises(SourceError, match=r"expected one of part1, part2, .* cifar10, .*auxil"):
            catalog.SyntheticData().source(name)


def test_a_tree_of_generated_pages_says_so(tmp_path: Path) -> None:
    save_pages(SyntheticPages(1, seed=3), tmp_path / "tree", lambda _: None)
    tree = open_source(tmp_path / "tree")
    assert (tree.origin, len(tree)) == ("synthetic", 62)
    assert (tree.image(5) == SyntheticPages(1, seed=3).image(5)).all()
    for number, name in enumerate(("a", "b")):
        (tmp_path / "real" / name).mkdir(parents=True)
        Image.fromarray(tree.image(number)).save(tmp_path / "real" / name / "1.png")
    assert open_source(tmp_path / "real").origin == "real"
    archive = shutil.make_archive(str(tmp_path / "tree"), "zip", tmp_path / "tree")
    assert open_source(archive).origin == "synthetic"
