"""The page of part 2, from a synthetic run directory."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from made_up import config, course, result
from rich.console import Console
from test_html import Parsed

from pipeline.analysis.pretraining import ARMS, Analysis, DatasetUse, PretrainingResult, analyse
from pipeline.errors import UserError
from pipeline.evaluation.run_config import ExperimentConfig
from pipeline.loading.dataset import Provenance
from pipeline.reporting.html import Table
from pipeline.reporting.pages.part2 import closing_table, page_of

PRETRAINED = [course([0.96, 0.991], before=0.9), course([0.97, 0.993], before=0.9)]
SCRATCH = [course([0.91, 0.988]), course([0.93, 0.989], norms=1.25)]
ORIGINS: dict[str, Provenance] = {
    "digits": {"kind": "real", "source": "pages <of> ours", "digest": "a"},
    "mnist": {"kind": "synthetic", "source": "drawn & described", "digest": "b"},
}
ENVIRONMENT = {
    "processor": "a slide rule",
    "device": "cpu",
    "cores": 2,
    "processes": 1,
    "threads": 2,
    "precision": "no",
}


def folder(path: Path, analysis: Analysis) -> Path:
    """Write a run directory."""
    names = ["digits", *(f"{arm}-{seed}" for arm in ARMS for seed in analysis.seeds)]
    training = result(
        epochs=40, seconds_training=7.4, images_per_second=2345.6, accuracy=0.925, samples=40
    )
    written = PretrainingResult(
        provenance=ORIGINS["mnist"],
        digits=DatasetUse("d.beton", ORIGINS["digits"], "train", 360, "validation", 40),
        mnist=DatasetUse("m.beton", ORIGINS["mnist"], "train+validation", 60_000, "test", 10_000),
        analysis=analysis,
        trainings=dict.fromkeys(names, training),
        seconds_in_all=60.0,
    )
    options = {"seeds": 2, "digits": "my digits.beton", "epochs": None}
    for name in names:
        (path / name).mkdir(parents=True)
        (path / name / "config.json").write_text(json.dumps(config(job="part2")))
        (path / name / "environment.json").write_text(json.dumps(ENVIRONMENT))
    whole = ExperimentConfig("part2", options, tuple("0123456789"), ORIGINS["mnist"])
    (path / "config.json").write_text(json.dumps(asdict(whole)))
    (path / "result.json").write_text(json.dumps(asdict(written)))
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return folder(tmp_path / "2026-02-02", analyse((0, 1), PRETRAINED, SCRATCH))


def text_of(run: Path) -> str:
    parsed = Parsed(page_of([run]).html())
    assert len(parsed.all("svg")) == 5
    return " ".join(" ".join(words) for words in parsed.words.values())


def test_the_page_starts_with_answer_and_provenance(run: Path) -> None:
    page = page_of([run])
    assert page.answer == analyse((0, 1), PRETRAINED, SCRATCH).answer
    assert [*page.provenance] == [ORIGINS["digits"], ORIGINS["mnist"]]
    text = text_of(run)
    for words in (
        page.answer,
        "real data: pages <of> ours",
        "synthetic data: drawn & described",
        "One network (small) was trained on 360 digits of part 1 for 40 epochs, in 7 s",
        "accuracy of 92.50 % on 40 others",
        "60,000 MNIST digits (train+validation) for 2 epochs",
        "10,000 (test)",
        "a slide rule",
        "99.45 % (pretrained) and 99.23 % (from scratch)",
        "./launch.sh train part2 --seeds 2 --digits 'my digits.beton'",
    ):
        assert words in text, words


def test_the_tables_have_the_metrics(run: Path) -> None:
    blocks = [block for section in page_of([run]).sections for block in section.blocks]
    rows = [[*row] for block in blocks if isinstance(block, Table) for row in block.rows]
    for row in (
        ["accuracy at the end (%)", "99.20", "98.85", "+0.35", "−0.29 to +0.99", "no", "3"],
        ["accuracy before step 1 (%)", "90.00", "10.00", "+80.00", "–", "–", "–"],
        ["epochs to 98 %", "2.0", "2.0", "+0.0", "–", "–", "–"],
        ["seconds to 95 %", "10.0", "20.0", "−10.0", "–", "–", "–"],
        ["epochs to 99.4 %", "–", "–", "–", "–", "–", "–"],
        ["0", "99.10", "98.80", "89.19", "88.92", "0.0090", "0.0120"],
        ["2", "0.141", "0.071", "–", "–", "–"],
    ):
        assert row in rows, row
    assert (
        "over 2 pairs. Showing a difference of this size and spread with 80 % power takes 3 pairs"
        in text_of(run)
    )


def test_a_shown_difference_has_a_direction(tmp_path: Path) -> None:
    first = [course([0.99 + 0.001 * seed], norms=1) for seed in range(3)]
    second = [course([0.98 + 0.0011 * seed], norms=2 + 0.1 * seed) for seed in range(3)]
    run = folder(tmp_path / "shown", analyse(range(3), first, second))
    page = page_of([run])
    cells = list(closing_table(run).columns[4].cells)
    assert cells[0] == "yes"
    assert page.answer.startswith("Yes: after 1 epoch, ")
    assert "yes, better" in text_of(run)
    assert "yes, smaller" in text_of(run)  # the gradient norm


def test_one_pair_makes_a_page(tmp_path: Path) -> None:
    run = folder(tmp_path / "one", analyse((3,), PRETRAINED[:1], SCRATCH[:1]))
    text = text_of(run)
    assert "one pair shows nothing" in text
    assert "Bands are" not in text
    assert "1 pair of trainings: no spread" in text


def test_partly_reached_thresholds_have_a_sentence(tmp_path: Path) -> None:
    run = folder(tmp_path / "some", analyse((0, 1), PRETRAINED, SCRATCH))
    assert "Epochs to 99 %: no difference can be measured; both reached it in 0 of 2" in (
        text_of(run)
    )


def test_the_latest_of_several_is_shown(run: Path, tmp_path: Path) -> None:
    earlier = folder(tmp_path / "2026-01-01", analyse((7,), SCRATCH[:1], PRETRAINED[:1]))
    (tmp_path / "latest").symlink_to(run.name)
    page = page_of([run, earlier, tmp_path / "latest"])
    assert page.answer == page_of([run]).answer
    assert f"Not shown: {earlier}, an earlier run." in page.html()


def test_unfinished_runs_are_rejected(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="got no run directories"):
        page_of([])
    (run / "result.json").unlink()
    with pytest.raises(UserError, match="got an unfinished run"):
        page_of([run])
    with pytest.raises(UserError, match="not a run directory"):
        page_of([tmp_path / "nowhere"])
    with pytest.raises(UserError, match="got one training of part2, expected the whole run"):
        page_of([run / "digits"])


def test_the_closing_table_fits_a_terminal(run: Path) -> None:
    console = Console(width=80, no_color=True)
    with console.capture() as capture:
        console.print(closing_table(run))
    lines = capture.get().splitlines()
    assert lines[0].strip() == "Part 2: 2 pairs of trainings, 95 % intervals"
    assert len(lines) == 2 + 23  # nothing is folded
    (first,) = (line.split() for line in lines if "accuracy at the end" in line)
    assert first[5:] == ["99.20", "98.85", "+0.35", "±", "0.64", "no", "3"]
