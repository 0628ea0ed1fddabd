"""Part 3: what is wrong with a dataset's labels, and how to train on them nevertheless.

The experiment repeats published trainings, diagnoses the labels without a correct one, and trains
again by methods that suit the diagnosis.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from beton.reader import Reader
from pipeline.analysis.diagnosis import Diagnosis
from pipeline.analysis.label_noise import diagnose, rank_labels
from pipeline.analysis.noise_robust import (
    ArmScore,
    LabelledDataset,
    LabelledSplit,
    LabelNoiseResult,
    accuracy_of,
    loss_of,
    methods_for,
    probabilities_of,
    recovery,
)
from pipeline.errors import UserError
from pipeline.evaluation.evaluate import cached_predictions
from pipeline.evaluation.predict import Predictions
from pipeline.evaluation.run_config import TrainingConfig
from pipeline.evaluation.run_dir import FinishedRun, RunDir
from pipeline.experiments.command import check_classes, evaluation_split, open_data
from pipeline.experiments.study import Study
from pipeline.loading.batches import Decode
from pipeline.loading.dataset import source_line, split_indices
from pipeline.recipes.arms import PART3_ARMS, ArmSpec
from pipeline.recipes.losses import Loss
from pipeline.recipes.presets import PART3_RECOVERY, Preset, override
from pipeline.reporting.part3 import closing_tables, page_of
from pipeline.reporting.run_plots import plot_label_samples
from pipeline.runtime import launch
from pipeline.runtime.files import read_json
from pipeline.training.datamodule import DataModule
from pipeline.training.distributed import Processes

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
        assert self.split

    @property
    def classes(self) -> list[str]:
        """The names of the classes."""
        names: list[str] = self.data.info["classes"]
        return names

    @cached_property
    def split(self) -> str:
        """The split to test on."""
        return evaluation_split("test", self.test)


@contextmanager
def open_datasets(data: Path, test: Path, clean: Path | None) -> Iterator[Datasets]:
    """Open the datasets; without `clean`, train on `test`'s correct labels.

    Raises UserError if one is missing, or as `Datasets` does.
    """
    with open_data(data, data.stem) as first, open_data(test, test.stem) as second:
        if clean is None:
            yield Datasets(first, second, second)
        else:
            with open_data(clean, clean.stem) as third:
                yield Datasets(first, second, third)


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
        unknown = [key for key in keys if key not in PART3_ARMS]
        if unknown or not keys:
            got = ", ".join(unknown) or "none"
            raise UserError(f"arms: got {got}, expected some of {', '.join(PART3_ARMS)}")
        arms = [PART3_ARMS[key] for key in keys]
        possible = [arm for arm in arms if arm.start is None or arm.start in self.part2]
        if not possible:
            raise UserError(f"arms: cannot train {', '.join(keys)}: {self.missing[0]}")
        return possible


def find_models(part2: Path, reference: Path | None, classes: Sequence[str]) -> PretrainedModels:
    """Find part 2's models in its run directory; the default reference model is one of them.

    Raises UserError for a reference model that does not know the classes.
    """
    if reference is not None:
        for name in ("result.json", "view.json"):
            read_json(reference, name)
        known = read_json(reference, "config.json")["classes"]
        if unknown := [name for name in classes if name not in known]:
            raise UserError(f"witness: {reference} does not know {', '.join(unknown)}")
    models, missing = {}, []
    for name in sorted({REFERENCE, *(arm.start for arm in PART3_ARMS.values() if arm.start)}):
        run = part2.resolve() / name
        if not RunDir(run).finished:
            missing.append(f"{part2 / name} is no finished run (./launch.sh train part2)")
        elif read_json(run, "config.json")["classes"] != classes:
            missing.append(f"{part2 / name} has other classes")
        else:
            models[name] = run
    return PretrainedModels(models, reference or models.get(REFERENCE), tuple(missing))


@dataclass(frozen=True)
class Overrides:
    """Options that replace values of all presets; None keeps a preset's own value.

    `network` replaces that of presets for other networks than ResNet-18.
    """

    network: str | None
    size: int | None
    epochs: int | None
    batch_size: int | None
    decode: Decode

    def training(self, preset: Preset, seed: int) -> TrainingConfig:
        """Return a preset's training. Raises UserError for values that make no sense."""
        network = preset.network if preset.network == "resnet18" else self.network
        recipe = override(
            preset.recipe,
            size=self.size,
            epochs=self.epochs,
            batch_size=self.batch_size,
            seed=seed,
        )
        return TrainingConfig(
            network or preset.network, recipe, decode=self.decode, checkpoints={"keep": 1}
        )


def check(
    processes: Processes,
    data: Datasets,
    arms: Sequence[ArmSpec],
    overrides: Overrides,
    seed: int,
) -> None:
    """Raise UserError for trainings that do not suit their dataset or the number of processes."""
    for arm in arms:
        DataModule.of(processes, overrides.training(arm.preset, seed).recipe, data.data)
    for file in (data.data, data.clean):
        DataModule.of(processes, overrides.training(PART3_RECOVERY, seed).recipe, file)


