"""Runs that differ in their seed alone, as one arm of a comparison: folders → arms with names."""

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
from pipeline.runtime.files import read_json


@dataclass(frozen=True)
class RunGroup:
    """Runs by their seeds, from the lowest.

    `scores` are of the answers of all runs together: `logits` (N, C) and `labels` (N,).
    """

    name: str
    runs: Mapping[int, FinishedRun]
    scores: Scores
    logits: Tensor
    labels: Tensor

    @classmethod
    def of(cls, name: str, runs: Mapping[int, FinishedRun]) -> "RunGroup":
        """Gather runs. Raises UserError for a run without validation."""
        predictions = []
        for run in runs.values():
            if run.predictions is None:
                raise UserError(f"{run.path}: got a run without validation, expected one with")
            predictions.append(run.predictions)
        logits = torch.cat([one.logits for one in predictions])
        labels = torch.cat([one.labels for one in predictions])
        return cls(name, runs, score(logits, labels, run.config.classes), logits, labels)

    @property
    def first(self) -> FinishedRun:
        """The run with the lowest seed, which stands for the others in pictures."""
        return self.runs[min(self.runs)]

    @property
    def config(self) -> RunConfig:
        """The configuration of the first run."""
        return self.first.config

    @property
    def environment(self) -> dict[str, Any]:
        """The environment of the first run."""
        return read_json(self.first.path, "environment.json")

    @property
    def samples(self) -> int:
        """The number of pictures that each run was validated on."""
        return self.scores.samples // len(self.runs)

    def values(self, figure: Callable[[FinishedRun], float | None]) -> list[float | None]:
        """Return a figure of every run, None where there is none."""
        return [figure(run) for run in self.runs.values()]

    def bands(self, x: Callable[[EpochMetrics], float], y: str) -> Bands:
        """Return the mean curve of the figure `y` of epochs."""
        histories = [run.history for run in self.runs.values()]
        return bands(
            [[x(epoch) for epoch in history] for history in histories],
            [[getattr(epoch, y) for epoch in history] for history in histories],
        )


def group_runs(paths: Sequence[Path]) -> tuple[list[RunGroup], list[Path]]:
    """Return the arms of finished runs, the most accurate first, and the runs not counted.

    These repeat the recipe and seed of a later run, so they are no evidence of their own. Raises
    UserError for a folder of another kind, a run without validation, and for runs whose classes
    are not the same.
    """
    groups: dict[str, dict[int, FinishedRun]] = {}
    repeated = []
    for path in distinct(paths):
        run = read_run(path)
        group = groups.setdefault(json.dumps(_identity(run.config), sort_keys=True), {})
        seed = run.config.recipe.seed
        if seed in group:
            repeated.append(group[seed].path)
        group[seed] = run
    members = [dict(sorted(group.items())) for group in groups.values()]
    names = _names([runs[min(runs)].config for runs in members])
    arms = [RunGroup.of(name, runs) for name, runs in zip(names, members, strict=True)]
    for arm in arms:
        if arm.config.classes != arms[0].config.classes:
            raise UserError(
                f"{arm.first.path}: got other classes than those of {arms[0].first.path}, "
                "expected runs on the same"
            )
    return sorted(arms, key=lambda arm: -arm.scores.accuracy), repeated


def _identity(config: RunConfig) -> dict[str, Any]:
    """Return what runs of one arm have in common, by dotted names."""
    identity = {"network": config.network, **_flat(asdict(config.recipe), "recipe")}
    for name in ("start", "learn_from", "validate_on", "fingerprint"):
        identity[name] = getattr(config, name)
    identity["auxiliary"] = config.auxiliary and config.auxiliary.fingerprint
    del identity["recipe.seed"]
    return identity


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
    """Name arms by their recipes, those of one recipe by what else differs too."""
    names = []
    for config in configs:
        name = str(config.options["recipe"])
        rivals = [_identity(c) for c in configs if c.options["recipe"] == name]
        own = _identity(config)
        differing = [key for key in own if any(rival.get(key) != own[key] for rival in rivals)]
        if differing:
            shown = ", ".join(f"{key.rpartition('.')[2]} {own[key]}" for key in differing[:3])
            name += f" ({shown})"
        names.append(name)
    return [n if names.count(n) == 1 else f"{n} #{i}" for i, n in enumerate(names, start=1)]
