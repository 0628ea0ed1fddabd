"""Real images with label noise."""

import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from raw_data import digits, folders, idx_pair, make_tree

from beton.reader import Reader
from jobs import prep
from pipeline.data.base import TEST
from pipeline.data.sources import Source, SourceError, open_source
from pipeline.data.synth.mislabel import KINDS, LabelNoise, MislabelledSource
from pipeline.loading.dataset import source_line
from pipeline.reporting.html import Page

WRONG = LabelNoise("wrong")


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """60 training and 40 test images of ten classes."""
    pairs = idx_pair("train", *digits(60), True) | idx_pair("t10k", *digits(40), False)
    make_tree(tmp_path / "raw", pairs)
    return open_source(tmp_path / "raw")


def test_all_but_the_test_set_is_mislabelled(source: Source) -> None:
    wrong = MislabelledSource(source, WRONG)
    before, after = source.annotations, wrong.annotations
    test = before.splits == TEST
    assert test.sum() == 40
    np.testing.assert_array_equal(after.labels[test], before.labels[test])
    assert (after.labels[~test] != before.labels[~test]).all()
    np.testing.assert_array_equal(after.splits, before.splits)
    assert after.classes == before.classes


@pytest.mark.parametrize("kind", KINDS)
def test_training_labels_do_not_depend_on_the_test_set(source: Source, kind: str) -> None:
    # Shuffled labels come from training images alone.
    free = source.annotations.splits != TEST
    labels = LabelNoise(kind).apply(source.annotations.labels[free], 10, 7)
    mislabelled = MislabelledSource(source, LabelNoise(kind), 7).annotations.labels[free]
    np.testing.assert_array_equal(mislabelled, labels)


def test_images_and_their_origin_are_the_source_s_own(source: Source) -> None:
    wrong = pickle.loads(pickle.dumps(MislabelledSource(source, WRONG)))
    for index in (0, 59, 60, 99):
        np.testing.assert_array_equal(wrong.image(index), source.image(index))
        assert wrong.name(index) == source.name(index)
    assert (wrong.kind, wrong.origin) == (source.kind, source.origin)
    assert (str(wrong), len(wrong)) == (str(source), len(source))
    rows = np.arange(3)
    assert wrong.size(rows) == source.size(rows)


def test_other_labels_have_another_digest(source: Source) -> None:
    made = [(WRONG, 0), (WRONG, 1), (LabelNoise("symmetric", 0.4), 0)]
    digests = [source.digest(), *(MislabelledSource(source, *how).digest() for how in made)]
    assert len(set(digests)) == 4
    assert MislabelledSource(source, WRONG).digest() == digests[1]


@pytest.mark.parametrize("seed", [-1, 1 << 63])
def test_a_seed_that_makes_no_sense_is_refused(source: Source, seed: int) -> None:
    with pytest.raises(SourceError, match=f"seed {seed}: expected 0"):
        MislabelledSource(source, WRONG, seed)


def run_prep(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> int:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["prep", *arguments])
    return prep.main()


def labels_of(path: Path) -> list[int]:
    with Reader(path) as reader:
        labels: list[int] = reader.column("label").metadata.tolist()
    return labels


def test_prep_mislabels_what_it_is_given(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("--source", str(source.path), "--out", "out")
    assert run_prep(monkeypatch, tmp_path, "right", *given) == 0
    assert run_prep(monkeypatch, tmp_path, "wrong", *given, "--mislabel", "wrong") == 0
    right, wrong = (labels_of(tmp_path / "out" / f"{name}.beton") for name in ("right", "wrong"))
    assert right == source.annotations.labels.tolist()
    assert wrong == MislabelledSource(source, WRONG).annotations.labels.tolist()
    with Reader(tmp_path / "out" / "wrong.beton") as reader:
        assert source_line(reader.info["provenance"]) == "real data: raw, mislabelled on purpose"
        assert reader.info["provenance"]["reader"] == "idx"
        assert reader.info["generator"]["mislabelling"] == "wrong"


def test_what_is_shown_of_it_says_so_but_not_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tree(tmp_path / "set", folders())
    said = set()
    for how in ("wrong", "pairs=0.5", "permutation"):
        given = ("--source", "set", "--mislabel", how)
        assert run_prep(monkeypatch, tmp_path, "some", *given) == 0
        with Reader(tmp_path / "data" / "some.beton") as reader:
            provenance = {k: v for k, v in reader.info["provenance"].items() if k != "digest"}
            said.add(json.dumps(provenance))
        page = Page("t", "q", "a", [provenance], []).html()
        assert '<li class="real">real data: set, mislabelled on purpose</li>' in page
    assert len(said) == 1


def test_a_dataset_is_prepared_anew_when_it_is_mislabelled_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_tree(tmp_path / "set", folders())
    for how, built in (
        ("none", True),
        ("wrong", True),
        ("wrong", False),
        ("pairs=0.5", True),
    ):
        assert run_prep(monkeypatch, tmp_path, "--source", "set", "--mislabel", how) == 0
        assert ("is up to date" not in capsys.readouterr().out) == built, how


def test_prep_says_what_is_no_way_to_mislabel(
    source: Source,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ("--source", str(source.path), "--mislabel", "some")
    assert run_prep(monkeypatch, tmp_path, "set", *given) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("prep: mislabel 'some': expected none, wrong,")
    assert not list(tmp_path.rglob("*.beton"))
