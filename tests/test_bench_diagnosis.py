"""The noise benchmark: its split of images, its count of correct diagnoses, its table."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from raw_data import digits, idx_pair, make_tree

from jobs.bench import diagnosis as bench_diagnosis
from jobs.bench.diagnosis import (
    Config,
    Outcome,
    SampledSource,
    closing_table,
    conclusion,
    label_noises,
)
from pipeline.analysis.label_noise import diagnose
from pipeline.data.base import TRAIN
from pipeline.data.sources import SourceError
from pipeline.data.synth.mislabel import LabelNoise


def write_digits(folder: Path, count: int) -> Path:
    """Write so many training images, and ten test images."""
    pairs = [
        idx_pair(part, *digits(n), packed=False) for part, n in (("train", count), ("t10k", 10))
    ]
    return make_tree(folder, pairs[0] | pairs[1])


def names(source: SampledSource, train: bool) -> set[str]:
    rows = np.flatnonzero((source.annotations.splits == TRAIN) == train)
    return {source.name(row) for row in rows.tolist()}


@pytest.mark.parametrize("seed", [0, 1])
def test_training_images_are_disjoint_and_held_out_images_shared(tmp_path: Path, seed: int) -> None:
    config = Config(write_digits(tmp_path, 60), learned=20, held_out=15, seed=seed)
    own, others = bench_diagnosis.sample_sources(config)
    train, theirs, held_out = names(own, True), names(others, True), names(own, False)
    assert (len(train), len(theirs), len(held_out)) == (20, 20, 15)
    assert len(train | theirs | held_out) == 55
    assert names(others, False) == held_out
    assert all(name.startswith("train/") for name in train | theirs | held_out)
    images, labels = digits(60)
    for row in range(35):
        number = int(own.name(row).removeprefix("train/"))
        np.testing.assert_array_equal(own.image(row), images[number])
        assert own.annotations.labels[row] == labels[number]


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    config = Config(write_digits(tmp_path, 60), learned=20, held_out=21)
    with pytest.raises(SourceError, match=r"got 60 images outside .* expected 61: twice 20"):
        bench_diagnosis.sample_sources(config)


def test_correct_diagnoses_are_counted() -> None:
    labels = np.arange(600) % 10
    clean = diagnose(np.eye(10)[labels], labels, list("0123456789"))
    assert clean.kind == "clean"
    random = replace(clean, kind="random", rate=0.9, detectable=None)
    outcomes = [
        Outcome(LabelNoise(), 0.0, clean, clean),
        Outcome(LabelNoise("shuffled"), 0.9, random, random),
        Outcome(LabelNoise("permutation"), 1.0, clean, replace(random, kind="permutation")),
        Outcome(LabelNoise("pairs", 0.3), 0.3, random, replace(random, kind="symmetric")),
    ]
    assert conclusion(outcomes) == (
        "The diagnosed kind is correct in 2 of 4 cases without a reference model, in 3 of 4 with "
        "one."
    )
    columns = [list(column.cells) for column in closing_table(outcomes).columns]
    assert columns[0] == ["none", "shuffled", "permutation", "pairs=0.3"]
    assert columns[4] == ["yes", "yes", "no", "no"]
    assert columns[7] == ["yes", "yes", "yes", "no"]
    assert str(columns[3][0]).startswith("below ")
    assert columns[3][1] == "90.0 %"


def test_class_dependent_noise_has_a_case_for_each_rate() -> None:
    config = Config(kinds=("none", "flips"), flips=("2:7,3:8", "4:9"), flip_rates=(0.1, 0.2))
    assert [str(noise) for noise in label_noises(config)] == [
        "none",
        "flips=2:7:0.1,3:8:0.1",
        "flips=2:7:0.2,3:8:0.2",
        "flips=4:9:0.1",
        "flips=4:9:0.2",
    ]
    labels = np.arange(600) % 10
    clean = diagnose(np.eye(10)[labels], labels, list("0123456789"))
    found = replace(clean, kind="class-dependent")
    assert Outcome(LabelNoise.parse("flips=4:9:0.1"), 0.01, found, clean).is_correct(found)


def test_it_mislabels_trains_and_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    kinds = ("none", "shuffled", "pairs")
    bench_diagnosis.main(Config(kinds=kinds, rates=(0.3,), learned=128, held_out=200, epochs=1))
    lines = capsys.readouterr().out.splitlines()
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")
    ][2:]
    assert [row[0] for row in rows] == ["none", "shuffled", "pairs=0.3"]
    wrong = [float(row[1].removesuffix(" %")) for row in rows]
    assert wrong == pytest.approx([0, 90, 30], abs=10)
    assert wrong[0] == 0
    alone, referenced = (sum(row[place] == "yes" for row in rows) for place in (4, 7))
    assert f"correct in {alone} of 3 cases without" in lines[-1]
    assert f"in {referenced} of 3 with one." in lines[-1]
    assert any("synthetic data: inkrun's generator" in line for line in lines)
