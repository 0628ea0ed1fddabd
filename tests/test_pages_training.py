"""The page of part 1, from synthetic run directories with known results."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import made_up
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from test_html import Parsed

from pipeline.errors import UserError
from pipeline.evaluation.metrics import EpochMetrics
from pipeline.evaluation.run_config import DatasetRef
from pipeline.evaluation.run_dir import RunDir, TestResult, read_run
from pipeline.loading.dataset import Provenance
from pipeline.recipes.presets import PART1
from pipeline.recipes.recipe import Recipe, Stage
from pipeline.reporting.common import command
from pipeline.reporting.html import Page, Plot, PngImage, Section, SourceRun, Sources, Table
from pipeline.reporting.pages import training
from pipeline.reporting.pages.training import page_of
from pipeline.reporting.pages.training_plots import learning_rates
from pipeline.reporting.run_groups import group_runs

CLASSES = ["0", "O", "o", "s"]
LABELS = [0, 1, 2, 3] * 5
ORIGIN: Provenance = {"kind": "real", "source": "hands <of> ours.zip", "digest": "sha256:a"}
ENVIRONMENT = {
    "processor": "a slide rule",
    "device": "cpu",
    "cores": 2,
    "processes": 1,
    "threads": 2,
    "precision": "no",
}
ONE = Recipe((Stage(48, 2, 0.01),))


def run(
    path: Path,
    wrong: int = 4,
    seed: int = 0,
    recipe: Recipe = ONE,
    name: str = "fast",
    course: Sequence[float] = (0.55, 0.81),
    validated: bool = True,
    **config: Any,
) -> Path:
    """Write a run that predicts o for `wrong` images, first Os, with a confidence of 73 %."""
    path.mkdir(parents=True)
    record = RunDir(path)
    record.write_json(
        "config.json",
        made_up.config(
            **{
                "options": {"recipe": name, "seed": seed, "data": "my set.beton", "size": None},
                "recipe": replace(recipe, seed=seed),
                "classes": CLASSES,
                "provenance": ORIGIN,
                **config,
            }
        ),
    )
    record.write_json("environment.json", ENVIRONMENT)
    record.write_json("losses.json", [1.0, 0.5])
    stages = [n for n, stage in enumerate(recipe.stages) for _ in range(stage.epochs)]
    record.write_epochs(
        EpochMetrics(
            *(n, stage, 0.01, 2.0 - n, 0.5, 1.0, 1.0 - 0.1 * n, accuracy, 10.0 * (n + 1)),
            balanced_accuracy=accuracy / 2,
        )
        for n, (stage, accuracy) in enumerate(zip(stages, course, strict=True))
    )
    if validated:
        labels = torch.tensor(LABELS)
        predictions = labels.clone()
        taken = torch.cat([(labels == 1).nonzero(), (labels == 0).nonzero()])[:wrong, 0]
        predictions[taken] = 2
        probabilities = torch.full((len(labels), 4), 0.09)
        probabilities[torch.arange(len(labels)), predictions] = 0.73
        save_file(
            {"ids": torch.arange(len(labels)), "labels": labels, "logits": probabilities.log()},
            path / "answers.safetensors",
        )
    for image in ("confusion.png", "worst.png"):
        Image.new("L", (3, 2), 128).save(path / image)
    samples = len(LABELS) if validated else None
    record.finish(made_up.result(samples=samples, provenance=ORIGIN).as_json())
    return path


def table(page: Page, caption: str) -> list[list[str]]:
    """The rows of the table whose caption starts with `caption`."""
    blocks = (block for section in page.sections for block in section.blocks)
    (found,) = (b for b in blocks if isinstance(b, Table) and b.caption.startswith(caption))
    return [list(row) for row in found.rows]


def words(page: Page) -> str:
    blocks = (block for section in page.sections for block in section.blocks)
    return " ".join([page.answer, *(block for block in blocks if isinstance(block, str))])


def kinds(page: Page, kind: type) -> list[Any]:
    return [b for section in page.sections for b in section.blocks if isinstance(b, kind)]


def test_the_answer_for_one_run_has_accuracy_and_errors(tmp_path: Path) -> None:
    page = page_of([run(tmp_path / "a")])
    assert page.answer == (
        "Recipe fast classifies 80.00 % (95 % interval, given the number of images: 58.4 to 91.9 %)"
        " of 20 validation images correctly, 100.00 % with case ignored, after 20 s of training, "
        "in one run. The most frequent errors are O as o (×4). Confidence differs from accuracy by "
        "7.0 points on average."
    )
    assert page.title == "Part 1: 4 classes of handwritten characters"
    assert list(page.provenance) == [ORIGIN]
    assert [section.title for section in page.sections] == [
        "Training curves",
        "Results",
        "Confusions",
        "Largest losses",
        "Results by class",
        "Calibration",
        "Sources",
    ]


def test_the_results_of_one_run(tmp_path: Path) -> None:
    page = page_of([run(tmp_path / "a")])
    figures = dict(table(page, "Results on 20"))
    assert figures["accuracy"] == "80.00 %"
    assert figures["accuracy, case ignored"] == "100.00 %"
    assert figures["calibration error (ECE)"] == "7.00 %"
    assert (figures["epochs to 50 % accuracy"], figures["time to 50 % accuracy (s)"]) == ("1", "10")
    assert (figures["epochs to 80 % accuracy"], figures["time to 80 % accuracy (s)"]) == ("2", "20")
    assert "time to 85 % accuracy (s)" not in figures
    assert figures["hardware"] == (
        "a slide rule, cpu, cores: 2, processes: 1, threads per process: 2, float32"
    )
    assert table(page, "The most frequent") == [["O → o", "4 of 5"]]
    assert table(page, "Results of each class")[1:3] == [
        ["O", "5", "100.0 %", "20.0 %", "33.3 %", "o ×4"],
        ["o", "5", "55.6 %", "100.0 %", "71.4 %", ""],
    ]
    assert "fast: mean confidence 73.00 %, accuracy 80.00 %" in words(page)


def test_the_page_has_all_plots_and_images(tmp_path: Path) -> None:
    page = page_of([run(tmp_path / "a"), run(tmp_path / "b", seed=1)])
    parsed = Parsed(page.html())
    assert len(parsed.all("svg")) == len(kinds(page, Plot)) == 5
    assert len(parsed.all("img")) == len(kinds(page, PngImage)) == 2
    assert "real data: hands <of> ours.zip" in parsed.words["li"]


def test_each_run_has_its_command(tmp_path: Path) -> None:
    (sources,) = kinds(page_of([run(tmp_path / "a"), run(tmp_path / "b", seed=3)]), Sources)
    assert [source.used_for for source in sources.runs] == ["fast, seed 0", "fast, seed 3"]
    one: SourceRun = sources.runs[1]
    assert one.folder == str(tmp_path / "b")
    assert one.command == ("./launch.sh train part1 --recipe fast --seed 3 --data 'my set.beton'")
    assert command("emnist", {"trial": True, "balanced_sampler": False, "seed": 0}) == (
        "./launch.sh train emnist --trial --seed 0"
    )
    assert one.config["environment"] == ENVIRONMENT
    assert one.config["recipe"]["seed"] == 3


def test_seeds_of_one_recipe_are_one_group_with_an_interval(tmp_path: Path) -> None:
    courses = [(0.5, 0.7), (0.6, 0.84), (0.4, 0.86)]
    paths = [
        run(tmp_path / f"{seed}", wrong, seed, course=course)
        for seed, (wrong, course) in enumerate(zip([3, 4, 5], courses, strict=True))
    ]
    (arm,), repeated = group_runs(paths)
    assert (arm.name, [*arm.runs], arm.samples, repeated) == ("fast", [0, 1, 2], 20, [])
    assert arm.scores.samples == 60
    assert arm.first.path == paths[0]
    page = page_of(paths)
    # 0.85, 0.8, 0.75: mean 0.8, deviation 0.05, and t = 4.303 for three runs
    assert "classifies 80.00 % (95 % interval over seeds: 67.58 to 92.42) of 20" in page.answer
    assert "over 3 seeds." in page.answer
    assert "errors are O as o (×12)" in page.answer
    figures = dict(table(page, "Results on"))
    assert figures["accuracy"] == "80.00 % (67.58 to 92.42)"
    assert figures["epochs to 80 % accuracy"] == "2, in 2 of 3"
    assert table(page, "The most frequent") == [["O → o", "12 of 15"]]


def test_groups_are_compared_on_common_seeds(tmp_path: Path) -> None:
    wide = Recipe((Stage(64, 2, 0.01),))
    paths = [run(tmp_path / f"a{seed}", 4 + seed, seed) for seed in range(3)]
    paths += [run(tmp_path / f"b{seed}", 2, seed, wide) for seed in range(3)]
    page = page_of(paths)
    best, other = "fast (size 64)", "fast (size 48)"
    assert page.answer.startswith(
        f"Recipe {best}, the most accurate of 2 in this report, classifies 90.00 %"
    )
    assert page.answer.endswith(
        f" Compared with {other}, on the same images: {best} is 15 points better "
        "(95 % interval 3 to 27, 3 pairs): shown."
    )
    blocks = (block for section in page.sections for block in section.blocks)
    (figures,) = (b for b in blocks if isinstance(b, Table) and b.caption.startswith("Results on"))
    assert list(figures.headers) == ["", best, other]
    assert table(page, "The most frequent") == [["O → o", "6 of 15", "14 of 15"]]
    assert table(page, "F1 of each class")[1][2:] == ["75.0 %", "12.5 %"]
    assert len(kinds(page, PngImage)) == 4


def test_one_pair_and_no_pair_show_nothing(tmp_path: Path) -> None:
    wide = Recipe((Stage(64, 2, 0.01),))
    first = run(tmp_path / "a", 4, seed=0)
    page = page_of([first, run(tmp_path / "b", 2, 0, wide)])
    assert "one pair shows nothing (fast (size 64) is 10.0 points better)" in page.answer
    page = page_of([first, run(tmp_path / "c", 2, 1, wide)])
    assert "have no seed in common, so their difference is unknown" in page.answer


def test_results_on_different_images_are_not_compared(tmp_path: Path) -> None:
    page = page_of([run(tmp_path / "a"), run(tmp_path / "b", 1, fingerprint="bad")])
    assert "were not validated on the same images" in page.answer
    assert set(table(page, "Results on")[0]) == {"accuracy", "95.00 %", "80.00 %"}


def test_different_recipes_are_named_by_the_recipe_alone(tmp_path: Path) -> None:
    paths = [
        run(tmp_path / name, name=name, recipe=recipe)
        for name, recipe in (("fast", ONE), ("slow", Recipe((Stage(48, 2, 0.02),))))
    ]
    assert sorted(arm.name for arm in group_runs(paths)[0]) == ["fast", "slow"]


def test_a_run_given_twice_counts_once(tmp_path: Path) -> None:
    path = run(tmp_path / "2026-01-01", seed=1)
    (tmp_path / "latest").symlink_to(path.name)
    page = page_of([tmp_path / "latest", path, path])
    assert "in one run" in page.answer
    assert "Not included" not in words(page)


def test_runs_with_different_auxiliary_datasets_are_different_groups(tmp_path: Path) -> None:
    def auxiliary_dataset(name: str) -> DatasetRef:
        origin: Provenance = {"kind": "synthetic", "source": name}
        return DatasetRef(f"{name}.beton", name, 20, origin)

    paths = [run(tmp_path / name, auxiliary=auxiliary_dataset(name)) for name in ("200", "20")]
    paths.append(run(tmp_path / "old", seed=1))  # written before auxiliary datasets existed
    config = json.loads((paths[-1] / "config.json").read_text())
    del config["recipe"]["auxiliary"]
    RunDir(paths[-1]).write_json("config.json", config)
    paths.append(run(tmp_path / "without", auxiliary=None))
    arms, repeated = group_runs(paths)
    assert sorted(len(arm.runs) for arm in arms) == [1, 1, 2]
    assert repeated == []


def test_the_later_run_of_a_seed_replaces_the_earlier(tmp_path: Path) -> None:
    old, new = run(tmp_path / "2026-01-01", 5), run(tmp_path / "2026-01-02", 4)
    (arm,), repeated = group_runs([new, old])
    assert ([one.path for one in arm.runs.values()], repeated) == ([new], [old])
    assert f"Not included: {old}, because a later run" in words(page_of([old, new]))


def test_the_published_solution_stage_by_stage(tmp_path: Path) -> None:
    recipe = PART1["progressive"].recipe.scaled(0.001)
    course = [0.1 * n for n in range(1, 9)]
    page = page_of([run(tmp_path / "a", recipe=recipe, name="progressive", course=course)])
    rows = table(page, "progressive: accuracy after each stage")
    assert rows[0] == ["1", "224", "1", "10.00 %", "5.00 %", "88.71 %"]
    assert rows[-1] == ["8", "600", "1", "80.00 %", "40.00 %", "92.74 %"]


def test_a_run_without_errors(tmp_path: Path) -> None:
    page = page_of([run(tmp_path / "a", wrong=0)])
    assert "There are no errors" in page.answer
    assert "No image was classified incorrectly." in words(page)


def test_missing_images_are_omitted(tmp_path: Path) -> None:
    path = run(tmp_path / "a")
    (path / "worst.png").unlink()
    page = page_of([path])
    assert "Largest losses" not in [section.title for section in page.sections]
    assert len(kinds(page, PngImage)) == 1


def test_other_folders_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not a run directory: it has no result\.json"):
        page_of([tmp_path])
    with pytest.raises(UserError, match="got a run without validation"):
        page_of([run(tmp_path / "a", validated=False)])
    (run(tmp_path / "b") / "result.json").unlink()
    with pytest.raises(UserError, match="b: got an unfinished run"):
        page_of([tmp_path / "b"])


def test_different_classes_are_rejected(tmp_path: Path) -> None:
    others: dict[str, Any] = {"classes": ["0", "1", "2", "3"], "fingerprint": "bad"}
    paths = [run(tmp_path / "a"), run(tmp_path / "b", **others)]
    with pytest.raises(UserError, match="got other classes than"):
        page_of(paths)


def test_equal_runs_give_equal_pages(tmp_path: Path) -> None:
    paths = [run(tmp_path / "a"), run(tmp_path / "b", seed=1)]
    assert page_of(paths).html() == page_of(paths[::-1]).html()


def test_a_trial_says_so_and_shows_published_figures(tmp_path: Path) -> None:
    recipe = replace(ONE, train_images=1_600, validation_images=20)
    options = {"recipe": "resnet", "trial": True}
    path = run(tmp_path / "a", recipe=recipe, job="cifar10", options=options)
    test = TestResult(30, 0.7, 0.6, None, 0.9, 0.1)
    RunDir(path).finish(made_up.result(samples=20, provenance=ORIGIN, test=test).as_json())
    page = page_of([path])
    assert page.title == "Trial: CIFAR-10: ten classes of small photographs"
    assert page.answer.endswith(
        "resnet is a trial: 1,600 of the training images, 20 validation images, 2 of the recipe's "
        "epochs."
    )
    assert "On 30 test images, which decided nothing, it is 70.00 %." in page.answer
    rows = table(page, "Published figures")
    assert rows[0] == ["resnet", "accuracy on test images", "90.52 %", "70.00 %", ""]
    assert rows[1][3] == "50.00 %"
    figures = dict(table(page, "Results on 20"))
    assert (figures["accuracy, test"], figures["balanced accuracy, test"]) == ("70.00 %", "60.00 %")


def test_fewer_training_images_and_mirrored_predictions_are_reported(tmp_path: Path) -> None:
    page = page_of([run(tmp_path / "a", recipe=replace(ONE, train_images=1_600, mirrored=True))])
    assert page.answer.endswith("was trained on 1,600 of the training images.")
    assert "means over the image and its mirror image." in page.html()
    assert "mirror image" not in page_of([run(tmp_path / "b")]).html()


def test_the_sections_of_emnist_stand_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sections = [Section("Published confusions", ["Few."]), Section("Smaller images", ["Poor."])]
    monkeypatch.setattr(training, "emnist_sections", lambda _: sections)
    page = page_of([run(tmp_path / "a", job="emnist", options={"recipe": "first"})])
    titles = [section.title for section in page.sections]
    assert [titles.count(section.title) for section in sections] == [1, 1]


def test_published_figures_are_those_of_the_published_training(tmp_path: Path) -> None:
    changed = {"recipe": "first", "optimizer": "SGD"}
    page = page_of([run(tmp_path / "a", job="emnist", options=changed)])
    assert "Published figures" not in [section.title for section in page.sections]


def test_both_modes_of_accuracy_are_shown(tmp_path: Path) -> None:
    path = run(tmp_path / "a", job="fashion", options={"recipe": "lenet"})
    epochs = [replace(one, train_mode_accuracy=0.9) for one in RunDir(path).epochs()]
    RunDir(path).write_epochs(epochs)
    page = page_of([path])
    assert dict(table(page, "Results on 20"))["accuracy in train mode"] == "90.00 %"
    assert [row[1:4] for row in table(page, "Published figures")] == [
        ["accuracy after the first epoch", "–", "55.00 %"],
        ["accuracy after the first epoch (in train mode)", "83.80 %", "90.00 %"],
    ]


def test_an_accuracy_that_ended_the_training_is_in_the_table(tmp_path: Path) -> None:
    path = run(tmp_path / "a", job="classify", options={"recipe": "auto"}, until=0.81)
    result = made_up.result(samples=20, provenance=ORIGIN, until=0.81, reached=True)
    RunDir(path).finish(result.as_json())
    figures = dict(table(page_of([path]), "Results on 20"))
    assert figures["--until"] == "81.00 %: reached"
    assert figures["epochs to 81 % accuracy"] == "2"


def test_learning_rates_are_those_of_all_steps(tmp_path: Path) -> None:
    stages = (Stage(48, 1, 0.02, schedule="constant", warm_up=0), Stage(48, 1, 0.01))
    path = run(tmp_path / "a", recipe=Recipe(stages))
    RunDir(path).write_json("losses.json", [1.0] * 8)
    curve = learning_rates(read_run(path))
    assert curve.x == (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75)
    assert curve.mean[:4] == (0.02,) * 4
    assert max(curve.mean[4:]) == 0.01
