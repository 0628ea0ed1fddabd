"""The pages of sweeps, from outcomes that are known."""

from dataclasses import asdict
from pathlib import Path

import made_up
import pytest
from fake_job import ENVIRONMENT
from test_html import Parsed
from test_sweep_ranking import PUBLISHED, SEEDS, pairs, ranking

from pipeline.analysis.optimizers import conclude
from pipeline.analysis.sweep import Ranking, SweepResult
from pipeline.errors import UserError
from pipeline.evaluation.run_dir import RunDir
from pipeline.evaluation.sweep_config import SettingGroup, SweepConfig
from pipeline.reporting.html import Facts, Page, Plot, Table
from pipeline.reporting.pages.sweep import page_of
from pipeline.reporting.pages.sweep_tables import results_table
from pipeline.reporting.sweep_plots import curve_option, curves

THREE = {"good": (0.90, 0.91, 0.92), "similar": (0.91, 0.90, 0.915), "bad": (0.10, 0.112, 0.121)}


def config(found: Ranking, published: bool = False) -> SweepConfig:
    settings = tuple(one.setting for one in found.settings)
    return SweepConfig(
        "sweep",
        "leaves",
        "classify",
        ("--over", "a=1, 2", "--seeds", "3"),
        {"epochs": 3},
        (SettingGroup("", settings, found.seeds),),
        ("a", "b"),
        made_up.ORIGIN,
        published,
    )


def write(path: Path, found: Ranking, result: object, published: bool = False) -> Path:
    """Write the run directory of a finished sweep."""
    training = path / found.settings[0].outcomes[0].training
    training.mkdir(parents=True)
    RunDir(training).write_json("environment.json", ENVIRONMENT)
    RunDir(path).write_json("config.json", asdict(config(found, published)))
    RunDir(path).finish(asdict(result))  # type: ignore[call-overload]
    return path


def blocks(page: Page, kind: type) -> list[object]:
    return [b for section in page.sections for b in section.blocks if isinstance(b, kind)]


def test_the_page_ranks_settings_and_says_what_is_shown(tmp_path: Path) -> None:
    found = ranking(THREE)
    page = page_of([write(tmp_path / "run", found, SweepResult(found))])
    assert page.title == "Sweep of leaves: 3 settings"
    assert page.answer == found.answer
    assert [section.title for section in page.sections] == [
        "Results",
        "Differences to the best",
        "Trainings",
        "Sources",
    ]
    results, trainings = blocks(page, Table)
    assert isinstance(results, Table)
    assert [row[0] for row in results.rows] == ["good", "similar", "bad"]
    assert [row[results.headers.index("shown")] for row in results.rows] == ["–", "no", "yes"]
    behind = results.headers.index("behind the best (points)")
    assert results.rows[0][behind] == "–"
    assert results.rows[2][behind].startswith("79.90 (")
    assert "compares 3 pairs of settings (Bonferroni)" in results.caption
    assert isinstance(trainings, Table)
    assert len(trainings.rows) == 9
    (words,) = blocks(page, Facts)
    assert isinstance(words, Facts)
    said = dict(words.rows)
    assert str(said["bad"]).endswith(": shown")
    assert str(said["similar"]).startswith("no difference was shown")
    assert len(blocks(page, Plot)) == 1
    html = page.html()
    Parsed(html)
    assert "./launch.sh sweep leaves --over &#x27;a=1, 2&#x27; --seeds 3" in html
    assert "synthetic data: made up" in html


def test_two_settings_need_no_correction_and_one_has_no_differences() -> None:
    assert "Bonferroni" not in results_table(ranking({"a": SEEDS_UP, "b": SEEDS_DOWN})).caption
    one = results_table(ranking({"a": SEEDS_UP}))
    assert one.rows[0][1] == "81.00 % (78.52 to 83.48)"
    assert results_table(ranking({"a": (0.8,)}, (0,))).rows[0][1] == "80.00 %"


SEEDS_UP, SEEDS_DOWN = (0.80, 0.81, 0.82), (0.79, 0.80, 0.80)


def test_a_training_that_diverged_has_its_reason(tmp_path: Path) -> None:
    found = ranking({"tame": (0.5, 0.6, 0.55), "wild": (0.9, None, 0.9)})
    page = page_of([write(tmp_path / "run", found, SweepResult(found))])
    results, trainings = blocks(page, Table)
    assert isinstance(results, Table)
    assert isinstance(trainings, Table)
    assert [row[-1] for row in results.rows] == ["0", "1"]
    assert results.rows[1][2:4] == ["–", "–"]
    assert "its means are of its other trainings alone" in results.caption
    (plot,) = blocks(page, Plot)
    assert isinstance(plot, Plot)
    assert "without diverged trainings" in plot.caption
    assert [row[-1] for row in trainings.rows].count("not finite") == 1


def test_an_option_of_numbers_becomes_the_x_axis() -> None:
    rates = {("SGD", 0.1): (0.8,), ("SGD", 0.01): (0.7,), ("Adam", 0.001): (None,)}
    found = pairs({**rates, ("Adam", 0.01): (0.9,)}, (0,))
    assert curve_option(found.settings) == "learning_rate"
    lines = curves(found.settings, "learning_rate")
    assert lines["SGD"].x == (0.01, 0.1)
    assert lines["SGD"].mean == (0.7, 0.8)
    assert lines["SGD"].low is None
    assert lines["Adam"].x == (0.01,)
    assert curve_option(pairs({("SGD", 0.1): (0.8,), ("SGD", 0.2): (0.8,)}, (0,)).settings) is None
    assert curve_option(ranking(THREE).settings) is None  # names are no numbers


def test_the_page_of_the_optimizers_has_the_published_figures(tmp_path: Path) -> None:
    grid = pairs({("SGD", 0.1): (0.88,), ("SGD", 0.2): (0.8,), ("Adam", 0.01): (0.9,)}, (3,))
    published = pairs({("SGD", 1e-4): (0.3, 0.32, 0.31), ("Adam", 1e-5): (0.6, 0.61, 0.63)}, SEEDS)
    fair = pairs({("SGD", 0.1): (0.88, 0.9, 0.89), ("Adam", 0.01): (0.89, 0.9, 0.87)}, SEEDS)
    result = conclude(PUBLISHED, published, grid, fair, "Each training: 1 epoch.")
    page = page_of([write(tmp_path / "run", fair, result, published=True)])
    assert page.answer.startswith("The published order of the pairs repeats: Adam > SGD.")
    assert "is not shown to differ" in page.answer
    beside, fairly, *_ = blocks(page, Table)
    assert isinstance(beside, Table)
    assert [row[:2] for row in beside.rows] == [
        ["Adam at 1e-05", "90 %"],
        ["SGD at 0.0001", "87 %"],
    ]
    assert isinstance(fairly, Table)
    assert len(fairly.rows) == 2
    assert "Each training: 1 epoch." in page.html()
    assert "At the edge of its grid: Adam at 0.01, SGD at 0.1." in page.html()


def test_the_page_is_of_the_latest_and_a_training_has_none(tmp_path: Path) -> None:
    found = ranking(THREE)
    runs = [write(tmp_path / name, found, SweepResult(found)) for name in ("1", "2")]
    page = page_of(runs)
    assert f"Not shown: {runs[0]}, an earlier run." in blocks(page, str)
    RunDir(runs[1]).write_json("config.json", made_up.config())
    with pytest.raises(UserError, match="got one training of sweep"):
        page_of(runs)
