"""Groups of runs of one job that differ only in their seed, for comparison."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.analysis.stats import Bands, bands
from pipeline.errors import UserError
from pipeline.evaluation.metrics import EpochMetrics, Scores, score
from pipeline.evaluation.run_config import RunConfig
from pipeline.evaluation.run_dir import FinishedRun, read_run
from pipeline.reporting.common import distinct


@dataclass(frozen=True)
class RunGroup:
    """Runs by seed, in ascending order.

    `scores` are of the predictions of all runs together: `logits` (N, C) and `labels` (N,).
    """

    name: str
    runs: Mapping[int, FinishedRun]
    scores: Scores
    logits: Tensor
    labels: Tensor

    @classmethod
    def of(cls, name: str, runs: Mapping[int, FinishedRun]) -> "RunGroup":
        """Score all runs together. Raises UserError for a run without validation."""
        predictions = []
        for run in runs.values():
            if run.predictions is None:
                raise UserError(
                    f"{run.path}: got a run without validation, expected a validated run"
                )
            predictions.append(run.predictions)
        logits = torch.cat([one.logits for one in predictions])
        labels = torch.cat([one.labels for one in predictions])
        return cls(name, runs, score(logits, labels, run.config.classes), logits, labels)

    @property
    def first(self) -> FinishedRun:
        """The run with the lowest seed, whose images represent the group."""
        return self.runs[min(self.runs)]

    @property
    def config(self) -> RunConfig:
        """The configuration of the first run."""
        return self.first.config

    @property
    def samples(self) -> int:
        """The number of validation images of each run."""
        return self.scores.samples // len(self.runs)

    @property
    def validated_on(self) -> tuple[str, int | None]:
        """What determines the validation images: the dataset, and the limit of their number."""
        return self.config.fingerprint, self.config.recipe.validation_images

    def values(self, value: Callable[[FinishedRun], float | None]) -> list[float | None]:
        """Return a value of each run, None where it is undefined."""
        return [value(run) for run in self.runs.values()]

    def bands(self, x: Callable[[EpochMetrics], float], y: str) -> Bands:
        """Return the mean curve of the field `y` of epochs over `x`."""
        histories = [run.history for run in self.runs.values()]
        return bands(
            [[x(epoch) for epoch in history] for history in histories],
            [[getattr(epoch, y) for epoch in history] for history in histories],
        )


def group_runs(paths: Sequence[Path]) -> tuple[list[RunGroup], list[Path]]:
    """Return groups of finished runs, the most accurate first, and the runs in no group.

    A run with the recipe and seed of a later run is in no group. Raises UserError for a folder that
    is not a run directory, a run without validation, and runs with different classes.
    """
    runs_of: dict[str, dict[int, FinishedRun]] = {}  # by shared settings, then by seed
    repeated = []
    for path in distinct(paths):
        run = read_run(path)
        runs = runs_of.setdefault(json.dumps(_shared_settings(run.config), sort_keys=True), {})
        seed = run.config.recipe.seed
        if seed in runs:
            repeated.append(runs[seed].path)
        runs[seed] = run
    members = [dict(sorted(runs.items())) for runs in runs_of.values()]
    names = _names([runs[min(runs)].config for runs in members])
    groups = [RunGroup.of(name, runs) for name, runs in zip(names, members, strict=True)]
    first, *others = groups
    for group in others:
        if group.config.classes != first.config.classes:
            raise UserError(
                f"{group.first.path}: got other classes than {first.first.path}, expected the same"
            )
    return sorted(groups, key=lambda group: -group.scores.accuracy), repeated


def _shared_settings(config: RunConfig) -> dict[str, Any]:
    """Return the settings that all runs of a group share, by dotted names."""
    settings = {"network": config.network, **_flat(asdict(config.recipe), "recipe")}
    for name in ("start", "learn_from", "validate_on", "fingerprint", "until"):
        settings[name] = getattr(config, name)
    settings["auxiliary"] = config.auxiliary and config.auxiliary.fingerprint
    del settings["recipe.seed"]
    return settings


def _flat(value: object, name: str) -> dict[str, Any]:
    match value:
        case dict():
            items = list(value.items())
        case list() | tuple():
            items = list(enumerate(value))
        case _:
            return {name: value}
    return {k: v for key, one in items for k, v in _flat(one, f"{name}.{key}").items()}


def _names(configs: Sequence[RunConfig]) -> list[str]:
    """Return names: the recipe, and for groups of one recipe the settings that differ."""
    names = []
    for config in configs:
        name = str(config.options.get("recipe"))
        rivals = [_shared_settings(c) for c in configs if str(c.options.get("recipe")) == name]
        own = _shared_settings(config)
        differing = [key for key in own if any(rival.get(key) != own[key] for rival in rivals)]
        if differing:
            shown = ", ".join(f"{key.rpartition('.')[2]} {own[key]}" for key in differing[:3])
            name += f" ({shown})"
        names.append(name)
    return [n if names.count(n) == 1 else f"{n} #{i}" for i, n in enumerate(names, start=1)]
