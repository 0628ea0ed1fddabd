"""A job that trains nothing: it writes the result of a training that its config.json asks for.

Its accuracy depends on the learning rate and the seed. Rates from 1 diverge, 0.5 fails, and 0.25
waits for the file `go` in the run directory of the sweep, or for SIGTERM.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

ENVIRONMENT = {
    "processor": "none",
    "device": "cpu",
    "cores": len(os.sched_getaffinity(0)),
    "processes": 1,
    "threads": 1,
    "precision": "no",
}


def main() -> int:
    """Run the job. Returns the exit status."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    run = Path(sys.argv[sys.argv.index("--resume") + 1])
    config = json.loads((run / "config.json").read_text())
    (stage,), seed = config["recipe"]["stages"], config["recipe"]["seed"]
    rate = stage["learning_rate"]
    with (run / "started").open("a") as file:
        file.write(f"{os.getpid()} {sorted(os.sched_getaffinity(0))} {sys.argv[1:]}\n")
    (run / "environment.json").write_text(json.dumps(ENVIRONMENT))
    if rate >= 1:
        (run / "diverged.json").write_text('{"step": 3, "reason": "not finite"}')
        print("part1: training diverged at step 3")
        return 2
    if rate == 0.5:
        print("Traceback\npart1: the disk is full\n", file=sys.stderr)
        return 2
    if rate == 0.25:
        while not (run.parent / "go").exists():
            time.sleep(0.01)
    accuracy = 0.9 - 10 * abs(rate - 0.01) + 0.001 * seed
    result = {
        "epochs": stage["epochs"],
        "images": 100,
        "seconds_training": 10.0,
        "seconds_validating": 1.0,
        "seconds_saving": 1.0,
        "images_per_second": 10.0,
        "loader_share": 0.0,
        "seconds_in_all": 12.0,
        "network": config["network"],
        "provenance": config["provenance"],
        "accuracy": accuracy,
        "balanced_accuracy": accuracy,
        "loss": 1 - accuracy,
        "calibration_error": 0.0,
        "samples": 20,
    }
    (run / "result.json").write_text(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
