"""A model of the time of a step, fitted to two processes, and what it predicts for many.

It is the usual one: compute is linear in the rows, a ring's all-reduce has a latency and a
bandwidth (Thakur, Rabenseifner and Gropp 2005, "Optimization of collective communication
operations in MPICH"), and all processes wait for the slowest one, whose time is the expected
maximum of normal variables.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from pipeline.benchmarks.scaling.results import Check, Model, Prediction, StepFigures

WEAK_ROWS, STRONG_ROWS = 64, 4096  # of a process; of all
MANY = (8, 64, 512)  # processes
KINDS = ("weak", "strong")


def expected_maximum(count: int) -> float:
    """Return the expected maximum of `count` standard normal variables."""
    x = np.linspace(-10, 10, 20_001)
    density = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    below = np.clip(np.cumsum(density) * (x[1] - x[0]), 0, 1)
    return float(np.trapezoid(x, below**count))


def fit(
    figures: Sequence[StepFigures], reduced: Sequence[tuple[int, float]], gradient_bytes: int
) -> Model:
    """Fit the model to steps of two processes and to all-reduces: bytes and seconds of each.

    Lines minimise relative errors. Raises ValueError for fewer than two numbers of rows or sizes.
    """
    rows = [one.rows for one in figures]
    busy = [one.compute + one.loader for one in figures]
    fixed, per_row = _line(rows, busy)
    doubled, per_byte = _line(*zip(*reduced, strict=True))
    spread = [one.stalls / seconds for one, seconds in zip(figures, busy, strict=True)]
    return Model(
        fixed,
        per_row,
        doubled / 2,
        1 / per_byte,
        gradient_bytes,
        float(np.mean(spread)) / expected_maximum(2),
    )


def _line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Return intercept and slope of the line with the least relative errors, neither below 0."""
    if len({*x}) < 2:
        raise ValueError(f"x: got {x}, expected two different numbers")
    weights = 1 / np.array(y, np.float64)
    slope, intercept = np.polyfit(x, y, 1, w=weights)
    if intercept < 0:  # noise: proportional instead
        return 0.0, float(np.mean(np.array(y) / x))
    return float(intercept), max(float(slope), 1e-12)


def step_seconds(model: Model, processes: int, rows: float) -> float:
    """Return the time of a step of `processes` processes with `rows` rows each."""
    compute = model.fixed + model.per_row * rows
    if processes == 1:
        return compute
    hops = 2 * (processes - 1)
    exchange = hops * model.latency + hops / processes * model.gradient_bytes / model.bandwidth
    return compute * (1 + model.jitter * expected_maximum(processes)) + exchange


def checks(model: Model, figures: Sequence[StepFigures]) -> Iterator[Check]:
    """Compare the model with steps of two processes that it was not fitted to."""
    for one in figures:
        yield Check(one.rows, one.seconds, step_seconds(model, one.processes, one.rows))


def predictions(model: Model) -> Iterator[Prediction]:
    """Predict the rates of many processes: weak and strong scaling."""
    for processes in MANY:
        for kind in KINDS:
            yield predict(model, processes, kind)


def predict(model: Model, processes: int, kind: str) -> Prediction:
    """Predict the rate of processes with WEAK_ROWS each, or with STRONG_ROWS in all."""
    weak = kind == "weak"
    rows = WEAK_ROWS if weak else STRONG_ROWS // processes
    alone_rows = WEAK_ROWS if weak else STRONG_ROWS
    rate = processes * rows / step_seconds(model, processes, rows)
    alone = alone_rows / step_seconds(model, 1, alone_rows)
    return Prediction(processes, rows, kind, rate, rate / (processes * alone))
