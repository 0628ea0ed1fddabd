"""Finished runs that take a second: of pages with ink, and of colour images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from tiny import page, write_set
from tiny_colours import MEAN, STD, write_colours

from pipeline.evaluation.run_config import TrainingConfig
from pipeline.evaluation.run_dir import RunDir
from pipeline.loading.dataset import Normalize, open_dataset
from pipeline.recipes.recipe import Recipe, Stage
from pipeline.training.distributed import join_processes
from pipeline.training.runner import run_training, write_config

NAMES = ("/", "?", "a\nb", "-")  # of classes, in place of 1, A, a, m
SHAPES = ("1", "A", "a", "m")
WRONG = 10  # the number of the page of "/" that shows another shape


def train(folder: Path, data: Path, recipe: Recipe, network: str = "small") -> Path:
    """Train a network on a dataset; return its run directory."""
    run, training = RunDir(folder / "run"), TrainingConfig(network, recipe)
    run.path.mkdir()
    with open_dataset(data) as file, join_processes("no") as processes:
        write_config(run, "test", training, file, {})
        run_training(processes, run, training, file, Console(quiet=True))
    return run.path


def draw(name: str, number: int) -> NDArray[np.uint8]:
    """Return the page of a class; one validation page of "/" is an A."""
    shape = SHAPES[NAMES.index(name)]
    return page("A" if (name, number) == ("/", WRONG) else shape, number)


def ink_run(folder: Path) -> Path:
    """Train on pages whose classes have names that no file can have, one label incorrect."""
    data = write_set(folder / "tiny.beton", 8, 4, classes=NAMES, draw=draw)
    return train(folder, data, Recipe((Stage(32, 20, 1e-2),), batch_size=8, window=1.0))


def colour_run(folder: Path) -> Path:
    """Train on colour images, with predictions over an image and its mirror image."""
    recipe = Recipe((Stage(16, 6, 5e-3),), batch_size=12, window=None, mirrored=True)
    data = write_colours(folder / "colours.beton", validation=4, sizes=((24, 32), (20, 30)))
    return train(folder, data, replace(recipe, normalize=Normalize(MEAN, STD)))
