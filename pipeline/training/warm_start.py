"""Where a training began: its first weights, what they could do already, how far they moved."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from beton.reader import Reader
from pipeline.analysis.pretraining import Start
from pipeline.evaluation.predict import answer
from pipeline.evaluation.run_dir import Finished
from pipeline.loading.batches import Feed
from pipeline.loading.dataset import View, rows_for, samples_of
from pipeline.training.runner import assigned, initial

GROUPS = ("stem", "body", "head")


def start_of(run: Finished, file: Reader, device: torch.device, precision: str = "no") -> Start:
    """Return how a finished run on `file` began. Raises UserError for the folder of no run."""
    assignment, _ = assigned(run.path)
    recipe = assignment.recipe
    first = initial(assignment, len(file.info["classes"]))
    distances = moved(first, run.weights)
    network = first.to(device).to(memory_format=torch.channels_last)
    view = View.of(file, recipe.stages[0].size, recipe.window)
    indices = samples_of(file, assignment.validate_on)
    with Feed(file, indices, view, rows_for(view), device=device) as feed:
        answers = answer(network, feed, precision, recipe.views)
    right = (answers.logits.argmax(dim=1) == answers.labels).sum()
    return Start(int(right) / len(answers.labels), distances)


def moved(first: nn.Module, last: Mapping[str, Tensor]) -> dict[str, float]:
    """Return how far weights are from those of the network `first`, as in `Start.moved`.

    What is learned counts, not the statistics of normalisation.
    """
    lengths, distances = dict.fromkeys(GROUPS, 0.0), dict.fromkeys(GROUPS, 0.0)
    for name, weight in first.named_parameters():
        group = name.partition(".")[0]
        before, after = weight.detach().double().cpu(), last[name].double().cpu()
        lengths[group] += float(before.square().sum())
        distances[group] += float((after - before).square().sum())
    lengths["whole"], distances["whole"] = sum(lengths.values()), sum(distances.values())
    return {group: math.sqrt(distances[group] / length) for group, length in lengths.items()}
