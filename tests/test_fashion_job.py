"""The job fashion on the real Fashion-MNIST, from Debian's package."""

import json
from pathlib import Path

import forked
import pytest

from pipeline.data.catalog import SourceFinder

FOUND_BY = SourceFinder(Path("nothing")).find("fashion")[1]
JOB = Path(__file__).resolve().parents[1] / "jobs" / "fashion.py"


@pytest.mark.skipif(
    not FOUND_BY.startswith("package"), reason="needs Debian's package dataset-fashion-mnist"
)
def test_lenet_reaches_80_percent_after_an_epoch_on_the_real_images(tmp_path: Path) -> None:
    done = forked.run([JOB, "--epochs", "1", "--precision", "no"], tmp_path)
    assert done.returncode == 0, done.stderr
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
