"""The config.json of run directories: what is trained, on which data, with which options."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from beton.reader import Reader
from pipeline.errors import UserError
from pipeline.loading.batches import Decode
from pipeline.loading.dataset import PixelRules, Provenance, open_dataset
from pipeline.recipes.recipe import Recipe


@dataclass(frozen=True)
class CheckpointSchedule:
    """When checkpoints are written, and how many are kept: see `training.checkpoint`."""

    every_steps: int = 0
    every_minutes: float = 5.0
    keep: int = 2


@dataclass(frozen=True)
class TrainingConfig:
    """What to train: a network of `networks.NETWORKS`, by a recipe.

    Training starts from random weights, or from those in the run directory `start`, except for a
    head that does not fit. It uses the samples of the splits `learn_from` ("train+validation" are
    both) and is validated on `validate_on`. `auxiliary` is the file of the auxiliary dataset, where
    the recipe mixes one in. Training ends early after the first epoch whose validation accuracy is
    at least `until`. `found_rate` is the peak learning rate that a range test found, which the
    recipe has already, None without one.
    """

    network: str
    recipe: Recipe
    start: Path | None = None
    learn_from: str = "train"
    validate_on: str = "validation"
    auxiliary: Path | None = None
    decode: Decode = "auto"
    checkpoints: CheckpointSchedule = CheckpointSchedule()
    until: float | None = None
    found_rate: float | None = None


@dataclass(frozen=True)
class DatasetRef:
    """A .beton file that a training used: its path, fingerprint, number of samples and origin."""

    data: str
    fingerprint: str
    samples: int
    provenance: Provenance

    @classmethod
    def of(cls, path: Path) -> "DatasetRef":
        """Describe the file at `path`. Raises BetonError or OSError if it cannot be opened."""
        with open_dataset(path) as file:
            return cls(str(path), file.fingerprint(), len(file), file.info["provenance"])


@dataclass(frozen=True)
class RunConfig:
    """The config.json of one training: all that it takes to resume it.

    `options` are the command's, as JSON values. Paths are relative to the folder in which the
    command ran. `pixels` are the rules of the dataset, which evaluation applies to other data. Runs
    made before auxiliary datasets and such rules existed have none, and the earlier rules.
    """

    job: str
    options: dict[str, Any]
    network: str
    recipe: Recipe
    start: str | None
    learn_from: str
    validate_on: str
    decode: Decode
    checkpoints: CheckpointSchedule
    data: str
    fingerprint: str
    classes: tuple[str, ...]
    provenance: Provenance
    auxiliary: DatasetRef | None = None
    pixels: PixelRules = field(default_factory=PixelRules)
    until: float | None = None
    found_rate: float | None = None

    def __post_init__(self) -> None:
        if not self.classes or len({*self.classes}) < len(self.classes):
            raise UserError(f"classes: got {len(self.classes)}, expected different names")

    @classmethod
    def of(
        cls, job: str, training: TrainingConfig, file: Reader, options: Mapping[str, Any]
    ) -> "RunConfig":
        """Return the configuration of a training on `file`."""
        return cls(
            job=job,
            options=dict(options),
            network=training.network,
            recipe=training.recipe,
            start=None if training.start is None else str(training.start),
            learn_from=training.learn_from,
            validate_on=training.validate_on,
            decode=training.decode,
            checkpoints=training.checkpoints,
            data=str(file.path),
            fingerprint=file.fingerprint(),
            classes=tuple(file.info["classes"]),
            provenance=file.info["provenance"],
            auxiliary=None if training.auxiliary is None else DatasetRef.of(training.auxiliary),
            pixels=PixelRules.of(file),
            until=training.until,
            found_rate=training.found_rate,
        )

    @property
    def training(self) -> TrainingConfig:
        """What is trained."""
        return TrainingConfig(
            self.network,
            self.recipe,
            Path(self.start) if self.start else None,
            self.learn_from,
            self.validate_on,
            Path(self.auxiliary.data) if self.auxiliary else None,
            self.decode,
            self.checkpoints,
            self.until,
            self.found_rate,
        )

    @property
    def is_trial(self) -> bool:
        """Whether this is a quick run, on some of the images (`--trial`)."""
        return bool(self.options.get("trial"))

    def portable(self) -> "RunConfig":
        """Return the configuration with names of files in place of their paths."""
        options = {
            name: Path(value).name if isinstance(value, str) and "/" in value else value
            for name, value in self.options.items()
        }
        auxiliary = self.auxiliary
        return replace(
            self,
            options=options,
            start=self.start and Path(self.start).name,
            data=Path(self.data).name,
            auxiliary=auxiliary and replace(auxiliary, data=Path(auxiliary.data).name),
        )

    def as_json(self) -> dict[str, Any]:
        """Return plain data, from which `runtime.files.read_as` makes an equal object."""
        return asdict(self)


@dataclass(frozen=True)
class ExperimentConfig:
    """The config.json of a run directory that holds several trainings.

    `trainings` are the names of their folders, in order, and `seeds` are those of the comparison;
    both are empty where the experiment plans trainings as it goes. `datasets` are the fingerprints
    of the datasets by option; earlier run directories have none.
    """

    job: str
    options: dict[str, Any]
    classes: tuple[str, ...]
    provenance: Provenance
    seeds: tuple[int, ...] = ()
    trainings: tuple[str, ...] = ()
    datasets: dict[str, str] = field(default_factory=dict)
