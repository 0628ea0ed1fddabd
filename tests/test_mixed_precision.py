"""The precision of every stage and of its validation, and fp16's skipped steps.

fp16 is for GPUs. Here a CPU computes in it, which is slow and otherwise refused.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from tiny import CLASSES, write_set
from torch import Tensor, nn

from beton.reader import Reader
from pipeline.loading.augment import Augmentation
from pipeline.loading.dataset import open_dataset
from pipeline.models import networks
from pipeline.models.blocks import Network
from pipeline.recipes.recipe import Recipe, Stage
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.distributed import join_processes
from pipeline.training.ema import MovingAverage
from pipeline.training.mixed_precision import MixedPrecision
from pipeline.training.trainer import Trainer

CPU = torch.device("cpu")
Tensors = tuple[Tensor, ...] | list[Tensor]
STAGE = Stage(16, 1, 5e-3, augmentation=Augmentation(rotation=5))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    with open_dataset(write_set(tmp_path_factory.mktemp("set") / "tiny.beton")) as reader:
        yield reader


def recorded(network: Network) -> list[tuple[bool, torch.dtype]]:
    """A list that gets the mode, training or not, and the dtype of each pass through the body."""
    found: list[tuple[bool, torch.dtype]] = []

    def record(layers: nn.Module, given: object, out: Tensor) -> None:
        del given
        found.append((layers.training, out.dtype))

    network.body.register_forward_hook(record)
    return found


@pytest.mark.parametrize("resumes", [False, True])
def test_every_stage_computes_in_the_precision(file: Reader, tmp_path: Path, resumes: bool) -> None:
    plain = replace(STAGE, mixed_precision=False)
    recipe = Recipe((STAGE, plain, STAGE), batch_size=8)
    network = networks.build("small", len(CLASSES), 0)
    found = recorded(network)
    dtypes: list[set[tuple[bool, torch.dtype]]] = []
    with join_processes("bf16") as processes:
        for _ in recipe.stages if resumes else [0]:  # from the start, or from each checkpoint
            training = Trainer(
                processes, network, recipe, file, checkpoints=Checkpoints(tmp_path / "kept")
            )
            for _ in training:
                dtypes.append({*found})
                found.clear()
                if resumes:
                    break
    low = {(mode, torch.bfloat16) for mode in (True, False)}
    assert dtypes == [low, {(mode, torch.float32) for mode in (True, False)}, low]
    assert {one.dtype for one in network.state_dict().values()} == {torch.float32, torch.int64}


def test_a_step_whose_gradients_overflow_is_skipped() -> None:
    torch.manual_seed(0)
    network = nn.Linear(4, 2)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    arithmetic = MixedPrecision(CPU, "fp16")
    before, scale = network.weight.detach().clone(), arithmetic.state()["scale"]
    arithmetic.backward(network(torch.ones(1, 4)).sum() * math.inf)
    assert arithmetic.step(optimizer, [*network.parameters()], 1.0) is None
    assert torch.equal(network.weight, before)
    assert arithmetic.state()["scale"] == scale / 2
    assert network.weight.grad is None
    arithmetic.backward(network(torch.ones(1, 4)).sum())
    norm = arithmetic.step(optimizer, [*network.parameters()], math.inf)
    assert norm is not None
    assert float(norm) == pytest.approx(math.sqrt(2 * 4 + 2))  # the scale is taken out
    assert not torch.equal(network.weight, before)


def test_the_loss_scale_of_a_resumed_training_is_the_one_saved(
    file: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a training whose first steps are skipped, as at the start of fp16 they are."""
    monkeypatch.setattr("pipeline.training.distributed.precision_for", lambda *_: "fp16")
    recipe = Recipe((replace(STAGE, epochs=3),), batch_size=8, average=0.9)

    def train(folder: Path, epochs: int) -> Trainer:
        network = networks.build("small", len(CLASSES), 0)
        with join_processes("fp16") as processes:
            training = Trainer(processes, network, recipe, file, checkpoints=Checkpoints(folder))
            if not training.history:
                training._arithmetic.restore(
                    {**training._arithmetic.state(), "scale": 2.0**20, "growth_interval": 3}
                )
            for epoch in training:
                if epoch.epoch + 1 == epochs:
                    break
        return training

    whole = train(tmp_path / "whole", 3)
    for epochs in (1, 2, 3):
        pieces = train(tmp_path / "pieces", epochs)
    skipped = whole.step - (whole._average.count if whole._average else 0)
    assert 0 < skipped < whole.step  # the average does not count them
    for epoch in whole.history:
        assert math.isfinite(epoch.gradient_norm)
        json.dumps(asdict(epoch), allow_nan=False)
    assert whole._arithmetic.state() == pieces._arithmetic.state()
    ours, theirs = (one.eval_model.state_dict() for one in (whole, pieces))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    other = MixedPrecision(CPU, "fp16")  # another training of the same job starts anew
    assert other.state()["scale"] == 2.0**16


def test_the_average_is_that_of_torch() -> None:
    """Of weights and of batch statistics, by torch's own average with the same decay."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))

    def decayed(averages: Tensors, weights: Tensors, count: Tensor | int) -> None:
        if averages[0].is_floating_point():
            share = min(0.9, (1 + int(count)) / (10 + int(count)))
            torch._foreach_lerp_(averages, weights, 1 - share)
        else:
            torch._foreach_copy_(averages, weights)

    theirs = torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=decayed, use_buffers=True)
    ours = MovingAverage(network, 0.9)
    for _ in range(5):
        network(torch.rand(3, 1, 5, 5))
        with torch.no_grad():
            for weights in network.parameters():
                weights.add_(torch.randn_like(weights))
        ours.update(network)
        theirs.update_parameters(network)
    assert ours.count == int(theirs.n_averaged) == 5
    expected = theirs.module.state_dict()
    assert all(torch.equal(one, expected[name]) for name, one in ours.module.state_dict().items())
