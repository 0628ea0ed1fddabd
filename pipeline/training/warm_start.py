"""The start of a training: the accuracy of its first weights, and how far training moved them."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from beton.reader import Reader
from pipeline.analysis.pretraining import Start
from pipeline.evaluation.predict import predict_split
from pipeline.evaluation.run_config import TrainingConfig
from pipeline.evaluation.run_dir import FinishedRun
from pipeline.loading.dataset import View
from pipeline.training.runner import initial_network

GROUPS = ("stem", "body", "head")


def measure_start(
    run: FinishedRun,
    training: TrainingConfig,
    file: Reader,
    device: torch.device,
    precision: str = "no",
) -> Start:
    """Measure the first weights of `run`, a finished `training`, on the dataset `file`."""
    recipe = training.recipe
    first = initial_network(training, file)
    distances = weight_distances(first, run.weights)
    predictions = predict_split(
        first,
        file,
        training.validate_on,
        View.of(file, recipe.stages[0].size, recipe.window, normalize=recipe.normalize),
        device=device,
        precision=precision,
        views=recipe.views,
        mirrored=recipe.mirrored,
    )
    return Start(predictions.accuracy, distances)


def weight_distances(first: nn.Module, last: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the distances of weights from those of the network `first`, as in `Start.moved`.

    Only parameters count, not the statistics of batch normalisation.
    """
    lengths, distances = dict.fromkeys(GROUPS, 0.0), dict.fromkeys(GROUPS, 0.0)
    for name, weight in first.named_parameters():
        group = name.partition(".")[0]
        before, after = weight.detach().double().cpu(), last[name].double().cpu()
        lengths[group] += float(before.square().sum())
        distances[group] += float((after - before).square().sum())
    lengths["whole"], distances["whole"] = sum(lengths.values()), sum(distances.values())
    return {group: math.sqrt(distances[group] / length) for group, length in lengths.items()}
