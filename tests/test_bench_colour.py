import importlib.util
from pathlib import Path

import forked

ROOT = Path(__file__).resolve().parents[1]


def test_the_benchmark_runs_and_prints_its_tables() -> None:
    small = ["--rounds", "1", "--images", "6", "--batch-size", "4", "--sizes", "24"]
    result = forked.run(["jobs/bench/colour.py", *small], ROOT)
    assert result.returncode == 0, result.stderr
    for part in (
        "6 synthetic photos of 500×400",
        "24×24, uint8",
        "24×24, normalised float32",
        "inkrun, 2 threads",
        "Mean difference",
        "FFCV" if importlib.util.find_spec("ffcv") else "FFCV is not installed",
    ):
        assert part in result.stdout
