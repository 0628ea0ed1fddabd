"""How far weights moved, where the distance is known."""

import math

import pytest
import torch

from pipeline.models import networks
from pipeline.training.warm_start import weight_distances


def test_weights_that_did_not_move() -> None:
    network = networks.build("small", 4, 0)
    assert weight_distances(network, network.state_dict()) == dict.fromkeys(
        ("stem", "body", "head", "whole"), 0.0
    )


@pytest.mark.parametrize("name", ["small", "plain", "resnet18"])
def test_weights_that_doubled_moved_by_their_own_length(name: str) -> None:
    network = networks.build(name, 10, 3)
    doubled = {key: 2 * weight for key, weight in network.state_dict().items()}
    assert weight_distances(network, doubled) == pytest.approx(
        dict.fromkeys(("stem", "body", "head", "whole"), 1.0)
    )


def test_one_group_can_move_alone() -> None:
    network = networks.build("small", 4, 0)
    last = {key: weight.clone() for key, weight in network.state_dict().items()}
    head = {key: weight for key, weight in last.items() if key.startswith("head.")}
    length = math.sqrt(sum(float(weight.double().square().sum()) for weight in head.values()))
    next(iter(head.values()))[0, 0] += 3
    found = weight_distances(network, last)
    assert (found["stem"], found["body"]) == (0, 0)
    assert found["head"] == pytest.approx(3 / length)
    everything = torch.cat([p.detach().double().flatten() for p in network.parameters()])
    assert found["whole"] == pytest.approx(3 / float(everything.norm()))


def test_statistics_of_normalisation_do_not_count() -> None:
    network = networks.build("small", 4, 0)
    last = {key: weight.clone() for key, weight in network.state_dict().items()}
    statistics = [key for key in last if "running" in key or "tracked" in key]
    assert statistics
    for key in statistics:
        last[key] += 7
    assert set(weight_distances(network, last).values()) == {0.0}
