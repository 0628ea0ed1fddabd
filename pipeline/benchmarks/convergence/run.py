"""Runs all trainings of the benchmark within its time limit: each seed's arms in turn."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.benchmarks.convergence.data import DataPlan, Prepared, prepare_part
from pipeline.benchmarks.convergence.outcome import (
    RESULT,
    Arm,
    ArmResult,
    Convergence,
    PartResult,
    Training,
)
from pipeline.benchmarks.convergence.parts import PARTS, Part
from pipeline.benchmarks.convergence.times import with_times
from pipeline.benchmarks.results import load_average
from pipeline.errors import UserError
from pipeline.runtime.children import Child, run_children
from pipeline.runtime.files import read_as
from pipeline.runtime.signals import Terminated

WORKER = "pipeline.benchmarks.convergence.worker"
LEFT_OUT = "left out: the time limit has passed"


@dataclass(frozen=True)
class Plan:
    """What to train, on which data. `limit` is in seconds."""

    parts: tuple[str, ...]
    seeds: int
    limit: float
    data: DataPlan


class Bench:
    """Runs a plan in the folder `scratch`; `report` gets a line about each training.

    Nothing starts after the time limit, but for the first part's data. What has started then ends
    soon: the preparation of a part's data at its end, a training after `worker.STEPS` steps and a
    validation at the latest.
    """

    def __init__(self, plan: Plan, scratch: Path, report: Callable[[str], None]) -> None:
        self._plan, self._scratch, self._report = plan, scratch, report
        self._end = time.monotonic() + plan.limit
        arms = [arm for name in plan.parts for arm in PARTS[name].arms]
        self._left = plan.seeds * sum(map(_weight, arms))
        self._start_up = 0.0  # the shortest of the trainings so far

    def run(self) -> Convergence:
        """Train everything that there is time for."""
        before, plan = load_average(), self._plan
        parts: list[PartResult] = []
        left_out: list[str] = []
        for part in (PARTS[name] for name in plan.parts):
            if not parts or self._seconds_left() > 0:
                parts.append(self._run_part(part))
            else:  # its data would take time too
                self._report(f"part {part.name}: {LEFT_OUT}")
                left_out.append(part.title)
        load = before, load_average()
        return Convergence(
            plan.seeds, plan.limit, plan.data.quick, load, tuple(parts), tuple(left_out)
        )

    def _seconds_left(self) -> float:
        return self._end - time.monotonic()

    def _run_part(self, part: Part) -> PartResult:
        plan, folder = self._plan, self._scratch / part.name
        data = prepare_part(part, plan.data, folder, self._report)
        trainings: dict[Arm, list[Training]] = {arm: [] for arm in part.arms}
        for seed in range(plan.seeds):
            for arm in part.arms:
                training = self._train(part, arm, seed, folder)
                if training is not None:
                    trainings[arm].append(training)
        return _result(part, data, trainings, plan.data.quick)

    def _train(self, part: Part, arm: Arm, seed: int, folder: Path) -> Training | None:
        """Run a training in its part of the time left, None if less is left than it takes to start.

        Raises UserError with the reason if it fails.
        """
        label = f"part {part.name}, seed {seed}, {arm.name}"
        weight = _weight(arm)
        left = self._seconds_left()
        limit = left * weight / self._left
        self._left -= weight
        if left <= self._start_up:
            self._report(f"{label}: {LEFT_OUT}")
            return None
        training = self._launch(label, part, arm, seed, folder, limit)
        self._start_up = min(training.start_up, self._start_up or math.inf)
        self._report(f"{label}: {_line(training)}")
        return training

    def _launch(
        self, label: str, part: Part, arm: Arm, seed: int, folder: Path, limit: float
    ) -> Training:
        """Train in a process that ends some steps after `limit` seconds.

        Raises UserError with the reason if it fails.
        """
        out = folder / RESULT
        out.unlink(missing_ok=True)
        words = ["-m", WORKER, "--part", part.name, "--recipe", arm.recipe, "--loader", arm.loader]
        words += ["--seed", str(seed), "--folder", str(folder), "--limit", f"{limit:.1f}"]
        words += ["--quick"] if self._plan.data.quick else []
        child = Child(label, words, folder / "log.txt")
        failures: list[str] = []

        def ended(child: Child, status: int) -> None:
            if status:
                failures.append(child.reason(status))

        if signal := run_children([child], 1, lambda _: None, ended):
            raise Terminated(signal)
        if failures:
            raise UserError(f"{label}: {failures[0]}")
        return read_as(out, Training)


def _weight(arm: Arm) -> int:
    """Return the weight of an arm in the division of the time: all others depend on the first."""
    return 1 if arm.recipe == "published" or arm.loader == "pillow" else 3


def _line(training: Training) -> str:
    accuracy = f"{training.points[-1].accuracy:.2%}" if training.points else "none yet"
    cut = "" if training.whole else f", of {training.epochs}: cut short"
    epochs = training.images / training.epoch_images
    return f"{training.seconds:.1f} s, {epochs:.2f} epochs{cut}, accuracy {accuracy}"


def _result(
    part: Part, data: Prepared, trainings: dict[Arm, list[Training]], quick: bool
) -> PartResult:
    arms = []
    for arm, own in trainings.items():
        stages = part.recipe(arm, data.trained, 0, quick).stages
        is_published = arm.recipe == "published"
        published = part.published_accuracy if is_published and not quick else None
        network = part.preset(arm).network
        arms.append(ArmResult(arm, network, stages[-1].size, published, tuple(own), ()))
    result = PartResult(
        part.name,
        part.title,
        data.provenance,
        data.trained,
        data.validated,
        data.prepared,
        data.written,
        data.largest_difference,
        data.mean_difference,
        part.targets,
        part.below_ceiling,
        tuple(arms),
    )
    return with_times(result)
