"""Score a trained network on labelled pictures that it has not seen.

    ./launch.sh evaluate runs/part1/latest --source test.zip
    ./launch.sh evaluate runs/part1/latest --source data/part1.beton --split validation --json

The source is anything that prep reads (a zip, a folder per class, IDX files), or a .beton file, of
the classes that the network knows or some of them. Exit status: 0 done, 2 not done, with the reason
in a line.
"""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import tyro

from beton.errors import BetonError
from pipeline.data.prepare import BadImagesError
from pipeline.data.sources import SourceError
from pipeline.errors import UserError
from pipeline.evaluation.evaluate import evaluate, load_model
from pipeline.reporting.console import evaluation_table, scores_table
from pipeline.runtime import launch
from pipeline.runtime.hardware import Precision
from pipeline.runtime.progress import make_console


@dataclass(frozen=True)
class Config:
    """Score a trained network on labelled pictures that it has not seen."""

    run: tyro.conf.Positional[Path]
    """The run's folder, for example runs/part1/latest."""
    source: Path
    """A zip, a folder per class, IDX files, or a .beton file."""
    split: Literal["all", "train", "validation", "test"] = "all"
    """Which of the source's pictures."""
    json: bool = False
    """Print everything as JSON, for programs."""
    skip_bad: bool = False
    """Leave out pictures that cannot be decoded, instead of stopping."""
    precision: Precision = "auto"
    """auto: bf16 where the hardware computes in it."""


def score(config: Config) -> None:
    """Print the scores. Raises UserError, SourceError, BetonError or OSError."""
    launch.use_cores()
    evaluation = evaluate(
        load_model(config.run),
        config.source,
        split=config.split,
        precision=config.precision,
        skip_bad=config.skip_bad,
    )
    if config.json:
        print(json.dumps({**asdict(evaluation), "seen": evaluation.seen}, ensure_ascii=False))
        return
    console = make_console()
    console.print(scores_table(evaluation.scores))
    console.print(evaluation_table(evaluation))


def main() -> int:
    """Run the job; a failure is said in a line, without a traceback. Returns the exit status."""
    try:
        score(tyro.cli(Config))
    except BadImagesError as error:
        for name, reason in error.bad:
            print(f"{name}: {reason}", file=sys.stderr)
        print(f"evaluate: {error}; --skip-bad goes on without them", file=sys.stderr)
        return 2
    except (UserError, SourceError, BetonError, OSError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("evaluate: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
