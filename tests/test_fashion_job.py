"""The job fashion on the real Fashion-MNIST, from Debian's package."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.data.catalog import SourceFinder

FOUND_BY = SourceFinder(Path("nothing")).find("fashion")[1]
ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(
    not FOUND_BY.startswith("package"), reason="needs Debian's package dataset-fashion-mnist"
)
def test_lenet_reaches_80_percent_after_an_epoch_on_the_real_images(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "jobs/fashion.py"), "--epochs", "1", "--precision", "no"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=280)
    run = tmp_path / "runs/fashion/latest"
    result = json.loads((run / "result.json").read_text())
    assert result["provenance"]["kind"] == "real"
    assert result["samples"] == 10_000
    # As published, with batch statistics and dropout. The running averages of batch normalisation
    # follow slowly after one epoch at this learning rate, so eval mode is less accurate.
    (epoch,) = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    assert epoch["train_mode_accuracy"] >= 0.8
    assert result["accuracy"] >= 0.7
    test = json.loads((run / "test.json").read_text())
    assert test["samples"] == 10_000
    assert test["accuracy"] >= 0.7
