"""The start of a training: the accuracy of its first weights, and how far training moved them."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from beton.reader import Reader
from pipeline.analysis.pretraining import Start
from pipeline.evaluation.predict import predict
from pipeline.evaluation.run_dir import FinishedRun
from pipeline.loading.batches import DeviceLoader
from pipeline.loading.dataset import View, eval_batch_size, split_indices
from pipeline.training.runner import initial_network

GROUPS = ("stem", "body", "head")


def measure_start(
    run: FinishedRun, file: Reader, device: torch.device, precision: str = "no"
) -> Start:
    """Measure the first weights of a finished run on the dataset `file`."""
    assignment = run.config.training
    recipe = assignment.recipe
    first = initial_network(assignment, len(file.info["classes"]))
    distances = weight_distances(first, run.weights)
    network = first.to(device).to(memory_format=torch.channels_last)
    view = View.of(file, recipe.stages[0].size, recipe.window)
    indices = split_indices(file, assignment.validate_on)
    with DeviceLoader(file, indices, view, eval_batch_size(view), device=device) as feed:
        predictions = predict(network, feed, precision, recipe.views)
    right = (predictions.logits.argmax(dim=1) == predictions.labels).sum()
    return Start(int(right) / len(predictions.labels), distances)


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