@dataclass(frozen=True)
class Experiment:
    """Part 3 on its datasets, with the models and options that it starts from."""

    study: Study
    data: Datasets
    models: PretrainedModels
    overrides: Overrides

    def run(self, arms: Sequence[ArmSpec], seeds: Sequence[int]) -> None:
        """Repeat, diagnose and recover; write and print the result."""
        study, file = self.study, self.data.data
        provenance = source_line(file.info["provenance"])
        study.console.print(f"part3: {len(file):,} images, {provenance}; {study.path}")
        for line in self.models.missing:
            study.console.print(f"left out: {line}")
        repeated = [self._repeat(arm, seeds[0]) for arm in arms]
        diagnosis = study.processes.from_main(lambda: self._diagnose(repeated[0]))
        recovered: dict[str, list[FinishedRun]] = {}
        for seed in seeds:
            for method in methods_for(diagnosis.kind):
                if (loss := loss_of(method, diagnosis.forward)) is not None:
                    run = self._recover(method, loss, seed)
                    recovered.setdefault(method, []).append(run)
        if study.processes.is_main:
            plot_label_samples(file, study.path / "folders.png")
            result = self._result(repeated, diagnosis, recovered)
            answer = f"{diagnosis.verdict} {diagnosis.assumption}"
            study.conclude(result, page_of, closing_tables, answer)

    def _repeat(self, arm: ArmSpec, seed: int) -> FinishedRun:
        training = self.overrides.training(arm.preset, seed)
        if arm.start is not None:
            start = self.models.part2[arm.start]
            network = read_json(start, "config.json")["network"]
            training = replace(training, network=network, start=start)
        return self.study.train(arm.key, self.data.data, training)

    def _recover(self, method: str, loss: Loss, seed: int) -> FinishedRun:
        training = self.overrides.training(PART3_RECOVERY, seed)
        (stage,) = training.recipe.stages
        recipe = replace(training.recipe, stages=(replace(stage, loss=loss),))
        file = self.data.clean if method == "ceiling" else self.data.data
        return self.study.train(f"{method}-{seed}", file, replace(training, recipe=recipe))

    def _diagnose(self, run: FinishedRun) -> Diagnosis:
        """Diagnose the labels of the validation images, which the training `run` did not use."""
        assert run.predictions is not None
        reference = None
        if self.models.reference is not None:
            cache = self.study.path / "witness.safetensors"
            predictions = self._predict(self.models.reference, self.data.data, "validation", cache)
            reference = probabilities_of(predictions)
        return diagnose(
            probabilities_of(run.predictions),
            run.predictions.labels.numpy(),
            self.data.classes,
            reference,
        )

    def _result(
        self,
        repeated: Sequence[FinishedRun],
        diagnosis: Diagnosis,
        recovered: Mapping[str, Sequence[FinishedRun]],
    ) -> LabelNoiseResult:
        data, predictions = self.data, repeated[0].predictions
        assert predictions is not None
        labels = predictions.labels.numpy()
        accuracies = {
            method: [accuracy_of(self._test(run)) for run in runs]
            for method, runs in recovered.items()
        }
        if "backwards" in methods_for(diagnosis.kind):
            accuracies["backwards"] = [
                accuracy_of(self._test(run), backwards=True) for run in recovered["naive"]
            ]
        runs = (*repeated, *chain(*recovered.values()))
        return LabelNoiseResult(
            provenance=data.data.info["provenance"],
            test=LabelledSplit(**_described(data.test, data.split), split=data.split),
            clean=LabelledDataset(**_described(data.clean, "train")),
            classes=tuple(data.classes),
            pictures=len(split_indices(data.data, "train")),
            held_out=len(labels),
            arms={run.path.name: ArmScore(accuracy_of(self._test(run))) for run in repeated},
            left_out=self.models.missing,
            witness=None if diagnosis.witness is None else str(self.models.reference),
            look=rank_labels(probabilities_of(predictions), labels),
            diagnosis=diagnosis,
            recovery=recovery(accuracies),
            trainings={run.path.name: run.result for run in runs},
            seconds_in_all=launch.seconds_since_start(),
        )

    def _test(self, run: FinishedRun) -> Predictions:
        """Return predictions for the images with correct labels."""
        cache = run.path / "test.safetensors"
        return self._predict(run.path, self.data.test, self.data.split, cache)

    def _predict(self, run: Path, file: Reader, split: str, cache: Path) -> Predictions:
        processes = self.study.processes
        return cached_predictions(run, file, split, cache, processes.device, processes.precision)


def _described(file: Reader, split: str) -> dict[str, Any]:
    return {
        "file": str(file.path),
        "pictures": len(split_indices(file, split)),
        "provenance": file.info["provenance"],
    }
