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
from pipeline.evaluation.run_dir import FinishedRun, read_run
from pipeline.recipes.recipe import Recipe
from pipeline.runtime.files import convert, read_json


@dataclass(frozen=True)
class RunGroup:
    """Runs by their seeds, from the lowest; `config` and `environment` are those of the first.

    `scores` are of the answers of all runs together: `logits` (N, C) and `labels` (N,).
    """

    name: str
    runs: Mapping[int, FinishedRun]
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    scores: Scores
    logits: Tensor
    labels: Tensor

    @property
    def first(self) -> FinishedRun:
        """The run with the lowest seed, which stands for the others in pictures."""
        return self.runs[min(self.runs)]

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
    groups: dict[str, dict[int, Path]] = {}
    repeated = []
    folders = {path.resolve(): path for path in paths}  # `latest` and what it points to are one
    for _, path in sorted(folders.items()):
        config = read_json(path, "config.json")
        group = groups.setdefault(json.dumps(_identity(config), sort_keys=True), {})
        seed = config["recipe"]["seed"]
        if seed in group:
            repeated.append(group[seed])
        group[seed] = path
    members = [{seed: read_run(group[seed]) for seed in sorted(group)} for group in groups.values()]
    configs = [read_json(runs[min(runs)].path, "config.json") for runs in members]
    arms = [_arm(*arm) for arm in zip(_names(configs), members, configs, strict=True)]
    for arm in arms:
        if arm.config["classes"] != arms[0].config["classes"]:
            raise UserError(
                f"{arm.first.path}: got other classes than those of {arms[0].first.path}, "
                "expected runs on the same"
            )
    return sorted(arms, key=lambda arm: -arm.scores.accuracy), repeated


def _arm(name: str, runs: Mapping[int, FinishedRun], config: Mapping[str, Any]) -> RunGroup:
    predictions = []
    for run in runs.values():
        if run.predictions is None:
            raise UserError(f"{run.path}: got a run without validation, expected one with")
        predictions.append(run.predictions)
    logits, labels = (
        torch.cat([getattr(a, part) for a in predictions]) for part in ("logits", "labels")
    )
    environment = read_json(runs[min(runs)].path, "environment.json")
    scores = score(logits, labels, config["classes"])
    return RunGroup(name, runs, config, environment, scores, logits, labels)


def _identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what runs of one arm have in common, by dotted names."""
    keys = ("network", "recipe", "start", "learn_from", "validate_on", "fingerprint")
    recipe = asdict(convert(config["recipe"], Recipe))  # whatever a recipe had when it was run
    auxiliary = (config.get("auxiliary") or {}).get("fingerprint")
    identity = _flat(
        {**{key: config[key] for key in keys}, "recipe": recipe, "auxiliary": auxiliary}
    )
    del identity["recipe.seed"]
    return identity


def _flat(value: object, name: str = "") -> dict[str, Any]:
    match value:
        case dict():
            items = list(value.items())
        case list() | tuple():
            items = list(enumerate(value))
        case _:
            return {name: value}
    return {k: v for key, one in items for k, v in _flat(one, f"{name}.{key}".strip(".")).items()}


def _names(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name arms by their recipes, those of one recipe by what else differs too."""
    names = []
    for config in configs:
        name = str(config["options"]["recipe"])
        rivals = [_identity(c) for c in configs if c["options"]["recipe"] == name]
        own = _identity(config)
        differing = [key for key in own if any(rival.get(key) != own[key] for rival in rivals)]
        if differing:
            shown = ", ".join(f"{key.rpartition('.')[2]} {own[key]}" for key in differing[:3])
            name += f" ({shown})"
        names.append(name)
    return [n if names.count(n) == 1 else f"{n} #{i}" for i, n in enumerate(names, start=1)]
