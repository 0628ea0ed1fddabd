"""The table of a network's layers."""

import pytest
import torch

from pipeline.models import networks
from pipeline.models.layers import layer_table


def test_the_layers_of_the_small_resnet() -> None:
    network = networks.build("resnet9", 10, 0, (3, 32, 32)).eval()
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    rows = layer_table(network, (3, 32, 32))
    assert rows[0] == ("stem.0", "Conv2d", (64, 32, 32), 1_728, 1_728 * 1024)
    convolutions = [row.output for row in rows if row.kind == "Conv2d"]
    assert convolutions == [
        (64, 32, 32),
        (128, 32, 32),
        *[(128, 16, 16)] * 2,
        (256, 16, 16),
        (512, 8, 8),
        *[(512, 4, 4)] * 2,
    ]
    assert rows[-1] == ("head.2", "Linear", (10,), 5_130, 5_120)
    assert sum(row.parameters for row in rows) == 6_573_130
    # 2.28 GFLOP forward and back: three passes of two operations each.
    assert sum(row.multiply_adds for row in rows) * 6 == pytest.approx(2.28e9, rel=0.01)
    assert not network.training
    assert all(torch.equal(weight, before[name]) for name, weight in network.state_dict().items())


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_every_parameter_is_in_one_row(name: str) -> None:
    side = max(32, networks.SMALLEST.get(name, 16))
    with torch.device("meta"):
        network = networks.NETWORKS[name](36, (1, side, side))
    rows = layer_table(network, (1, side, side))
    assert sum(row.parameters for row in rows) == sum(w.numel() for w in network.parameters())
    assert rows[-1].output[0] in (36, 37)
    names = [row.name for row in rows if row.parameters]
    assert len({*names}) == len(names)


def test_the_whitening_layer_computes_and_has_only_biases_to_train() -> None:
    row = layer_table(networks.build("airbench", 10, 0, (3, 32, 32)), (3, 32, 32))[0]
    assert (row.kind, row.output, row.parameters) == ("Whitening", (24, 31, 31), 24)
    assert row.multiply_adds == 24 * 12 * 31 * 31
