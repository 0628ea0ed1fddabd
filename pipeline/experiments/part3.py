"""Part 3: what is wrong with a dataset's labels, and how to train on them nevertheless.

The experiment repeats published trainings, at learning rates of its own, diagnoses the labels
without a correct one, and trains again by methods that suit the diagnosis.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from beton.reader import Reader
from pipeline.analysis import noise_robust as robust
from pipeline.analysis.diagnosis import Diagnosis
from pipeline.analysis.label_noise import diagnose, rank_labels
from pipeline.errors import UserError
from pipeline.evaluation.evaluate import cached_predictions
from pipeline.evaluation.predict import Predictions
from pipeline.evaluation.run_config import TrainingConfig
from pipeline.evaluation.run_dir import FinishedRun, RunDir
from pipeline.experiments.command import check_classes, evaluation_split
from pipeline.experiments.study import Planned, Study
from pipeline.loading.dataset import source_line, split_indices
from pipeline.recipes.arms import PART3_ARMS, ArmSpec
from pipeline.recipes.losses import Loss
from pipeline.recipes.presets import PART3_RECOVERY, Preset, Trial
from pipeline.reporting.pages.part3 import closing_tables, page_of
from pipeline.reporting.run_plots import plot_label_samples
from pipeline.runtime import launch
from pipeline.runtime.files import read_json
from pipeline.training.datamodule import DataModule
from pipeline.training.distributed import Processes

Planner = Callable[[Preset, int], TrainingConfig]  # of a preset's training with a seed
TRIAL_ARMS, TRIAL_SEEDS = ("simple",), 1
TRIAL = Trial(epochs=4, train_images=4_000, validation_images=2_000)
REFERENCE = "pretrained-0"  # the training of part 2 that is the reference model


@dataclass(frozen=True)
class Datasets:
    """The dataset in question, and two with correct labels: to test on, and to train on.

    Raises UserError if their classes differ, or a split lacks samples.
    """

    data: Reader
    test: Reader
    clean: Reader

    def __post_init__(self) -> None:
        check_classes("test", self.test, self.data)
        check_classes("clean", self.clean, self.data)
        samples, classes = len(split_indices(self.data, "validation")), len(self.classes)
        if classes < 3 or samples < 10 * classes:
            raise UserError(
                f"data: {self.data.path} has {samples} validation images of {classes} classes; "
                "the diagnosis needs 10 images per class and at least 3 classes"
            )
        evaluation_split("test", self.test)

    @property
    def classes(self) -> list[str]:
        """The names of the classes."""
        names: list[str] = self.data.info["classes"]
        return names

    @cached_property
    def split(self) -> str:
        """The split to test on."""
        return evaluation_split("test", self.test)


@dataclass(frozen=True)
class PretrainedModels:
    """Run directories of part 2's models, by training, and of the reference model.

    `missing` says, in a line each, which of part 2's trainings cannot be used and why.
    """

    part2: Mapping[str, Path]
    reference: Path | None
    missing: tuple[str, ...]

    def arms(self, keys: Sequence[str]) -> list[ArmSpec]:
        """Return the arms that can be trained. Raises UserError if there are none."""
        arms = [PART3_ARMS[key] for key in keys]
        possible = [arm for arm in arms if arm.start is None or arm.start in self.part2]
        if not possible:
            raise UserError(f"arms: cannot train {', '.join(keys)}: {self.missing[0]}")
        return possible


def check_arms(keys: Sequence[str] | None) -> None:
    """Raise UserError for keys that are not in `PART3_ARMS`, and for an empty sequence."""
    if keys is None:
        return
    unknown = [key for key in keys if key not in PART3_ARMS]
    if unknown or not keys:
        got = ", ".join(unknown) or "none"
        raise UserError(f"arms: got {got}, expected some of {', '.join(PART3_ARMS)}")


def find_models(part2: Path, reference: Path | None, classes: Sequence[str]) -> PretrainedModels:
    """Find part 2's models in its run directory; the default reference model is one of them.

    Raises UserError for a reference model that does not know the classes.
    """
    if reference is not None:
        for name in ("result.json", "view.json"):
            read_json(reference, name)
        known = RunDir(reference).config().classes
        if unknown := [name for name in classes if name not in known]:
            raise UserError(f"witness: {reference} does not know {', '.join(unknown)}")
    models, missing = {}, []
    for name in sorted({REFERENCE, *(arm.start for arm in PART3_ARMS.values() if arm.start)}):
        run = part2.resolve() / name
        if not RunDir(run).finished:
            missing.append(f"{part2 / name} is no finished run (./launch.sh train part2)")
        elif RunDir(run).config().classes != tuple(classes):
            missing.append(f"{part2 / name} has other classes")
        else:
            models[name] = run
    return PretrainedModels(models, reference or models.get(REFERENCE), tuple(missing))


def check(
    processes: Processes, data: Datasets, arms: Sequence[ArmSpec], training: Planner, seed: int
) -> None:
    """Raise UserError for trainings that do not suit their dataset or the number of processes."""
    for arm in arms:
        DataModule(processes, training(arm.preset, seed).recipe, data.data)
    for file in (data.data, data.clean):
        DataModule(processes, training(PART3_RECOVERY, seed).recipe, file)


@dataclass(frozen=True)
class Experiment:
    """Part 3 on its datasets, with the models and options that it starts from."""

    study: Study
    data: Datasets
    models: PretrainedModels
    training: Planner

    def run(self, arms: Sequence[ArmSpec], seeds: Sequence[int]) -> None:
        """Repeat, diagnose and recover; write and print the result."""
        study, file = self.study, self.data.data
        provenance = source_line(file.info["provenance"])
        study.console.print(f"part3: {len(file):,} images, {provenance}; {study.path}")
        for line in self.models.missing:
            study.console.print(f"left out: {line}")
        repeated = list(study.train_all([self._repeat(arm, seeds[0]) for arm in arms]))
        diagnosis = study.processes.from_main(lambda: self._diagnose(repeated[0]))
        methods = [
            (method, loss)
            for method in robust.methods_for(diagnosis.kind)
            if (loss := robust.loss_of(method, diagnosis.forward)) is not None
        ]
        runs = study.train_all([self._recover(*one, seed) for seed in seeds for one in methods])
        recovered: dict[str, list[FinishedRun]] = {}
        for run, (method, _) in zip(runs, methods * len(seeds), strict=True):
            recovered.setdefault(method, []).append(run)
        if study.processes.is_main:
            plot_label_samples(file, study.path / "folders.png")
            result = self._result(repeated, diagnosis, recovered)
            answer = f"{diagnosis.verdict} {diagnosis.assumption}"
            study.conclude(result, page_of, closing_tables, answer)

    def _repeat(self, arm: ArmSpec, seed: int) -> Planned:
        training = self.training(arm.preset, seed)
        if arm.start is not None:
            start = self.models.part2[arm.start]
            network = RunDir(start).config().network
            training = replace(training, network=network, start=start)
        return Planned(arm.key, self.data.data, training)

    def _recover(self, method: str, loss: Loss, seed: int) -> Planned:
        training = self.training(PART3_RECOVERY, seed)
        (stage,) = training.recipe.stages
        recipe = replace(training.recipe, stages=(replace(stage, loss=loss),))
        file = self.data.clean if method == "ceiling" else self.data.data
        return Planned(f"{method}-{seed}", file, replace(training, recipe=recipe))

    def _diagnose(self, run: FinishedRun) -> Diagnosis:
        """Diagnose the labels of the validation images, which the training `run` did not use."""
        assert run.predictions is not None
        reference = None
        if self.models.reference is not None:
            cache = self.study.path / "witness.safetensors"
            predictions = self._predict(self.models.reference, self.data.data, "validation", cache)
            # A trial validates on some of the images.
            reference = robust.probabilities_of(predictions.select(run.predictions.ids))
        return diagnose(
            robust.probabilities_of(run.predictions),
            run.predictions.labels.numpy(),
            self.data.classes,
            reference,
        )

    def _result(
        self,
        repeated: Sequence[FinishedRun],
        diagnosis: Diagnosis,
        recovered: Mapping[str, Sequence[FinishedRun]],
    ) -> robust.LabelNoiseResult:
        data, predictions = self.data, repeated[0].predictions
        assert predictions is not None
        labels = predictions.labels.numpy()
        images = repeated[0].config.recipe.train_images
        scores = {name: [*map(self._score, runs)] for name, runs in recovered.items()}
        if "backwards" in robust.methods_for(diagnosis.kind):
            scores["backwards"] = [self._score(run, True) for run in recovered["naive"]]
        runs = (*repeated, *chain(*recovered.values()))
        return robust.LabelNoiseResult(
            provenance=data.data.info["provenance"],
            test=robust.LabelledSplit(**_described(data.test, data.split), split=data.split),
            clean=robust.LabelledDataset(**_described(data.clean, "train", images)),
            classes=tuple(data.classes),
            pictures=len(split_indices(data.data, "train", images)),
            held_out=len(labels),
            arms={run.path.name: self._score(run) for run in repeated},
            left_out=self.models.missing,
            witness=None if diagnosis.witness is None else str(self.models.reference),
            look=rank_labels(robust.probabilities_of(predictions), labels),
            diagnosis=diagnosis,
            recovery=robust.recovery(scores),
            trainings={run.path.name: run.result for run in runs},
            seconds_in_all=launch.seconds_since_start(),
        )

    def _score(self, run: FinishedRun, backwards: bool = False) -> robust.Score:
        """Return the score on correct labels, of argmin if `backwards`."""
        cache = run.path / "test.safetensors"
        predictions = self._predict(run.path, self.data.test, self.data.split, cache)
        return robust.score_of(predictions, backwards)

    def _predict(self, run: Path, file: Reader, split: str, cache: Path) -> Predictions:
        processes = self.study.processes
        return cached_predictions(run, file, split, cache, processes.device, processes.precision)


def _described(file: Reader, split: str, images: int | None = None) -> dict[str, Any]:
    return {
        "file": str(file.path),
        "pictures": len(split_indices(file, split, images)),
        "provenance": file.info["provenance"],
    }
